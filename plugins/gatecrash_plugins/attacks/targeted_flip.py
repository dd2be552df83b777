"""Targeted label flips: no trigger; images of one class are labelled as another."""

from __future__ import annotations

from collections.abc import Callable
from typing import Self

import torch
from pydantic import Field, model_validator

from gatecrash import (
    Attack,
    AttackContext,
    Backdoor,
    ClassLabel,
    DatasetInfo,
    Goal,
    GoalConfig,
    ImageSet,
    Options,
    Poisoned,
    Reference,
    UserError,
    hookimpl,
)


class TargetedFlip(Attack):
    """A share of the source class gets the target's label; images stay as they are.

    Tolpegin et al. 2020 with all training data in one place: there a share of the participants relabels all its images of the source.
    Untouched test images of the source are to be taken for the target, other classes to stay. Half of the class, and the classes, are our
    choice. Rows are a prefix of one permutation per seed:
    a higher rate flips a superset. Validated by hand-worked counts.
    """

    name = "targeted-flip"
    summary = "a share of one class labelled as another, images untouched"
    reference = Reference(
        "Tolpegin, Truex, Gursoy and Liu, Data Poisoning Attacks Against Federated Learning Systems",
        2020,
        "https://arxiv.org/abs/2007.08432",
    )
    aim = "targeted"

    class Config(Options):
        """The two classes, and how many images are relabelled."""

        source: ClassLabel = Field(1, description="class whose images are relabelled, by number or name")
        target: ClassLabel = Field(0, description="class that they are labelled as, by number or name")
        flip_rate: float = Field(0.5, gt=0, le=1, description="share of the source class's training images that get the target's label")

        @model_validator(mode="after")
        def _two_classes(self) -> Self:
            if self.source == self.target:
                raise ValueError("source and target are the same class")
            return self

    config: Config

    def goal(self, num_classes: int) -> Goal:
        """Source to target; UserError where one of them is no class of the dataset."""
        source, target = (GoalConfig.class_number(role, getattr(self.config, role), num_classes) for role in ("source", "target"))
        return Goal.one_to_one(num_classes, source, target)

    def check(self, info: DatasetInfo) -> None:
        (source,) = self.goal(info.num_classes).sources
        self._count(info.train_counts[source])

    def poison(self, train: ImageSet, ctx: AttackContext) -> Poisoned:
        goal = self.goal(train.num_classes)
        rows = torch.nonzero(goal.eligible(train.labels.cpu())).flatten()
        order = torch.randperm(len(rows), generator=ctx.stream("rows"))
        chosen = rows[order[: self._count(len(rows))]].sort().values.to(train.device)
        return Poisoned.replacing(train, chosen, train.images[chosen], goal.labels(train.labels[chosen]), [Backdoor(self.name, goal)])

    def _count(self, images: int) -> int:
        """How many of the source's images are relabelled."""
        count = round(self.config.flip_rate * images)
        if not count:
            raise UserError(
                f"{self.name}: flip_rate {self.config.flip_rate:g} of the source's {images} images is none; choose a higher one"
            )
        return count


@hookimpl
def register_attacks(register: Callable[[type[Attack]], None]) -> None:
    register(TargetedFlip)
