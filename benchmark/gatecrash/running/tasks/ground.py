"""What all tasks of a grid share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gatecrash.contracts.classifier import Network
from gatecrash.contracts.data import ImageSet, Splits
from gatecrash.contracts.randomness import Streams, stream
from gatecrash.datasets.holdout import HoldoutConfig, cut
from gatecrash.engine.networks import network_factory
from gatecrash.host.host import Host
from gatecrash.records.stage import Stage


@dataclass(frozen=True)
class Ground:
    """What all tasks of a grid share. JSON-able."""

    dataset: str
    model: Stage
    recipe: dict[str, Any]
    holdout: dict[str, Any]
    device: str | None = None
    threads: int = 1

    def streams(self, purpose: str, seed: int) -> Streams:
        """Initialisation and batch order: the same for every attack, so that cells pair."""
        return Streams(purpose, self.dataset, self.model.name, self.recipe, seed)


@dataclass(frozen=True)
class TrainPart:
    """The dataset without its test split: all that implanting and defending may touch."""

    train: ImageSet
    clean: ImageSet | None
    groups: Tensor | None
    flip: bool

    @classmethod
    def of(cls, splits: Splits) -> TrainPart:
        return cls(splits.train, splits.clean, splits.groups, splits.flip)

    def cut(self, ground: Ground, seed: int) -> tuple[ImageSet, ImageSet]:
        """(training set, clean hold-out) of this seed."""
        nothing = ImageSet(self.train.images[:0], self.train.labels[:0], self.train.classes)
        splits = Splits(self.train, nothing, self.clean, self.groups, self.flip)
        generator = stream("hold-out", ground.dataset, ground.holdout, seed)
        return cut(splits, HoldoutConfig.model_validate(ground.holdout), generator)


def model_factory(host: Host, ground: Ground, data: ImageSet, device: torch.device) -> Callable[[int], Network]:
    """A function seed -> fresh network, normalised by the statistics of `data`."""
    model = host.get("model", ground.model.name).configure(ground.model.config)
    return network_factory(model, data, device)
