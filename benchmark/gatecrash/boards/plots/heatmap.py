"""Attacks x defenses, one field of colours for each measure; in all of them one colour is good for the defense."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from gatecrash.boards.panel import Panel
from gatecrash.boards.plots.style import differing, drawing, head, wrapped
from gatecrash.boards.statistics import over_seeds
from gatecrash.boards.tables.matrix import MANY
from gatecrash.errors import UserError
from gatecrash.records.measures import MEASURES
from gatecrash.records.plan import NONE

if TYPE_CHECKING:
    from matplotlib.figure import Figure


MapMeasure = Literal["asr", "acc", "der"]


NAME = 32
"""Characters in a line of a name beside or below a map."""


VARIANT = 72
"""The same where defenses are rows: the names of a sweep are long."""


LINE = 0.17
"""Inches."""


TITLE = 4.9
"""Inches that the title of a map takes."""


GOOD_IS_LIGHT = "cividis"
"""From dark (bad for the defense) to light; also for people with colour-blindness."""


NOT_LANDED = "Hatched: the attack did not land."


@dataclass(frozen=True)
class Map:
    """The means of one measure over seeds, by row and column."""

    measure: MapMeasure
    rows: Sequence[str]
    columns: Sequence[str]
    values: NDArray[np.float64]
    """Percent, float64 [rows, columns]; NaN where there is no score."""
    reasons: dict[tuple[int, int], str]
    """Why there is no score, by row and column."""
    not_landed: frozenset[tuple[int, int]]
    """Scores against attacks that did not land, by row and column."""

    @property
    def goodness(self) -> NDArray[np.float64]:
        """The values turned such that 100 is best for the defense."""
        return 100 - self.values if MEASURES[self.measure].better == "low" else self.values

    def transposed(self) -> Map:
        reasons = {(column, row): why for (row, column), why in self.reasons.items()}
        turned = frozenset((column, row) for row, column in self.not_landed)
        return Map(self.measure, self.columns, self.rows, self.values.T, reasons, turned)


def heatmap(panel: Panel, measures: Sequence[MapMeasure] = ("asr", "acc", "der")) -> Figure:
    """Means over seeds; what has no score says why. Raises UserError where nothing has a score."""
    measured = [measure for measure in measures if any(cell.measures.value(measure) is not None for cell in panel.cells)]
    if not measured:
        raise UserError("no cell has any of these measures; run attacks and defenses first")
    maps = [_map(panel, measure) for measure in measured]
    with drawing() as figure_class:
        if len(panel.defenses) > MANY:
            figure, axes = _side_by_side(figure_class, [each.transposed() for each in maps])
        else:
            figure, axes = _stacked(figure_class, maps)
        bar = figure.colorbar(axes[-1].images[0], ax=axes, shrink=0.6, aspect=30, pad=0.02)
        bar.set_ticks([0, 100], labels=["bad for\nthe defense", "good"])
        bar.ax.tick_params(length=0)
        bar.outline.set_visible(False)
        head(figure, panel, NOT_LANDED if any(each.not_landed for each in maps) else "")
    return figure


def _map(panel: Panel, measure: MapMeasure) -> Map:
    """A row for each attack; the benign one, against which no attack can succeed, only for ACC."""
    attacks = [attack for attack in panel.attacks if measure == "acc" or attack != NONE]
    values = np.full((len(attacks), len(panel.defenses)), np.nan)
    reasons, not_landed = {}, set()
    for row, attack in enumerate(attacks):
        for column, defense in enumerate(panel.defenses):
            if measure == "der" and defense == NONE:
                continue  # effectiveness is measured against it
            cells = panel.at(attack, defense)
            done = [cell for cell in cells if cell.status == "ok"]
            mean = over_seeds(done, measure).value
            if mean is not None:
                values[row, column] = 100 * mean
                if measure != "acc" and not any(cell.victim_key in panel.landed for cell in done):
                    not_landed.add((row, column))
            else:
                why = next((str(cell.status) for cell in cells if cell.status != "ok"), "" if cells else "missing")
                reasons[row, column] = {"not-applicable": "n/a", "victim-failed": "failed"}.get(why, why)
    names = attacks if measure == "acc" else [_with_landed(panel, attack) for attack in attacks]
    return Map(measure, names, panel.defenses, values, reasons, frozenset(not_landed))


def _with_landed(panel: Panel, attack: str) -> str:
    """The attack, and on how many of its victims it landed where these are some of them."""
    victims = {cell.victim_key for cell in panel.at(attack) if cell.status == "ok"}
    landed = len(victims & panel.landed)
    return f"{attack} ({landed} of {len(victims)} landed)" if 0 < landed < len(victims) else attack


def _stacked(figure_class: type[Figure], maps: Sequence[Map]) -> tuple[Figure, list[Any]]:
    """Maps below each other; the columns are named once, below the last."""
    sizes = [max(0.42, LINE * _lines(each.rows, NAME)) * (len(each.rows) + 0.9) for each in maps]
    beside = 0.085 * min(NAME, max(len(name) for each in maps for name in each.rows))
    width = max(TITLE, 0.78 * len(maps[0].columns))
    figure = figure_class(figsize=(1.9 + beside + width, 2.0 + sum(sizes)), layout="constrained")
    axes = list(figure.subplots(len(maps), 1, height_ratios=sizes, squeeze=False)[:, 0])
    columns, shared = differing(maps[0].columns)
    for axis, each in zip(axes, maps, strict=True):
        _draw(axis, each)
        _label(axis, columns if axis is axes[-1] else [], each.rows, NAME)
        axis.set_title("{} ({})".format(*_title(each.measure, first=each is maps[0])), fontsize=10, loc="left")
    axes[-1].set_xlabel(wrapped(shared, NAME))
    return figure, axes


def _side_by_side(figure_class: type[Figure], maps: Sequence[Map]) -> tuple[Figure, list[Any]]:
    """Maps beside each other; the rows are named once, left of the first."""
    rows, shared = differing(maps[0].rows)
    sizes = [max(len(each.columns) + 0.9, 3.4) for each in maps]  # a title needs 3.4
    width = 2.4 + 0.075 * min(VARIANT, max(map(len, rows))) + 0.78 * sum(sizes)
    height = 2.6 + max(0.3, LINE * _lines(rows, VARIANT)) * len(rows)
    figure = figure_class(figsize=(width, height), layout="constrained")
    axes = list(figure.subplots(1, len(maps), width_ratios=sizes, squeeze=False)[0])
    for axis, each in zip(axes, maps, strict=True):
        _draw(axis, each)
        _label(axis, each.columns, rows if axis is axes[0] else [], VARIANT)
        axis.set_title("{}\n({})".format(*_title(each.measure, first=each is maps[0])), fontsize=10, loc="left")
    axes[0].set_ylabel(wrapped(shared, VARIANT))
    return figure, axes


def _title(measure: MapMeasure, *, first: bool) -> tuple[str, str]:
    """The measure, and which direction is good; the first map says for whom."""
    declared = MEASURES[measure]
    return f"{declared.title[0].upper()}{declared.title[1:]}, %", f"{declared.direction}{' for the defense' if first else ''}"


def _draw(axis: Any, each: Map) -> None:
    """Colours, and in each field its number or why there is none."""
    from matplotlib import colormaps
    from matplotlib.patches import Rectangle

    colours, goodness = colormaps[GOOD_IS_LIGHT], each.goodness
    axis.imshow(goodness, cmap=colours, vmin=0, vmax=100, aspect="auto")
    for (row, column), value in np.ndenumerate(each.values):
        if not np.isnan(value):
            text = axis.text(column, row, f"{value:.1f}", ha="center", va="center", color=_ink(float(goodness[row, column])))
            if (row, column) in each.not_landed:
                text.set_bbox({"facecolor": colours(goodness[row, column] / 100), "edgecolor": "none", "pad": 1.5})
    for row, column in each.not_landed:
        ink = _ink(float(goodness[row, column]))
        axis.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, fill=False, edgecolor=ink, hatch="////", linewidth=0, alpha=0.6))
    for (row, column), why in each.reasons.items():
        axis.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, facecolor="#eeeeee", linewidth=0))
        axis.text(column, row, why, ha="center", va="center", fontsize=8, color="#444444")
    axis.vlines(np.arange(0.5, len(each.columns) - 1), -0.5, len(each.rows) - 0.5, color="white", linewidth=1)
    axis.hlines(np.arange(0.5, len(each.rows) - 1), -0.5, len(each.columns) - 0.5, color="white", linewidth=1)
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)


def _ink(goodness: float) -> str:
    """A colour with a contrast of at least 4.5 on the field's own."""
    return "black" if goodness > 46 else "white"


def _label(axis: Any, columns: Sequence[str], rows: Sequence[str], width: int) -> None:
    names = [wrapped(name, NAME) for name in columns]
    axis.set_xticks(range(len(columns)), names, rotation=40, ha="right", rotation_mode="anchor")
    axis.set_yticks(range(len(rows)), [wrapped(name, width) for name in rows])


def _lines(names: Sequence[str], width: int) -> int:
    return max(wrapped(name, width).count("\n") + 1 for name in names)
