"""Checkpoints of a training: what it takes to go on after a kill, to the same last digit.

A checkpoint holds the state of everything that changes during a training (weights, optimiser, random generators, losses so far) and an
identity: a digest of everything that the training started from. One of another identity, or a damaged one, is not used. It is written
after a step, every few minutes, to the cache folder of the machine that trains, whole or not at all.

Only trainings without hooks have them: what a plugin's `on_batch` or `loss` keeps to itself cannot be stored.
"""

from __future__ import annotations

import hashlib
import json
import logging
import pickle
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from gatecrash.contracts.patched import Patched
from gatecrash.contracts.patched import part as part_of
from gatecrash.contracts.portable import tensors_hash
from gatecrash.process.mapped import slices
from gatecrash.process.whole_file import replacing

log = logging.getLogger("gatecrash")

INTERVAL = 180.0
"""Seconds between checkpoints."""

FORGOTTEN = 14 * 24 * 3600
"""Seconds after which what a run left behind is removed."""

State = dict[str, Any]
"""Tensors, numbers, strings, and lists and dicts of these: what `torch.load` reads without running code."""


class Stateful(Protocol):
    """A part of a training that changes with every step."""

    def state(self) -> State:
        """All that `restore` needs."""

    def restore(self, state: State) -> None:
        """Go back to where `state` was taken."""


class Weights:
    """Parameters and buffers of a network."""

    def __init__(self, network: nn.Module) -> None:
        self._network = network

    def state(self) -> State:
        return dict(self._network.state_dict())

    def restore(self, state: State) -> None:
        self._network.load_state_dict(state)


class TorchGenerators:
    """Torch's global generators, from which dropout draws."""

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def state(self) -> State:
        return {"cpu": torch.get_rng_state(), **({"cuda": torch.cuda.get_rng_state(self._device)} if self._device.type == "cuda" else {})}

    def restore(self, state: State) -> None:
        torch.set_rng_state(state["cpu"])
        if "cuda" in state:
            torch.cuda.set_rng_state(state["cuda"], self._device)


def identity(facts: Sequence[Any], weights: Mapping[str, Tensor], images: Tensor | Patched, labels: Tensor) -> Callable[[], str]:
    """A digest of what a training starts from: JSON-able facts, first weights, data. The data are read only when it is asked for."""
    start = f"{json.dumps(facts)}{tensors_hash(weights)}"
    return cache(lambda: hashlib.sha256(f"{start}{_data_hash(images, labels)}".encode()).hexdigest())


def _data_hash(images: Tensor | Patched, labels: Tensor) -> str:
    """The `tensors_hash` of both, without a copy of the images."""
    digest = hashlib.sha256(b"images")
    for rows in slices(images.base if isinstance(images, Patched) else images):
        digest.update(part_of(images, rows).cpu().contiguous().numpy().data)
    digest.update(b"labels")
    digest.update(labels.cpu().contiguous().numpy().data)
    return digest.hexdigest()


def remove_checkpoints(folder: Path) -> None:
    """Remove those of a task that has ended, and what runs of long ago have left beside them."""
    shutil.rmtree(folder, ignore_errors=True)
    try:
        others = list(folder.parent.iterdir())
    except OSError:
        return
    for other in others:
        try:
            if time.time() - other.stat().st_mtime > FORGOTTEN:
                shutil.rmtree(other, ignore_errors=True)
        except OSError:
            continue


class Checkpoint:
    """The checkpoint of one training."""

    def __init__(self, path: Path, identity: Callable[[], str], parts: Mapping[str, Stateful]) -> None:
        """`identity` is asked only where a checkpoint is read or written: digesting a large data set takes a second."""
        self._path, self._identity, self._parts = path, identity, parts
        self._written = time.monotonic()

    def resume(self) -> tuple[int, int]:
        """Put all parts where the checkpoint left them; gives (epoch, steps of it that are done), (0, 0) where there is none."""
        if not self._path.exists():
            return 0, 0
        try:
            stored = torch.load(self._path, map_location="cpu", weights_only=True)
            if stored["identity"] != self._identity():
                return 0, 0
            position = int(stored["epoch"]), int(stored["step"])
            states = {name: stored["parts"][name] for name in self._parts}
        except (OSError, RuntimeError, ValueError, TypeError, KeyError, EOFError, pickle.UnpicklingError) as error:
            log.warning("the checkpoint %s cannot be read (%s): training starts anew", self._path, type(error).__name__)
            return 0, 0
        for name, part in self._parts.items():
            part.restore(states[name])
        return position

    def is_due(self) -> bool:
        return time.monotonic() - self._written >= INTERVAL

    def write(self, epoch: int, step: int) -> None:
        """Write where the training is. A full disk is a warning: the training itself does not need it."""
        stored = {"identity": self._identity(), "epoch": epoch, "step": step, "parts": {n: part.state() for n, part in self._parts.items()}}
        try:
            with replacing(self._path) as temporary:
                torch.save(stored, temporary)
        except (OSError, RuntimeError) as error:
            log.warning("no checkpoint could be written to %s (%s)", self._path, error)
        self._written = time.monotonic()
