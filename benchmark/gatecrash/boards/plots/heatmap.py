"""Attacks x defenses, one field of colours for each measure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from gatecrash.boards.panel import NONE, Panel
from gatecrash.boards.plots.style import drawing, short
from gatecrash.boards.statistics import over_seeds
from gatecrash.errors import UserError

if TYPE_CHECKING:
    from matplotlib.figure import Figure


Measure = Literal["asr", "acc", "der"]


TITLES: dict[Measure, str] = {
    "asr": "Attack success rate (low is good for the defense)",
    "acc": "Clean accuracy (high is good)",
    "der": "Defense effectiveness rating (high is good, 50 is no effect)",
}


LONG = 100
"""Characters of the name of such a row."""


MANY = 12
"""With more defenses than this each gets a row instead of a column: the names of a sweep are long, and differ at their ends."""


def heatmap(panel: Panel, measures: Sequence[Measure] = ("asr", "acc", "der")) -> Figure:
    """Means over seeds; what has no score is hatched and says why. Raises UserError where nothing has a score."""
    there = [measure for measure in measures if any(cell.measures.value(measure) is not None for cell in panel.cells)]
    if not there:
        raise UserError("no cell has any of these measures; run attacks and defenses first")
    # on the benign victim there is no attack to succeed
    fields = [(measure, [attack for attack in panel.attacks if measure == "acc" or attack != NONE]) for measure in there]
    upright = len(panel.defenses) > MANY
    sizes = [max(len(attacks) + 0.9, 3.4 if upright else 0) for _, attacks in fields]  # upright, a title needs so much
    with drawing() as figure_class:
        if upright:
            size = (2.4 + 0.075 * _longest(panel) + 0.78 * sum(sizes), 2.2 + 0.3 * len(panel.defenses))
            figure = figure_class(figsize=size, layout="constrained")
            axes = figure.subplots(1, len(fields), width_ratios=sizes, squeeze=False)[0]
        else:
            size = (max(6.6, 3.2 + 0.78 * len(panel.defenses)), 1.6 + 0.42 * sum(sizes))
            figure = figure_class(figsize=size, layout="constrained")
            axes = figure.subplots(len(fields), 1, height_ratios=sizes, squeeze=False)[:, 0]
        labelled = axes[0] if upright else axes[-1]
        for axis, (measure, attacks) in zip(axes, fields, strict=True):
            image = _draw(axis, panel, measure, attacks, upright=upright, defenses_named=axis is labelled)
        bar = figure.colorbar(image, ax=list(axes), shrink=0.6, aspect=30, pad=0.02)
        bar.set_label("%")
        bar.outline.set_visible(False)
    return figure


def _longest(panel: Panel) -> int:
    return min(LONG, max(map(len, panel.defenses)))


def _draw(axis: Any, panel: Panel, measure: Measure, attacks: list[str], *, upright: bool, defenses_named: bool) -> Any:
    from matplotlib.patches import Rectangle

    defenses = panel.defenses
    values = np.full((len(attacks), len(defenses)), np.nan)
    for line, attack in enumerate(attacks):
        for place, defense in enumerate(defenses):
            column, row = (line, place) if upright else (place, line)
            cells = panel.at(attack, defense)
            mean = over_seeds([cell for cell in cells if cell.status == "ok"], measure).value
            if measure == "der" and defense == NONE:
                continue  # effectiveness is measured against it
            if mean is not None:
                values[line, place] = 100 * mean
                # cividis runs from dark to light
                axis.text(column, row, f"{100 * mean:.0f}", ha="center", va="center", color="black" if mean > 0.5 else "white")
            else:
                why = next((cell.status for cell in cells if cell.status != "ok"), "missing" if not cells else "")
                square = Rectangle((column - 0.5, row - 0.5), 1, 1, facecolor="#eeeeee", edgecolor="#888888", hatch="////", linewidth=0)
                axis.add_patch(square)
                said = {"not-applicable": "n/a", "victim-failed": "failed"}.get(why, why)
                axis.text(
                    column, row, said, ha="center", va="center", fontsize=8, bbox={"facecolor": "white", "edgecolor": "none", "pad": 1}
                )
    image = axis.imshow(values.T if upright else values, cmap="cividis", vmin=0, vmax=100, aspect="auto")
    across, down = (attacks, defenses) if upright else (defenses, attacks)
    axis.vlines(np.arange(0.5, len(across) - 1), -0.5, len(down) - 0.5, color="white", linewidth=1)
    axis.hlines(np.arange(0.5, len(down) - 1), -0.5, len(across) - 0.5, color="white", linewidth=1)
    names_across = across if defenses_named or upright else []
    names_down = down if defenses_named or not upright else []
    axis.set_xticks(range(len(names_across)), [short(name, 32) for name in names_across], rotation=40, ha="right", rotation_mode="anchor")
    axis.set_yticks(range(len(names_down)), [short(name, LONG if upright else 32) for name in names_down])
    title, _, meaning = TITLES[measure].partition(" (")
    axis.set_title(f"{title}\n({meaning}" if upright else TITLES[measure], fontsize=10, loc="left")
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)
    return image
