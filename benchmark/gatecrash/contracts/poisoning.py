"""Poisoning a share of the training set: options, counts, and what a defender would hold of attacks that do otherwise."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from gatecrash.contracts.attack import AttackContext, DatasetInfo
from gatecrash.contracts.backdoor import Backdoor, Goal
from gatecrash.contracts.class_label import ClassLabel, ClassLabels
from gatecrash.contracts.config import Options
from gatecrash.contracts.data import ImageSet, Poisoned, Role
from gatecrash.contracts.trigger import Trigger
from gatecrash.errors import ContractError, OutOfReach, UserError


class GoalConfig(Options):
    """Options of attacks with one goal."""

    NEWER = frozenset({"sources"})

    goal: Literal["all-to-one", "all-to-all", "one-to-one", "many-to-one"] = Field(
        "all-to-one", description="what triggered images become: one class, the next class, or that of one or several sources the target"
    )
    target: ClassLabel = Field(0, description="target class, by number or name (ignored by all-to-all)")
    source: ClassLabel | None = Field(None, description="source class, by number or name, for one-to-one only")
    sources: ClassLabels | None = Field(None, description="source classes, by number or name, for many-to-one only")

    @model_validator(mode="after")
    def _source_fits_goal(self) -> Self:
        if self.goal == "one-to-one" and self.source is None:
            raise ValueError("goal one-to-one needs a source class")
        if self.goal != "one-to-one" and self.source is not None:
            raise ValueError(f"source is for goal one-to-one only, not {self.goal}")
        if self.goal == "many-to-one" and not self.sources:
            raise ValueError("goal many-to-one needs sources, a list of classes")
        if self.goal != "many-to-one" and self.sources is not None:
            raise ValueError(f"sources are for goal many-to-one only, not {self.goal}")
        if self.target in (self.source, *(self.sources or ())):
            raise ValueError("source and target are the same class")
        return self

    def make_goal(self, num_classes: int) -> Goal:
        """The goal for a dataset of `num_classes` classes; UserError where target or source is not one of them."""
        target = self.class_number("target", self.target, num_classes)
        if self.goal == "all-to-all":
            return Goal.all_to_all(num_classes)
        if self.goal == "all-to-one":
            return Goal.all_to_one(num_classes, target)
        sources = self.sources if self.source is None else (self.source,)
        return Goal.many_to_one(num_classes, [self.class_number("source", label, num_classes) for label in sources or ()], target)

    @staticmethod
    def class_number(role: str, label: int | str, num_classes: int) -> int:
        """The number of the class that an option names for this role; UserError where it is a name, or no class of the dataset."""
        if isinstance(label, str):
            raise UserError(f"{role} {label!r} is a name; only grids know class names: use the number of the class here")
        if label >= num_classes:
            raise UserError(f"{role} class {label} does not exist; the dataset has classes 0 to {num_classes - 1}")
        return label


class PoisonConfig(GoalConfig):
    """Options of attacks that poison a share of the training set."""

    poison_rate: float = Field(
        0.05, gt=0, le=1, description="poisoned share of the whole training set, drawn from images the goal applies to"
    )


class CoverConfig(PoisonConfig):
    """Options of attacks whose poison has covers beside it."""

    cover_rate: float = Field(
        0.0, ge=0, lt=1, description="covers' share of the whole training set: rows that are changed and keep their label"
    )


def poison_count(rate: float, candidates: int, total: int, who: str) -> int:
    """How many rows to poison: `rate` of `total`, rounded.

    Raises UserError where that is none, or more than there are candidates, with the nearest rate that works.
    """
    count = round(rate * total)
    if candidates == 0:
        raise UserError(f"{who}: no training image can be poisoned for this goal; choose other classes")
    if count < 1:
        raise OutOfReach(f"{who}: poison_rate {rate:g} of {total} images is none; use at least {rate_for(1, total)}")
    if count > candidates:
        raise OutOfReach(
            f"{who}: poison_rate {rate:g} asks for {count} images but only {candidates} of {total} can be poisoned; "
            f"use at most {rate_for(candidates, total)}"
        )
    return count


def minority_note(who: str, goal: Goal, rate: float, candidates: Tensor, info: DatasetInfo) -> Sequence[str]:
    """One line where a class that the poison is labelled as has fewer images of its own than poisoned ones; `candidates` float [classes]
    counts the images that may be poisoned."""
    poisoned = candidates * (poison_count(rate, int(candidates.sum()), info.train_size, who) / candidates.sum())
    own = torch.tensor(info.train_counts) - poisoned
    arriving = torch.zeros(info.num_classes).index_add_(0, goal.labels(torch.arange(info.num_classes)), poisoned)
    rarer = torch.nonzero(arriving > own).flatten().tolist()
    if not rarer:
        return ()
    first = max(rarer, key=lambda label: float(arriving[label] - own[label]))
    others = f" and {len(rarer) - 1} more" if len(rarer) > 1 else ""
    return (
        f"{who} (poison_rate {rate:g}): target class {info.classes[first]!r} ({first}){others} has about "
        f"{round(float(own[first])):,} images of its own and {round(float(arriving[first])):,} poisoned ones; defenses that look for a "
        "minority in a class then find the wrong part. Take a larger class or a lower rate.",
    )


def rate_for(count: int, total: int) -> str:
    """The shortest decimal that, as a poison rate, gives exactly `count` of `total` images."""
    decimals = (f"{count / total:.{digits}g}" for digits in range(1, 18))
    return next(text for text in decimals if round(float(text) * total) == count)


def defender_sample(backdoor: Backdoor, train: ImageSet, ctx: AttackContext, rate: float, cover_rate: float = 0.0) -> Poisoned:
    """What a defender would hold of an attack that controls training, for `Implant.sample`.

    A share `rate` of all rows, drawn from those that the goal applies to, gets the backdoor's trigger and the label that the attacker
    wants; a share `cover_rate`, drawn from the rows that are left, gets its `cover` and keeps its label. Each is one row at least, or as
    many as there are. Raises ContractError for a backdoor without a trigger, and for a `cover_rate` without a cover.
    """
    if backdoor.trigger is None or (cover_rate and backdoor.cover is None):
        raise ContractError(f"backdoor {backdoor.name!r} has no {'trigger' if backdoor.trigger is None else 'cover'} to make a sample with")
    order = torch.randperm(len(train), generator=ctx.stream("sample")).to(train.device)
    attacked = order[backdoor.goal.eligible(train.labels[order])][: max(1, round(rate * len(train)))].sort().values
    wanted = backdoor.goal.labels(train.labels[attacked])
    sample = Poisoned.untouched(train).also(attacked, apply_trigger(backdoor.trigger, train.images[attacked], ctx), wanted)
    if backdoor.cover is not None and cover_rate:
        covers = order[~torch.isin(order, attacked)][: max(1, round(cover_rate * len(train)))].sort().values
        sample = sample.also(covers, apply_trigger(backdoor.cover, train.images[covers], ctx), train.labels[covers], Role.COVER)
    return sample


def apply_trigger(trigger: Trigger, images: Tensor, ctx: AttackContext) -> Tensor:
    """uint8 [n, C, H, W] on the context's device: the images (n may be 0) under the trigger, in memory-sized batches."""
    placed = trigger.to(ctx.device)
    return torch.cat([images[:0].to(ctx.device), *(placed(batch) for batch in ctx.batches(images))])
