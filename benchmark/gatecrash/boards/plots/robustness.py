"""ACC and ASR under each transformation of the images, a mark for each attack."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gatecrash.boards.panel import Panel
from gatecrash.boards.plots.style import LEGEND, drawing, head, legend, legend_size, look, wrapped
from gatecrash.boards.statistics import over_seeds
from gatecrash.boards.tables.robustness import PLAIN, Value, acc_under, asr_under, measured_under, transformations
from gatecrash.errors import UserError, did_you_mean
from gatecrash.evaluation.metrics import ROBUST
from gatecrash.records.measures import MEASURES
from gatecrash.records.plan import NONE
from gatecrash.records.result import Result

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SPREAD = 0.5
"""Of a line's height, how much the marks of several attacks take."""
LINE, MARK = 0.42, 0.09
"""Inches that a line takes, and more where it has so many marks."""


def robustness(panel: Panel, defense: str = NONE) -> Figure:
    """Means over seeds, with 95% intervals, of the victims under one defense (`none`: as they are).

    Raises UserError for an unknown defense, and where nothing was measured under transformations.
    """
    if defense not in panel.defenses:
        raise UserError(f"no results of the defense {defense!r}; {did_you_mean(defense, panel.defenses)}")
    cells = {attack: found for attack in panel.attacks if (found := measured_under(panel, attack, defense))}
    if not cells:
        raise UserError("no cell was measured under transformations; run the grid with -o evaluation.robustness=true")
    names = [PLAIN, *transformations([cell for found in cells.values() for cell in found])]
    with drawing() as figure_class:
        labels = [wrapped(attack, LEGEND) for attack in cells]
        width, height = legend_size(labels)
        figure = figure_class(
            figsize=(8.2 + width, max(1.2 + max(LINE, MARK * len(cells)) * len(names), 1.2 + height)), layout="constrained"
        )
        axes = figure.subplots(1, 2, sharey=True)
        for axis, measure, under in zip(axes, ("acc", "asr"), (acc_under, asr_under), strict=True):
            for index, found in enumerate(cells.values()):
                place = SPREAD * ((index + 0.5) / len(cells) - 0.5)
                _marks(axis, [(row + place, found, under(name)) for row, name in enumerate(names)], labels[index], index)
            declared = MEASURES[measure]
            axis.set_xlabel(f"{declared.title}, % ({declared.direction})")
            axis.set_xlim(-4, 104)
            axis.grid(alpha=0.3, axis="x")
            for row in range(1, len(names), 2):
                axis.axhspan(row - 0.5, row + 0.5, color="0.95", zorder=0)
        axes[0].set_yticks(range(len(names)), names)
        axes[0].set_ylim(len(names) - 0.5, -0.5)
        axes[1].axvline(100 * ROBUST, color="0.4", linestyle="--", linewidth=1)
        legend(axes[1], *axes[0].get_legend_handles_labels())
        intervals = "Means and 95% intervals over seeds. " if len(panel.seeds) > 1 else ""
        whose = "Victims without a defense" if defense == NONE else f"After {defense}"
        head(figure, panel, f"{whose}. {intervals}Dashed: the bar for a robust trigger, an ASR of {100 * ROBUST:.0f}%.")
    return figure


def _marks(axis: Any, rows: list[tuple[float, list[Result], Value]], label: str, index: int) -> None:
    """One attack's marks: its place on the axis, its cells and the rate of each row."""
    means = [(place, over_seeds(cells, value)) for place, cells, value in rows]
    drawn = [(place, mean.value, mean.low, mean.high) for place, mean in means if mean.value is not None]
    bars = [
        [100 * (value - (value if low is None else low)) for _, value, low, _ in drawn],
        [100 * ((value if high is None else high) - value) for _, value, _, high in drawn],
    ]
    limits = bars if any(map(any, bars)) else None
    xs, ys = [100 * value for _, value, _, _ in drawn], [place for place, *_ in drawn]
    axis.errorbar(xs, ys, xerr=limits, label=label, linestyle="none", markersize=5, capsize=2, elinewidth=1, **look(index))
