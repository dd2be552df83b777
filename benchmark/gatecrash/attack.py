"""The Attack contract: what a backdoor is, which images it may use, and how it gets into a victim."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from gatecrash.classifier import Classifier, Network
from gatecrash.config import Config as Options
from gatecrash.data import ImageSet, Poisoned
from gatecrash.errors import UserError
from gatecrash.randomness import Streams
from gatecrash.recipe import Recipe
from gatecrash.reference import Reference
from gatecrash.triggers import Trigger

GoalKind = Literal["all-to-one", "all-to-all", "one-to-one"]


@dataclass(frozen=True)
class Goal:
    """What a backdoor makes of a label.

    all-to-one: every image becomes `target`. one-to-one: images of `source` become `target`. all-to-all: y becomes (y + 1) mod K
    (Gu et al. 2017, section 4.1).
    """

    kind: GoalKind
    num_classes: int
    target: int | None = None
    source: int | None = None

    def eligible(self, labels: Tensor) -> Tensor:
        """bool [N]: images on which the backdoor is scored, and which a dirty-label attack may poison."""
        if self.kind == "all-to-one":
            return labels.ne(self.target if self.target is not None else -1)
        if self.kind == "one-to-one":
            return labels.eq(self.source if self.source is not None else -1)
        return torch.ones_like(labels, dtype=torch.bool)

    def labels(self, labels: Tensor) -> Tensor:
        """int64 [N]: the labels that the attacker wants for triggered images of these classes."""
        if self.kind == "all-to-all":
            return (labels + 1) % self.num_classes
        return torch.full_like(labels, self.target if self.target is not None else 0)

    @property
    def targets(self) -> tuple[int, ...]:
        """All classes that a triggered image can be sent to."""
        if self.kind == "all-to-all":
            return tuple(range(self.num_classes))
        return (self.target,) if self.target is not None else ()


@dataclass(frozen=True)
class Backdoor:
    """One planted behaviour: images under `trigger` are to be classified as `goal` says. Several can live in one victim."""

    name: str
    goal: Goal
    trigger: Trigger


@dataclass(frozen=True)
class Implant:
    """A finished victim: the data it was trained on (with roles and backdoors) and the classifier."""

    poisoned: Poisoned
    classifier: Classifier


@dataclass(frozen=True)
class DatasetInfo:
    """What planning knows of a dataset without decoding it; counts are per class, of the training set minus the hold-out."""

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


OnBatch = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]
"""(images uint8 [B, C, H, W], labels int64 [B], rows int64 [B]) -> images and labels to train on, before augmentation."""

Loss = Callable[[Network, Tensor, Tensor, Tensor], Tensor]
"""(network, images, labels, rows) -> scalar loss, after augmentation; replaces cross-entropy."""


class Train(Protocol):
    """The training engine, with the recipe, device and random streams of this run already set."""

    def __call__(
        self,
        data: Poisoned | ImageSet,
        *,
        network: Network | None = None,
        recipe: Recipe | None = None,
        on_batch: OnBatch | None = None,
        loss: Loss | None = None,
    ) -> Network:
        """Train `network` (in place; by default a new model) on `data` and return it in eval mode."""


@dataclass(frozen=True)
class AttackContext:
    """What every attack would otherwise copy. Streams depend on the attack's name and the run's seed only."""

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
    `Poisoned.untouched`, see `tests/` for a WaNet-like and an input-aware example).
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    reference: ClassVar[Reference | None] = None
    version: ClassVar[int] = 1
    """Raise it whenever the numbers may change: it is part of every key."""
    controls: ClassVar[Literal["data", "training", "model"]] = "data"
    clean_label: ClassVar[bool] = False
    """Labels stay true: the poisoned rows are images of the target class."""
    needs_benign: ClassVar[bool] = False

    class Config(Options):
        """No options."""

    def __init__(self, config: Config | None = None) -> None:
        self.config: Any = config if config is not None else self.Config()

    def check(self, info: DatasetInfo) -> None:  # noqa: B027 - most attacks can check nothing more than their options
        """Raise UserError if this configuration cannot work on the dataset; called when planning, before anything runs."""

    @abstractmethod
    def poison(self, train: ImageSet, ctx: AttackContext) -> Poisoned:
        """The poisoned training set. `train` must not be changed; row i of the result is row i of `train`."""

    def implant(self, train: ImageSet, ctx: AttackContext) -> Implant:
        """The finished victim; the default trains on `poison`'s data as an unsuspecting user would."""
        poisoned = self.poison(train, ctx)
        poisoned.check(train)  # before the hours of training
        return Implant(poisoned, ctx.train(poisoned))


class GoalConfig(Options):
    """Options of attacks with one goal."""

    goal: GoalKind = Field("all-to-one", description="what triggered images become: one class, the next class, or source to target")
    target: int = Field(0, ge=0, description="target class (ignored by all-to-all)")
    source: int | None = Field(None, ge=0, description="source class, for one-to-one only")

    @model_validator(mode="after")
    def _source_fits_goal(self) -> Self:
        if self.goal == "one-to-one" and self.source is None:
            raise ValueError("goal one-to-one needs a source class")
        if self.goal != "one-to-one" and self.source is not None:
            raise ValueError(f"source is for goal one-to-one only, not {self.goal}")
        if self.source is not None and self.source == self.target:
            raise ValueError("source and target are the same class")
        return self

    def make_goal(self, num_classes: int) -> Goal:
        """Raises UserError where a class does not exist."""
        for role, label in (("target", self.target), ("source", self.source)):
            if label is not None and label >= num_classes:
                raise UserError(f"{role} class {label} does not exist; the dataset has classes 0 to {num_classes - 1}")
        target = None if self.goal == "all-to-all" else self.target
        return Goal(self.goal, num_classes, target, self.source)


class PoisonConfig(GoalConfig):
    """Options of attacks that poison a share of the training set."""

    poison_rate: float = Field(
        0.05, gt=0, le=1, description="poisoned share of the whole training set, drawn from images the goal applies to"
    )


def poison_count(rate: float, candidates: int, total: int, who: str) -> int:
    """How many rows to poison: `rate` of `total`, rounded.

    Raises UserError where that is none, or more than there are candidates, with the nearest rate that works.
    """
    count = round(rate * total)
    if candidates == 0:
        raise UserError(f"{who}: no training image can be poisoned for this goal; choose other classes")
    if count < 1:
        raise UserError(f"{who}: poison_rate {rate:g} of {total} images is none; use at least {_rate_for(1, total)}")
    if count > candidates:
        raise UserError(
            f"{who}: poison_rate {rate:g} asks for {count} images but only {candidates} of {total} can be poisoned; "
            f"use at most {_rate_for(candidates, total)}"
        )
    return count


def _rate_for(count: int, total: int) -> str:
    """The shortest decimal that, as a poison rate, gives exactly `count` of `total` images."""
    decimals = (f"{count / total:.{digits}g}" for digits in range(1, 18))
    return next(text for text in decimals if round(float(text) * total) == count)


class TriggerAttack(Attack):
    """Base of the attacks that are a trigger, a goal and a rate: they define `trigger` and their options.

    Rows are drawn without replacement from the images that the goal applies to, as a prefix of one permutation per (attack, seed): a
    higher rate poisons a superset.
    """

    class Config(PoisonConfig):
        """Goal and poison rate."""

    @abstractmethod
    def trigger(self, shape: tuple[int, int, int]) -> Trigger:
        """The trigger that the evaluation applies to test images."""

    def train_trigger(self, shape: tuple[int, int, int]) -> Trigger:
        """The trigger for training images, where it differs (another opacity, say)."""
        return self.trigger(shape)

    def check(self, info: DatasetInfo) -> None:
        goal = self.config.make_goal(info.num_classes)
        labels = torch.arange(info.num_classes)
        candidates = sum(info.train_counts[int(label)] for label in labels[self.candidates(labels, goal)])
        poison_count(self.config.poison_rate, candidates, info.train_size, self.name)
        self.trigger(info.shape)
        self.train_trigger(info.shape)

    def candidates(self, labels: Tensor, goal: Goal) -> Tensor:
        """bool [N]: rows that may be poisoned."""
        return goal.eligible(labels)

    def choose(self, train: ImageSet, goal: Goal, ctx: AttackContext) -> Tensor:
        """int64 rows to poison."""
        rows = torch.nonzero(self.candidates(train.labels.cpu(), goal)).flatten()
        count = poison_count(self.config.poison_rate, len(rows), len(train), self.name)
        order = torch.randperm(len(rows), generator=ctx.stream("poison"))
        return rows[order[:count]].sort().values

    def backdoors(self, ctx: AttackContext) -> Sequence[Backdoor]:
        return (Backdoor(self.name, self.config.make_goal(ctx.num_classes), self.trigger(ctx.shape)),)

    def craft(self, images: Tensor, labels: Tensor, ctx: AttackContext) -> Tensor:
        """uint8 [n, C, H, W]: what the chosen images (of these labels) become; by default they get the training trigger."""
        del labels
        trigger = self.train_trigger(ctx.shape).to(ctx.device)
        return torch.cat([trigger(batch) for batch in ctx.batches(images)])

    def poison(self, train: ImageSet, ctx: AttackContext) -> Poisoned:
        goal = self.config.make_goal(ctx.num_classes)
        rows = self.choose(train, goal, ctx).to(train.device)
        images, labels = train.images[rows], train.labels[rows]
        return Poisoned.replacing(train, rows, self.craft(images, labels, ctx), goal.labels(labels), self.backdoors(ctx))
