"""Which backdoors survive what happens to an image on its way, and what defenses leave of that."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from gatecrash.boards.content import Field, Table
from gatecrash.boards.fields import rate, share, text
from gatecrash.boards.panel import Panel
from gatecrash.boards.statistics import over_seeds
from gatecrash.boards.tables.matrix import MANY
from gatecrash.evaluation.intervals import Interval
from gatecrash.evaluation.metrics import ROBUST
from gatecrash.evaluation.options import TRANSFORMED
from gatecrash.evaluation.scores import Scores
from gatecrash.records.plan import NONE
from gatecrash.records.result import Result

Value = Callable[[Result], float | None]
PLAIN = "unchanged"
"""Names the images as they are, beside the transformations."""
BAR = f"ASR above {100 * ROBUST:.0f}%"


def measured_under(panel: Panel, attack: str | None = None, defense: str | None = None) -> list[Result]:
    """Finished cells that were measured under transformations too."""
    return [cell for cell in panel.at(attack, defense) if cell.status == "ok" and cell.measures.robustness]


def transformations(cells: Sequence[Result]) -> list[str]:
    """Those under which the cells were measured, in the order of the evaluation."""
    found = dict.fromkeys(name for cell in cells for name in cell.measures.robustness or {})
    return [name for name in TRANSFORMED if name in found] + [name for name in found if name not in TRANSFORMED]


def under(cell: Result, name: str) -> Scores | None:
    """The cell's counts under that transformation, or those of the unchanged images."""
    return cell.measures.scores if name == PLAIN else (cell.measures.robustness or {}).get(name)


def asr_under(name: str) -> Value:
    return lambda cell: None if (scores := under(cell, name)) is None else scores.asr


def acc_under(name: str) -> Value:
    return lambda cell: None if (scores := under(cell, name)) is None else scores.acc


def asr_floor_under(name: str) -> Value:
    """That of the same trigger on the benign victim; known of cells without a defense."""

    def value(cell: Result) -> float | None:
        scores = cell.measures.floor_scores if name == PLAIN else (cell.measures.robustness_floor or {}).get(name)
        return None if scores is None else scores.asr

    return value


def robustness_table(panel: Panel) -> Table:
    """ACC / ASR of the victims without a defense under each transformation, and to how many of them the backdoor is robust."""
    cells = {attack: found for attack in panel.attacks if (found := measured_under(panel, attack, NONE))}
    names = transformations([cell for found in cells.values() for cell in found])

    def field(name: str, attack: str) -> Field:
        if name == BAR:
            return _robust_to(cells[attack], names)
        return _means(cells[attack], acc_under(name), *([asr_under(name)] if attack != NONE else []))

    return _table("transformation", [PLAIN, *names, BAR], "attack", list(cells), field)


def floor_table(panel: Panel) -> Table:
    """ASR of the same triggers on the benign victim, under each transformation."""
    cells = {attack: found for attack in panel.attacks if attack != NONE and (found := measured_under(panel, attack, NONE))}
    names = transformations([cell for found in cells.values() for cell in found])
    return _table("transformation", [PLAIN, *names], "attack", list(cells), lambda name, row: _means(cells[row], asr_floor_under(name)))


def worst_table(panel: Panel) -> Table:
    """The highest ASR over the unchanged images and all transformations, of every attack under every defense."""
    attacks = [attack for attack in panel.attacks if attack != NONE and measured_under(panel, attack)]
    defenses = [defense for defense in panel.defenses if measured_under(panel, defense=defense)]
    return _table("attack", attacks, "defense", defenses, lambda row, column: _worst(measured_under(panel, row, column)))


def _table(what: str, rows: Sequence[str], of: str, columns: Sequence[str], field: Callable[[str, str], Field]) -> Table:
    """A field for each row and column; turned where there are too many columns."""
    if len(columns) <= MANY:
        first = f"{what} \\ {of}"
        return Table((first, *columns), tuple((text(row), *(field(row, column) for column in columns)) for row in rows), row_names=(first,))
    first = f"{of} \\ {what}"
    return Table((first, *rows), tuple((text(column), *(field(row, column) for row in rows)) for column in columns), row_names=(first,))


def _means(cells: Sequence[Result], *values: Value) -> Field:
    """Means over seeds, joined by /. Without limits: there are many of them."""
    parts = [rate(Interval(over_seeds(cells, value).value, None, None)) for value in values]
    known = [part for part in parts if part.numbers]
    return Field(" / ".join(part.text for part in known), "rate", tuple(number for part in known for number in part.numbers))


def _worst(cells: Sequence[Result]) -> Field:
    """`98.1 (rotation)`: the highest of the means over seeds, and under what it is reached."""
    names = [PLAIN, *transformations(cells)]
    means = {name: value for name in names if (value := over_seeds(cells, asr_under(name)).value) is not None}
    if not means:
        return Field(kind="rate")
    highest = max(means, key=lambda name: means[name])
    return replace(_means(cells, asr_under(highest)), note=highest)


def _robust_to(cells: Sequence[Result], names: Sequence[str]) -> Field:
    means = [over_seeds(cells, asr_under(name)).value for name in names]
    known = [mean for mean in means if mean is not None]
    return share(sum(mean > ROBUST for mean in known), len(known)) if known else Field(kind="count")
