"""The cells of one board, arranged by attack and defense; `none` comes first in both."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from gatecrash.boards.superseded import newest, written
from gatecrash.evaluation.metrics import landed
from gatecrash.records.labels import Stages, labels, options_of
from gatecrash.records.plan import NONE
from gatecrash.records.result import Result
from gatecrash.records.stage import Stage


class PlannedCell(Protocol):
    """A cell that was asked for, whether or not it has a result."""

    @property
    def attack(self) -> Stage: ...
    @property
    def defense(self) -> Sequence[Stage]: ...
    @property
    def seed(self) -> int: ...


@dataclass(frozen=True)
class Panel:
    """Results of one dataset, model, recipe and hold-out. Labels are unique: one for each attack, and defense, with its options."""

    cells: tuple[Result, ...]
    attack_of: Mapping[str, str]
    """Attack label by cell key."""
    defense_of: Mapping[str, str]
    """Defense label by cell key."""
    attacks: tuple[str, ...]
    defenses: tuple[str, ...]
    seeds: tuple[int, ...]
    landed: frozenset[str]
    """Keys of the victims whose backdoor landed: asr - asr_floor >= 0.5."""
    superseded: Mapping[str, str] = field(default_factory=dict)
    """By key, what results that are left out were measured with: older versions of what the others were measured with."""

    def at(self, attack: str | None = None, defense: str | None = None) -> list[Result]:
        """Cells of this attack and defense, by seed; None means any."""
        return [
            cell
            for cell in self.cells
            if (attack is None or self.attack_of[cell.key] == attack) and (defense is None or self.defense_of[cell.key] == defense)
        ]

    def hit(self, defense: str) -> list[Result]:
        """Finished cells of this defense on victims whose backdoor landed: what defenses are judged by."""
        return [cell for cell in self.at(defense=defense) if cell.status == "ok" and cell.victim_key in self.landed]

    def gives(self, defense: str) -> set[str] | None:
        """What the defense hands back, where the results say so."""
        for cell in self.at(defense=defense):
            if cell.gives is not None:
                return set(cell.gives)
        return None

    def repairs(self, defense: str) -> bool:
        """Whether the defense changes what a deployed classifier answers; one that only judges rows or models leaves ACC and ASR alone."""
        gives = self.gives(defense)
        if gives is not None:
            return bool(gives & {"classifier", "reject", "detector"})
        return defense != NONE

    def missing(self) -> list[tuple[str, str, int]]:
        """(attack, defense, seed) of cells that have no result at all."""
        present = {(self.attack_of[cell.key], self.defense_of[cell.key], cell.seed) for cell in self.cells}
        return [position for position in itertools.product(self.attacks, self.defenses, self.seeds) if position not in present]


def arrange(results: Iterable[Result], planned: Iterable[PlannedCell] = (), run_of: Mapping[str, int] | None = None) -> Panel:
    """The results by attack and defense, without those that newer ones supersede; see `gatecrash.boards.superseded.newest`.

    `planned` cells have their row and column even where no result is there yet. `run_of` numbers the last run of a cell, by key.
    """
    kept, older = newest(results, run_of)
    cells = sorted(kept, key=lambda cell: (cell.attack.name != NONE, cell.defense_name != NONE))
    planned = list(planned)
    attacks = _as_newest([(each.attack,) for each in planned], [(cell.attack,) for cell in cells])
    defenses = _as_newest([tuple(each.defense) for each in planned], [tuple(cell.defense) for cell in cells])
    attack_labels, defense_labels = labels(attacks), labels(defenses)
    return Panel(
        tuple(sorted(cells, key=lambda cell: cell.seed)),
        dict(zip((cell.key for cell in cells), attack_labels, strict=False)),
        dict(zip((cell.key for cell in cells), defense_labels, strict=False)),
        _in_order(attack_labels, attacks),
        _in_order(defense_labels, defenses),
        tuple(sorted({each.seed for each in (*cells, *planned)})),
        frozenset(cell.victim_key for cell in cells if landed(cell.measures.asr_before, cell.measures.asr_floor)),
        older,
    )


def _as_newest(planned: Sequence[Stages], measured: Sequence[Stages]) -> list[Stages]:
    """The measured ones, then the planned ones: of those written alike, files may have changed between runs: the last counts."""
    last = {written(stages): stages for stages in (*planned, *measured)}
    return [*measured, *(last[written(stages)] for stages in planned)]


def _in_order(texts: Sequence[str], plugins: Sequence[Stages]) -> tuple[str, ...]:
    """Each label once: `none` first, other names as they come, those of one name by their options."""
    names = [tuple(stage.name for stage in stages) for stages in plugins]
    first = {name: index for index, name in reversed(list(enumerate(names)))}

    def order(index: int) -> tuple[Any, ...]:
        return names[index] != (NONE,), first[names[index]], _sortable(options_of(plugins[index]))

    return tuple(dict.fromkeys(texts[index] for index in sorted(range(len(texts)), key=order)))


def _sortable(options: Mapping[str, Any]) -> list[tuple[str, bool, float, str]]:
    """By option, numbers before all else and by size."""
    return [
        (name, not isinstance(value, int | float), value if isinstance(value, int | float) else 0.0, str(value))
        for name, value in sorted(options.items())
    ]
