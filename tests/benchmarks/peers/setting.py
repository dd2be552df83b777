"""What all comparisons work on: a part of CIFAR-10 (JPEG) under BadNets, and a victim that was trained on it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from gatecrash import ImageSet, Model, Network, Poisoned, Recipe
from gatecrash.host.loading import load_plugins
from gatecrash.process.allocator import freed_memory_kept
from gatecrash.process.isolation import fresh_process_state
from gatecrash.testing import make_context

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.247, 0.243, 0.261)
"""BackdoorBench's normalisation of CIFAR-10; all tools that train get it."""
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Setting:
    """`train` is clean; `poisoned` is what an attack made of it, row by row."""

    train: ImageSet
    poisoned: Poisoned
    test: ImageSet
    victim: Network
    """Of a small model, trained on the poisoned set; in eval mode."""
    model: Model
    """The victim's."""


def make_setting(folder: Path) -> Setting:
    """`folder` holds `train/<class>/*.jpg` and `test/<class>/*.jpg`. The victim is `lean` of a quarter of its width after 8 epochs."""
    host = load_plugins(installed=False)
    splits = host.get("dataset", "imagefolder").configure({"root": folder}).load(lambda _done, _total: None)
    model = host.get("model", "lean").configure({"width": 0.25})
    recipe = Recipe(epochs=8, batch_size=64, lr=0.1, nesterov=True, schedule="one-cycle", crop=2)
    attack = host.get("attack", "badnets").configure({"poison_rate": 0.1})
    with as_a_task():
        implant = attack.implant(splits.train, make_context(attack, splits.train, model, recipe=recipe, flip=True, device=CPU))
    assert isinstance(implant.classifier, Network)
    return Setting(splits.train, implant.poisoned, splits.test, implant.classifier, model)


def few(data: ImageSet, per_class: int) -> Tensor:
    """Rows of the first images of each class, int64."""
    return torch.cat([torch.nonzero(data.labels == label).flatten()[:per_class] for label in range(data.num_classes)])


@contextmanager
def as_a_task() -> Iterator[None]:
    """The settings of the process that a task of a grid has."""
    with freed_memory_kept(), fresh_process_state(1):
        yield
