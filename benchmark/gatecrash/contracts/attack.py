"""The Attack contract: how a backdoor gets into a victim, and what an attack is given for it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import torch

from gatecrash.contracts.classifier import Classifier, Network
from gatecrash.contracts.config import Options
from gatecrash.contracts.data import ImageSet, Poisoned
from gatecrash.contracts.portable import Portable
from gatecrash.contracts.randomness import Streams
from gatecrash.contracts.recipe import Recipe
from gatecrash.contracts.reference import Reference
from gatecrash.contracts.train import NewModel, Train


@dataclass(frozen=True)
class Implant:
    """A finished victim: the data it was trained on (with roles and backdoors) and the classifier."""

    poisoned: Poisoned
    classifier: Classifier
    sample: Poisoned | None = None
    """The training set that a defender would hold of an attack that controls training: row i is row i of `train`. Without it, defenses
    that need training data are `not-applicable`. An attack that controls data only needs none: its `poisoned` is what a defender holds."""


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
    new_model: NewModel
    """A freshly initialised network of the grid's model, on `device`; the first is equal for all attacks of one seed."""
    batches: Callable[..., Iterator[Any]]
    """`batches(tensor, ...)`: the tensors in consecutive, memory-sized batches on `device`."""
    train: Train
    benign: Network | None = None
    """The benign victim of the same dataset, model, recipe and seed, for attacks with `needs_benign`."""
    prepared: Portable | None = None
    """What the attack's `prepare` returned, in eval mode on `device`."""
    datasets: Mapping[str, ImageSet] = field(default_factory=dict)
    """The second data sets that options of type `DatasetRef` name, by option, in the shape of the grid's images."""

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
    deviations: ClassVar[Mapping[str, str]] = {}
    """Checks of `gatecrash check` that this method fails on purpose: name -> reason, which is shown instead of a failure."""
    controls: ClassVar[Literal["data", "training", "model"]] = "data"
    clean_label: ClassVar[bool] = False
    """Labels stay true: the poisoned rows are images of the target class."""
    needs_benign: bool = False
    """Of the class or, where the options decide it, of the instance."""
    prepare_options: ClassVar[frozenset[str]] = frozenset()
    """Names of the options that `prepare` depends on; it can read no others."""

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

    def prepare(self, train: ImageSet, ctx: AttackContext) -> Portable | None:
        """What all values of the other options can share (an encoder, a surrogate), made once and kept in the store: `ctx.prepared` of
        `poison` and `implant`.

        It is made anew for other training images, another model, recipe or seed, for another version of the attack, and for other values
        of `prepare_options`. `ctx` has streams of its own; `ctx.prepared` is None here.
        """
        raise NotImplementedError(f"{type(self).__name__} prepares nothing")  # pragma: no cover - never called where it is not defined

    @classmethod
    def prepares(cls) -> bool:
        """Whether the attack defines `prepare`."""
        return cls.prepare is not Attack.prepare

    @abstractmethod
    def poison(self, train: ImageSet, ctx: AttackContext) -> Poisoned:
        """The poisoned training set. `train` must not be changed; row i of the result is row i of `train`."""

    def implant(self, train: ImageSet, ctx: AttackContext) -> Implant:
        """The finished victim; the default trains on `poison`'s data as an unsuspecting user would."""
        poisoned = self.poison(train, ctx)
        poisoned.check(train)  # an error is cheaper before training than after it
        return Implant(poisoned, ctx.train(poisoned))
