"""What an attacker plants: a trigger, and a goal that says which labels triggered images are to get."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from gatecrash.contracts.trigger import Trigger

GoalKind = Literal["all-to-one", "all-to-all", "one-to-one"]
"""How labels are mapped, see `Goal`."""


@dataclass(frozen=True)
class Goal:
    """Which label a triggered image is to get.

    all-to-one: every image is to become `target`. one-to-one: images of `source` become `target`. all-to-all: y becomes (y + 1) mod K
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
