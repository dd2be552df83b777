"""The Attack contract: how a backdoor gets into a victim, and what an attack is given for it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch

from gatecrash.contracts.classifier import Classifier, Network
from gatecrash.contracts.config import Options
from gatecrash.contracts.data import ImageSet, Poisoned
from gatecrash.contracts.randomness import Streams
from gatecrash.contracts.recipe import Recipe
from gatecrash.contracts.reference import Reference
from gatecrash.contracts.train import Train


@dataclass(frozen=True)
class Implant:
    """A finished victim: the data it was trained on (with roles and backdoors) and the classifier."""

    poisoned: Poisoned
    classifier: Classifier


@dataclass(frozen=True)
class DatasetInfo:
    """What is known of a dataset when planning, before it is decoded.

    `shape` is `(channels, height, width)`; `train_counts` are images per class of the training set minus the hold-out.
    """

    name: str
    classes: tuple[str, ...]
    shape: tuple[int, int, int]
    train_counts: tuple[int, ...]

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    @property
    def train_size(self) -> int:
        return sum(self.train_counts)


@dataclass(frozen=True)
class AttackContext:
    """What an attack is given besides the training set. Streams depend on the attack's name and the run's seed only."""

    classes: tuple[str, ...]
    shape: tuple[int, int, int]
    recipe: Recipe
    device: torch.device
    stream: Streams
    new_model: Callable[[], Network]
    """A freshly initialised network of the grid's model, on `device`; equal for all attacks of one seed."""
    batches: Callable[..., Iterator[Any]]
    """`batches(tensor, ...)`: the tensors in consecutive, memory-sized batches on `device`."""
    train: Train
    benign: Network | None = None
    """The benign victim of the same dataset, model, recipe and seed, for attacks with `needs_benign`."""

    @property
    def num_classes(self) -> int:
        return len(self.classes)


class Attack(ABC):
    """One attack = one subclass in one file.

    Attacks that only change data implement `poison`. Attacks that control training override `implant` (their `poison` may stay
    `Poisoned.untouched`; `tests/contracts/` has a WaNet-like and an input-aware example).
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    reference: ClassVar[Reference | None] = None
    version: ClassVar[int] = 1
    """Raise it whenever the numbers may change: it is part of every key."""
    controls: ClassVar[Literal["data", "training", "model"]] = "data"
    clean_label: ClassVar[bool] = False
    """Labels stay true: the poisoned rows are images of the target class."""
    needs_benign: bool = False
    """Of the class or, where the options decide it, of the instance."""

    class Config(Options):
        """No options."""

    config: Options
    """The options of this instance; a plugin writes `config: Config` in its class body, so that a type checker knows its fields."""

    def __init__(self, config: Options | None = None) -> None:
        self.config = config if config is not None else self.Config()

    def check(self, info: DatasetInfo) -> None:  # noqa: B027 - most attacks can check nothing more than their options
        """Raise UserError if this configuration cannot work on the dataset; called when planning, before anything runs."""

    def notes(self, info: DatasetInfo) -> Sequence[str]:
        """What a reader of this configuration's numbers on the dataset should know, one line each; called when planning.

        A run shows the lines before it starts, boards beside the numbers.
        """
        del info
        return ()

    @abstractmethod
    def poison(self, train: ImageSet, ctx: AttackContext) -> Poisoned:
        """The poisoned training set. `train` must not be changed; row i of the result is row i of `train`."""

    def implant(self, train: ImageSet, ctx: AttackContext) -> Implant:
        """The finished victim; the default trains on `poison`'s data as an unsuspecting user would."""
        poisoned = self.poison(train, ctx)
        poisoned.check(train)  # an error is cheaper before training than after it
        return Implant(poisoned, ctx.train(poisoned))
