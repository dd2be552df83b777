"""Histograms of a defense's neuron masks, and which neurons it pruned."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from gatecrash.boards.panel import Panel
from gatecrash.boards.plots.select import chosen_cells
from gatecrash.boards.plots.style import COLOURS, drawing, head, wrapped
from gatecrash.records.result import Result

if TYPE_CHECKING:
    from matplotlib.figure import Figure


TABLE = "neurons"


BINS = np.linspace(0, 1, 41)


COLUMNS = 3


TITLE = 32
"""Characters in a line above a histogram."""


KEPT, PRUNED = COLOURS[0], COLOURS[1]


def masks(panel: Panel, defense: str | None = None, attack: str | None = None) -> Figure:
    """A histogram for each victim (its lowest seed that has the table `neurons`, with a `mask` in [0, 1] and whether it was `pruned`).

    Counts are on a logarithmic scale, since most masks stay near 1. `defense` and `attack` are labels; by default
    the first defense that kept masks, on all victims. Raises UserError with what there is.
    """
    cells = chosen_cells(panel, has_masks, "masks of neurons", defense, attack)
    columns = min(COLUMNS, len(cells))
    rows = math.ceil(len(cells) / columns)
    extra = max(wrapped(panel.attack_of[cell.key], TITLE).count("\n") for cell in cells)
    most = max(int(np.histogram([value for value, _ in _values(cell)], BINS)[0].max()) for cell in cells)
    with drawing() as figure_class:
        from matplotlib.layout_engine import ConstrainedLayoutEngine

        figure = figure_class(
            figsize=(max(5.6, 1 + 3.3 * columns), 1.6 + (2.5 + 0.15 * extra) * rows), layout=ConstrainedLayoutEngine(w_pad=0.12)
        )
        axes = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True).flatten()
        for axis, cell in zip(axes, cells, strict=False):
            _draw(axis, panel, cell)
            axis.set_yscale("log")
            axis.set_ylim(0.7, 2 * most)
            axis.yaxis.set_major_formatter("{x:,.0f}")  # the default writes formulas
            axis.yaxis.set_minor_formatter("")
            axis.set_xlabel("mask of a neuron")
            axis.tick_params(labelbottom=True)
        for axis in axes[len(cells) :]:
            axis.set_visible(False)
        figure.supylabel("neurons", fontsize=10)
        head(figure, panel, ", ".join(dict.fromkeys(panel.defense_of[cell.key] for cell in cells)))
        labels: dict[str, Any] = {}
        for axis in axes[: len(cells)]:
            labels |= dict(zip(*reversed(axis.get_legend_handles_labels()), strict=True))
        figure.legend(labels.values(), labels.keys(), loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    return figure


def has_masks(cell: Result) -> bool:
    return bool(_values(cell))


def _values(cell: Result) -> list[tuple[float, bool]]:
    rows = [(row.get("mask"), row.get("pruned")) for row in cell.tables.get(TABLE, [])]
    return [(float(value), bool(pruned)) for value, pruned in rows if isinstance(value, int | float) and pruned is not None]


def threshold(cell: Result) -> float | None:
    """The largest threshold of the trajectory at which as many neurons are pruned; None for a defense that prunes by number."""
    count = sum(pruned for _, pruned in _values(cell))
    steps = [step.params for step in cell.trajectory]
    tried = [step["threshold"] for step in steps if step.get("pruned") == count and isinstance(step.get("threshold"), int | float)]
    return float(max(tried)) if tried else None


def _draw(axis: Any, panel: Panel, cell: Result) -> None:
    values = _values(cell)
    pruned, kept = ([value for value, one in values if one is wanted] for wanted in (True, False))
    axis.hist(
        [pruned, kept],
        BINS.tolist(),
        stacked=True,
        color=[PRUNED, KEPT],
        label=["pruned", "kept"],
        edgecolor="white",
        linewidth=0.4,
        hatch=["////", ""],
    )
    cut = threshold(cell)
    if cut is not None:
        axis.axvline(cut, color="black", linestyle="--", linewidth=1.2, label="threshold")
    axis.set_title(f"{wrapped(panel.attack_of[cell.key], TITLE)}\nseed {cell.seed}: {len(pruned)} of {len(values)} pruned", fontsize=9)
    axis.set_xlim(-0.02, 1.02)
    axis.grid(axis="y", alpha=0.3)
