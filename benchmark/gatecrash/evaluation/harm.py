"""Harm to untouched images: what attacks without a trigger do, counted against the benign victim on the same test images."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Self

from gatecrash.evaluation.intervals import paired_interval
from gatecrash.evaluation.metrics import share

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class HarmCounts:
    """Test images that are harmed (misclassified, or sent from a source to its target), by the victim or by the benign victim alone.

    Images that both of them harm, or neither, say nothing of the attack.
    """

    images: int
    by_victim: int
    by_benign: int

    @classmethod
    def of(cls, harmed: Iterable[tuple[Tensor, Tensor]]) -> Self:
        """The sums over pairs of bool [n]: harmed by the victim, and by the benign victim."""
        counts = [(len(mine), int((mine & ~other).sum()), int((other & ~mine).sum())) for mine, other in harmed]
        return cls(*(sum(column) for column in zip(*counts, strict=True)))

    @property
    def rate(self) -> float | None:
        """The share of images that the victim harms, minus that which the benign victim harms."""
        return share(self.by_victim - self.by_benign, self.images)

    @property
    def interval(self) -> tuple[float, float] | None:
        return paired_interval(self.by_victim, self.by_benign, self.images)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)
