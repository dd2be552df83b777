"""The cells of one board, arranged by attack and defense; `none` comes first in both."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gatecrash.boards.text import option_text
from gatecrash.evaluation.metrics import landed
from gatecrash.records.plan import NONE
from gatecrash.records.result import Result
from gatecrash.records.stage import Stage


@dataclass(frozen=True)
class Panel:
    """Results of one dataset, model, recipe and hold-out. Labels tell plugins apart by the options in which they differ."""

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
        """Whether the defense hands back a classifier; one that only detects leaves ACC and ASR as they were."""
        gives = self.gives(defense)
        if gives is not None:
            return bool(gives & {"classifier", "reject"})
        return defense != NONE

    def missing(self) -> list[tuple[str, str, int]]:
        """(attack, defense, seed) of cells that have no result at all."""
        present = {(self.attack_of[cell.key], self.defense_of[cell.key], cell.seed) for cell in self.cells}
        return [position for position in itertools.product(self.attacks, self.defenses, self.seeds) if position not in present]


def arrange(results: Iterable[Result]) -> Panel:
    """The results by attack and defense. Of several for one position in the table (say, after an upgrade) the last one counts."""
    cells = sorted(_latest(results), key=lambda cell: (cell.attack.name != NONE, cell.defense_name != NONE))
    attack_of = _labels(cells, [(cell.attack,) for cell in cells])
    defense_of = _labels(cells, [tuple(cell.defense) for cell in cells])
    return Panel(
        tuple(sorted(cells, key=lambda cell: cell.seed)),
        attack_of,
        defense_of,
        _in_order([(attack_of[cell.key], (cell.attack,)) for cell in cells]),
        _in_order([(defense_of[cell.key], tuple(cell.defense)) for cell in cells]),
        tuple(sorted({cell.seed for cell in cells})),
        frozenset(cell.victim_key for cell in cells if landed(cell.measures.asr_before, cell.measures.asr_floor)),
    )


def table_position(result: Result) -> tuple[Any, ...]:
    """A result's attack, defense (with their options) and seed; versions do not count."""
    return (
        _frozen(result.attack.name, result.attack.config),
        tuple(_frozen(stage.name, stage.config) for stage in result.defense),
        result.seed,
    )


def _latest(results: Iterable[Result]) -> list[Result]:
    last: dict[tuple[Any, ...], Result] = {}
    for result in results:
        position = table_position(result)
        if position not in last or str(result.provenance.date) >= str(last[position].provenance.date):
            last[position] = result
    return list(last.values())


def _frozen(name: str, config: Mapping[str, Any]) -> tuple[str, str]:
    return name, json.dumps(config, sort_keys=True)


def _in_order(labelled: Sequence[tuple[str, tuple[Stage, ...]]]) -> tuple[str, ...]:
    """Each label once: `none` first, other names as they come, those of one name by their options."""
    names = [[stage.name for stage in stages] for _, stages in labelled]
    first = {tuple(name): index for index, name in reversed(list(enumerate(names)))}

    def order(pair: tuple[str, tuple[Stage, ...]]) -> tuple[Any, ...]:
        _, stages = pair
        name = tuple(stage.name for stage in stages)
        return name != (NONE,), first[name], _sortable(_options(stages))

    return tuple(dict.fromkeys(label for label, _ in sorted(labelled, key=order)))


def _sortable(options: Mapping[str, Any]) -> list[tuple[str, bool, float, str]]:
    """By option, numbers before all else and by size."""
    return [
        (name, not isinstance(value, int | float), value if isinstance(value, int | float) else 0.0, str(value))
        for name, value in sorted(options.items())
    ]


def _labels(cells: Sequence[Result], plugins: Sequence[tuple[Stage, ...]]) -> dict[str, str]:
    """A label for each cell's attack or defense: its name, with the options in which it differs from its namesakes."""
    options = [_options(stages) for stages in plugins]
    names = [" + ".join(stage.name for stage in stages) for stages in plugins]
    namesakes: dict[str, list[dict[str, Any]]] = {}
    for name, option in zip(names, options, strict=True):
        namesakes.setdefault(name, []).append(option)
    varying = {
        name: sorted(
            key for key in {key for other in others for key in other} if any(other.get(key) != others[0].get(key) for other in others)
        )
        for name, others in namesakes.items()
    }
    return {
        cell.key: f"{name} ({', '.join(f'{key}={option_text(option.get(key))}' for key in varying[name])})" if varying[name] else name
        for cell, name, option in zip(cells, names, options, strict=True)
    }


def _options(stages: tuple[Stage, ...]) -> dict[str, Any]:
    if len(stages) == 1:
        return stages[0].config
    return {f"{stage.name}.{key}": value for stage in stages for key, value in stage.config.items()}
