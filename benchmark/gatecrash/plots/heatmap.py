"""Attacks x defenses, one field of colours for each measure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from gatecrash.boards.panel import NONE, Panel
from gatecrash.boards.statistics import over_seeds
from gatecrash.errors import UserError
from gatecrash.plots.style import drawing, short

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Measure = Literal["asr", "acc", "der"]
TITLES: dict[Measure, str] = {
    "asr": "Attack success rate (low is good for the defense)",
    "acc": "Clean accuracy (high is good)",
    "der": "Defense effectiveness rating (high is good, 50 is no effect)",
}


def heatmap(panel: Panel, measures: Sequence[Measure] = ("asr", "acc", "der")) -> Figure:
    """Means over seeds; what has no score is hatched and says why. Raises UserError where nothing has a score."""
    there = [measure for measure in measures if any(cell.measures.get(measure) is not None for cell in panel.cells)]
    if not there:
        raise UserError("no cell has any of these measures; run attacks and defenses first")
    # on the benign victim there is no attack to succeed
    fields = [(measure, [attack for attack in panel.attacks if measure == "acc" or attack != NONE]) for measure in there]
    heights = [len(attacks) + 0.9 for _, attacks in fields]
    with drawing() as figure_class:
        figure = figure_class(figsize=(max(6.6, 3.2 + 0.78 * len(panel.defenses)), 1.6 + 0.42 * sum(heights)), layout="constrained")
        axes = figure.subplots(len(fields), 1, height_ratios=heights, squeeze=False)[:, 0]
        for axis, (measure, attacks) in zip(axes, fields, strict=True):
            image = _draw(axis, panel, measure, attacks, labelled=axis is axes[-1])
        bar = figure.colorbar(image, ax=list(axes), shrink=0.6, aspect=30, pad=0.02)
        bar.set_label("%")
        bar.outline.set_visible(False)
    return figure


def _draw(axis: Any, panel: Panel, measure: Measure, attacks: list[str], *, labelled: bool) -> Any:
    from matplotlib.patches import Rectangle

    defenses = panel.defenses
    values = np.full((len(attacks), len(defenses)), np.nan)
    for row, attack in enumerate(attacks):
        for column, defense in enumerate(defenses):
            cells = panel.at(attack, defense)
            mean = over_seeds([cell for cell in cells if cell.status == "ok"], measure).value
            if measure == "der" and defense == NONE:
                continue  # effectiveness is measured against this column
            if mean is not None:
                values[row, column] = 100 * mean
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
    image = axis.imshow(values, cmap="cividis", vmin=0, vmax=100, aspect="auto")
    axis.vlines(np.arange(0.5, len(defenses) - 1), -0.5, len(attacks) - 0.5, color="white", linewidth=1)
    axis.hlines(np.arange(0.5, len(attacks) - 1), -0.5, len(defenses) - 0.5, color="white", linewidth=1)
    labels = [short(defense, 32) for defense in defenses] if labelled else []
    axis.set_xticks(range(len(defenses)) if labelled else [], labels, rotation=40, ha="right", rotation_mode="anchor")
    axis.set_yticks(range(len(attacks)), [short(attack, 32) for attack in attacks])
    axis.set_title(TITLES[measure], fontsize=10, loc="left")
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)
    return image
