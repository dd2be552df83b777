"""A victim as it lies in the store."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from gatecrash.records.record import Record
from gatecrash.records.sealed import sealed, unsealed
from gatecrash.records.stage import Stage

if TYPE_CHECKING:
    from torch import Tensor


SCHEMA = 2
"""Of `record.json`. Records of schema 1 have no digest."""


class GoalRecord(Record):
    """The arguments of a `gatecrash.Goal`."""

    kind: str
    num_classes: int
    target: int | None = None
    source: int | None = None


class BackdoorRecord(Record):
    """A planted backdoor; `trigger` is the spec of a Portable."""

    name: str
    goal: GoalRecord
    trigger: dict[str, Any]


class TrainingRecord(Record):
    """One call of the training engine; see `gatecrash.engine.training.History`."""

    losses: list[float]
    seconds: float
    images: int
    precision: str
    device: str
    warning: str | None = None


class VictimRecord(Record):
    """`record.json` of a victim: what it is, beside its tensors. `classifier` is the spec of a Portable.

    `attack`, `dataset` and `seed` say what it was made from; older records have none of them.
    """

    attack: Stage | None = None
    dataset: Stage | None = None
    seed: int | None = None
    classifier: dict[str, Any]
    backdoors: list[BackdoorRecord]
    poison_share: float
    train_size: int
    weights: str
    """sha256 of all tensors."""
    history: list[TrainingRecord] = []
    seconds: float
    peak_memory_mb: float
    device: str
    precision: str | None = None
    """What `precision: auto` of its recipe meant; None in older records."""
    hands_out_data: bool = True
    """Whether there is a training set that a defender can hold; without one, `poison` is what the attack says of its own training."""
    threads: int = 1
    schema_version: int = SCHEMA
    files: dict[str, str] = {}
    """sha256 of each file of tensors; set when the record is written."""

    @property
    def warnings(self) -> list[str]:
        """What its trainings said that the victim should be read with."""
        return [training.warning for training in self.history if training.warning]

    def to_text(self) -> str:
        """The stored form, with a digest."""
        return sealed(self.model_dump(mode="json"))

    @classmethod
    def from_text(cls, text: str | bytes) -> Self:
        """Read the stored form. Raises ValueError for anything damaged or edited, UserError for what a newer Gatecrash wrote."""
        return cls.model_validate(unsealed(text, SCHEMA, unsealed_until=1))


@dataclass(frozen=True)
class StoredVictim:
    """A victim as it lies in the store: JSON record and tensors.

    `weights` holds the classifier's and the triggers' tensors; `poison` the changed rows (`rows`, `images`, `labels`, `role`) of what a
    defender holds.
    """

    record: VictimRecord
    weights: dict[str, Tensor]
    poison: dict[str, Tensor]
