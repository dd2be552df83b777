"""What all tasks of a grid share."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from gatecrash.contracts.data import ImageSet, Splits
from gatecrash.contracts.model import Model
from gatecrash.contracts.randomness import stream
from gatecrash.contracts.recipe import Recipe
from gatecrash.datasets.holdout import HoldoutConfig, cut
from gatecrash.engine.device import choose_device
from gatecrash.engine.precision import Precision, auto_precision
from gatecrash.engine.trainer import ReportProgress, TrainingSetup
from gatecrash.host.host import Host
from gatecrash.process.cache_folder import cache_folder
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
    precision: Precision | None = None
    """What `precision: auto` shall mean; by default what the machine that trains has measured."""
    evaluation: dict[str, Any] = field(default_factory=dict)
    """What the evaluation measures beyond the scores of every cell: `EvaluationConfig.asked`."""
    checkpoints: str = ""
    """Folder in the cache of that machine for checkpoints of long trainings; none are written without."""

    def configured_model(self, host: Host) -> Model:
        model: Model = host.get("model", self.model.name).configure(self.model.config)
        return model

    def setup(self, seed: int, *, flip: bool, report: ReportProgress) -> TrainingSetup:
        """What all trainings of one task have in common."""
        device, recipe = choose_device(self.device), Recipe.model_validate(self.recipe)
        checkpoints = cache_folder() / "checkpoints" / self.checkpoints if self.checkpoints else None
        return TrainingSetup(self.dataset, seed, recipe, flip, device, self.precision or auto_precision(device), checkpoints, report)


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
