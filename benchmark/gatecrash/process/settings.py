"""The settings that belong to a whole process: how each is read and written, and what a task starts with."""

from __future__ import annotations

import gc
import os
import random
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from torch.nn.modules import module as modules
from torch.optim import optimizer


@dataclass(frozen=True)
class ProcessSetting:
    """One setting: its name, how to read and write it, and the value that a task starts with."""

    name: str
    read: Callable[[], Any]
    write: Callable[[Any], object]
    start: Any


def process_settings(threads: int = 1) -> list[ProcessSetting]:
    """What every task finds in the same state, in the order of writing."""
    return [*_random(), ProcessSetting("threads", torch.get_num_threads, torch.set_num_threads, threads), *_torch(), *_hooks()]


@cache
def _random() -> tuple[ProcessSetting, ...]:
    numpy = np.random.RandomState(0).get_state()
    return (
        ProcessSetting("random", random.getstate, random.setstate, random.Random(0).getstate()),
        ProcessSetting("numpy.random", np.random.get_state, np.random.set_state, numpy),
        ProcessSetting("torch.random", torch.get_rng_state, torch.set_rng_state, torch.Generator().manual_seed(0).get_state()),
        ProcessSetting("torch.cuda.random", _cuda_states, _set_cuda_states, None),
    )


@cache
def _torch() -> tuple[ProcessSetting, ...]:
    cudnn: Any = torch.backends.cudnn
    return (
        ProcessSetting("default dtype", torch.get_default_dtype, torch.set_default_dtype, torch.float32),
        ProcessSetting("default device", torch.get_default_device, _set_default_device, torch.device("cpu")),
        ProcessSetting("gradients", torch.is_grad_enabled, torch.set_grad_enabled, True),
        ProcessSetting("anomaly detection", torch.is_anomaly_enabled, torch.autograd.set_detect_anomaly, False),
        ProcessSetting("deterministic algorithms", torch.get_deterministic_debug_mode, torch.set_deterministic_debug_mode, 0),
        ProcessSetting("flushed denormals", _flushes_denormals, torch.set_flush_denormal, False),
        ProcessSetting("matmul precision", _matmul_precision, _set_matmul_precision, "highest"),  # writes some of the next ones, too
        *(_attribute(holder, name, exact, f"{name} {number}") for number, (holder, name, exact) in enumerate(full_float32())),
        _attribute(cudnn, "benchmark", False),
        _attribute(cudnn, "deterministic", False),
        _attribute(cudnn, "enabled", True),
        *(_autocast(device) for device in ("cpu", "cuda")),
        ProcessSetting("numpy errors", np.geterr, lambda kinds: np.seterr(**kinds), _NUMPY_ERRORS),
        ProcessSetting("garbage collection", gc.isenabled, lambda on: gc.enable() if on else gc.disable(), True),
    )


_NUMPY_ERRORS = {"divide": "warn", "over": "warn", "under": "ignore", "invalid": "warn"}


@cache
def _hooks() -> tuple[ProcessSetting, ...]:
    """Hooks on every module and every optimizer of the process."""
    found = [(holder, name) for holder in (modules, optimizer) for name in vars(holder) if name.startswith("_global_")]
    tables = [(name, getattr(holder, name)) for holder, name in found]
    return (
        *(_table(name, value) for name, value in tables if isinstance(value, dict)),
        _attribute(modules, "_global_is_full_backward_hook", None),
    )


def surroundings() -> tuple[ProcessSetting, ...]:
    """What a task may find as it is, but must not leave changed."""
    return (
        _table("environment", os.environ),
        ProcessSetting("working directory", _directory, _change_directory, None),
        ProcessSetting("import path", lambda: list(sys.path), lambda path: sys.path.__setitem__(slice(None), path), None),
    )


def _attribute(holder: Any, name: str, start: Any, title: str = "") -> ProcessSetting:
    def write(value: Any) -> None:
        if getattr(holder, name) != value:
            setattr(holder, name, value)

    return ProcessSetting(title or name, lambda: getattr(holder, name), write, start)


def _table(name: str, table: Any) -> ProcessSetting:
    def write(content: Any) -> None:
        if table != content:
            table.clear()
            table.update(content)

    return ProcessSetting(name, lambda: dict(table), write, {})


def _autocast(device: str) -> ProcessSetting:
    start = False, torch.float16 if device == "cuda" else torch.bfloat16

    def write(value: tuple[bool, torch.dtype]) -> None:
        torch.set_autocast_enabled(device, value[0])
        torch.set_autocast_dtype(device, value[1])

    return ProcessSetting(
        f"autocast on {device}", lambda: (torch.is_autocast_enabled(device), torch.get_autocast_dtype(device)), write, start
    )


def _cuda_states() -> list[torch.Tensor] | None:
    return torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else None  # type: ignore[no-untyped-call]


def _set_cuda_states(states: list[torch.Tensor] | None) -> None:
    if states is not None:
        torch.cuda.set_rng_state_all(states)
    elif torch.cuda.is_available():
        torch.cuda.manual_seed_all(torch.Generator().initial_seed())  # what a new process has


def _matmul_precision() -> str | None:
    with suppress(RuntimeError):  # torch >= 2.9 has no answer where its switches differ
        return torch.get_float32_matmul_precision()
    return None


def _set_matmul_precision(precision: str | None) -> None:
    torch.set_float32_matmul_precision(precision or "highest")  # unanswered: the switches, written next, decide


def _set_default_device(device: torch.device) -> None:
    if torch.get_default_device() != device:
        torch.set_default_device(None if device.type == "cpu" else device)


def _flushes_denormals() -> bool:
    return float(torch.tensor(1e-42, dtype=torch.float32, device="cpu") * 1) == 0.0


def _directory() -> str | None:
    with suppress(FileNotFoundError):  # somebody may have removed it
        return os.getcwd()
    return None


def _change_directory(path: str | None) -> None:
    if path is not None:
        os.chdir(path)


def full_float32() -> list[tuple[Any, str, Any]]:
    """(holder, attribute, value) of the switches that keep float32 matrix products and convolutions from being rounded to less."""
    cudnn: Any = torch.backends.cudnn
    mkldnn: Any = torch.backends.mkldnn
    matmul = torch.backends.cuda.matmul
    if hasattr(cudnn, "conv"):  # torch >= 2.9, which refuses to read the old switches once someone has used the new ones
        holders = (matmul, cudnn.conv, cudnn.rnn, mkldnn.matmul, mkldnn.conv, mkldnn.rnn)
        return [(holder, "fp32_precision", "ieee") for holder in holders]
    return [(matmul, "allow_tf32", False), (cudnn, "allow_tf32", False)]
