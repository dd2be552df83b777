"""What a defender has: exactly what the defense declares in `needs`.

The test set, the trigger, the goal and the attack's name are never part of it, so a defense can tune only on what a real defender has.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal, NoReturn

import torch
from torch import Tensor

from gatecrash.contracts.classifier import Classifier, Network
from gatecrash.contracts.data import ImageSet
from gatecrash.contracts.outcome import Outcome
from gatecrash.contracts.randomness import Streams
from gatecrash.contracts.recipe import Augmentation, Recipe
from gatecrash.contracts.train import NewModel, Train
from gatecrash.errors import ContractError, NotApplicable


class Need(StrEnum):
    """What a defense must be given."""

    MODEL = "model"
    CLEAN_DATA = "clean-data"
    TRAINING_DATA = "training-data"
    RETRAIN = "retrain"
    """May train a model from scratch: `recipe` and `new_model`."""
    FEATURES = "features"
    """The victim's penultimate activations on the training data, computed once for all defenses of a grid that declare it."""


@dataclass(frozen=True)
class Evidence:
    """What the defender has. Reading a field that `needs` does not declare raises ContractError."""

    needs: frozenset[Need]
    classes: tuple[str, ...]
    shape: tuple[int, int, int]
    device: torch.device
    stream: Streams
    """Random streams of this defense and seed."""
    train: Train
    """The training engine: fine-tunes a given network; from scratch (with RETRAIN) when none is given."""
    batches: Callable[..., Iterator[Any]]
    """`batches(tensor, ..., size=None)`: the tensors in consecutive, memory-sized batches on `device`."""
    autocast: Callable[[], AbstractContextManager[Any]]
    """`with evidence.autocast():` what a network computes in it is as in the run's trainings, bfloat16 where machine and recipe choose it:
    for a defense's own long passes. Turn logits into float32 before a loss is computed."""
    flip: bool
    """Whether mirroring an image keeps its class."""
    augmentation: Augmentation
    """How the victim's training images were changed at random: by default, what `train` fine-tunes with."""
    prior: Outcome | None = None
    """The outcome of the stage before, in a chain; `suspects` there refer to that stage's rows."""
    datasets: Mapping[str, ImageSet] = field(default_factory=dict)
    """The second data sets that options of type `DatasetRef` name, by option, in the shape of the grid's images."""
    _classifier: Classifier | None = None
    _clean: ImageSet | None = None
    _training_data: ImageSet | None = None
    _recipe: Recipe | None = None
    _new_model: NewModel | None = None
    _features: Tensor | None = None

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    @property
    def classifier(self) -> Classifier:
        """The victim, or in a chain the classifier of the stage before. It is a copy that the defense may change."""
        return self._classifier if self._classifier is not None else _undeclared("classifier", Need.MODEL)

    @property
    def network(self) -> Network:
        """The classifier as a Network, for defenses that use its points or norms; NotApplicable for any other classifier."""
        if not isinstance(self.classifier, Network):
            raise NotApplicable(f"the classifier is a {type(self.classifier).__name__}, which gives no access to points and norms")
        return self.classifier

    @property
    def clean(self) -> ImageSet:
        """The clean hold-out: never part of the victim's training data, and not the test set."""
        return self._clean if self._clean is not None else _undeclared("clean", Need.CLEAN_DATA)

    @property
    def training_data(self) -> ImageSet:
        """The suspicious training set, in training order, minus the suspects of earlier stages; no roles."""
        return self._training_data if self._training_data is not None else _undeclared("training_data", Need.TRAINING_DATA)

    @property
    def features(self) -> Tensor:
        """The head's input for each row of the training data, float32 [N, F]: `network.features` of the classifier as it was given."""
        return self._features if self._features is not None else _undeclared("features", Need.FEATURES)

    @property
    def recipe(self) -> Recipe:
        """The recipe that the victim was trained with."""
        return self._recipe if self._recipe is not None else _undeclared("recipe", Need.RETRAIN)

    @property
    def new_model(self) -> NewModel:
        """A factory of freshly initialised networks of the grid's model."""
        return self._new_model if self._new_model is not None else _undeclared("new_model", Need.RETRAIN)


def no_retraining(name: str | None = None, *, norm: Literal["group"] | None = None) -> Network:  # noqa: ARG001
    """Raises ContractError: what `train` calls for a new network where the defense did not declare RETRAIN."""
    raise ContractError("evidence.train was called without `network=`, but Need.RETRAIN is not in the defense's `needs`")


def _undeclared(what: str, need: Need) -> NoReturn:
    raise ContractError(f"evidence.{what} was read, but Need.{need.name} is not in the defense's `needs`")
