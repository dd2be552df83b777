"""What a run computes: victims and cells by key."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from gatecrash.records.stage import Stage

NONE = "none"
"""The benign attack and the absent defense: a row and a column of every grid."""


@dataclass(frozen=True)
class Victim:
    """One training: shared by all defenses."""

    key: str
    attack: Stage
    seed: int
    benign: str | None
    """Key of the benign victim of the same seed; None for the benign victim itself."""
    needs_benign: bool
    """The attack itself uses the benign victim."""
    cost: float
    """Images through the network, for scheduling."""
    notes: tuple[str, ...] = ()
    """What a reader of this attack's numbers on this dataset should know."""
    label: str = ""
    """The attack with the options in which it differs from its namesakes in the grid."""
    out_of_reach: str = ""
    """Why there can be no such victim on this dataset, while there are some of the same attack with other options: its cells are
    `not-applicable`. Empty for all others."""
    preparation: str | None = None
    """Key of what the attack prepares, which several victims may share; None where it prepares nothing."""

    @property
    def title(self) -> str:
        return self.label or self.attack.name


@dataclass(frozen=True)
class Cell:
    """One victim under one defense (a chain counts as one)."""

    key: str
    victim: Victim
    defense: tuple[Stage, ...]
    baseline: str | None
    """Key of the victim's cell without defense, whose scores are the `before` of this one; None for that cell itself."""
    label: str = ""
    """The defense with the options in which it differs from its namesakes in the grid."""

    @property
    def defense_title(self) -> str:
        return self.label or " + ".join(stage.name for stage in self.defense)

    @property
    def title(self) -> str:
        return f"{self.victim.title} × {self.defense_title} (seed {self.victim.seed})"


@dataclass(frozen=True)
class Plan:
    """Everything a run will see to. `victims` and `cells` are by key, in the grid's order."""

    grid: str
    dataset: Stage
    fingerprint: str
    model: Stage
    recipe: dict[str, Any]
    holdout: dict[str, Any]
    victims: Mapping[str, Victim]
    cells: Mapping[str, Cell]
    evaluation: dict[str, Any] = field(default_factory=dict)
    """What the evaluation measures beyond the scores of every cell: the options that are on, each with its version."""
    selected: frozenset[str] = field(default_factory=frozenset)
    """Keys of the cells asked for; the others are here because these depend on them."""

    @property
    def notes(self) -> tuple[str, ...]:
        """Those on all victims, and why some are not made, each once."""
        every = (
            (*victim.notes, *([f"{victim.out_of_reach} (not applicable)"] if victim.out_of_reach else ()))
            for victim in self.victims.values()
        )
        return tuple(dict.fromkeys(note for notes in every for note in notes))
