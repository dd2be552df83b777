"""How far a trigger can be seen against how well it works, a mark for each backdoor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from gatecrash.boards.panel import Panel
from gatecrash.boards.plots.style import LEGEND, bars, drawing, head, legend, legend_size, look, wrapped
from gatecrash.boards.plots.triggers import TriggerExample
from gatecrash.boards.statistics import over_seeds
from gatecrash.errors import UserError
from gatecrash.evaluation.bands import ASR_HIGH, ASR_MODERATE, PSNR_GOOD, asr_band
from gatecrash.evaluation.intervals import Interval
from gatecrash.records.plan import NONE

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Distance = Literal["psnr", "ssim"]
AXIS = {"psnr": "PSNR, dB (right is harder to see)", "ssim": "SSIM (right is harder to see)"}


def stealth_effect(panel: Panel, found: Sequence[TriggerExample], distance: Distance = "psnr") -> Figure:
    """One mark per backdoor: PSNR or SSIM of its trigger and ASR without a defense, with 95% intervals over seeds.

    `found` are the triggers of the panel's attacks, as from `stored_triggers`; lines are drawn at the bounds of `evaluation.bands`.
    Raises UserError where no backdoor has both numbers.
    """
    points = [(one, one.distances.get(distance), _effect(panel, one)) for one in found]
    drawn = [(one, seen, asr) for one, seen, asr in points if seen is not None and asr.value is not None]
    if not drawn:
        raise UserError(f"no stored victim has a trigger with {distance.upper()} and ASR; run attacks without a defense first")
    with drawing() as figure_class:
        labels = [wrapped(f"{one.label} ({asr_band(asr.value)})", LEGEND) for one, _, asr in drawn]
        width, height = legend_size(labels)
        figure = figure_class(figsize=(5.2 + width, max(4.6, 1.2 + height)), layout="constrained")
        axis = figure.subplots()
        for index, ((_, seen, asr), label) in enumerate(zip(drawn, labels, strict=True)):
            _mark(axis, seen, asr, label, index)
        axis.set_ylim(-4, 104)
        axis.margins(x=0.12)
        axis.set_xlabel(AXIS[distance])
        axis.set_ylabel("attack success rate, %")
        axis.grid(alpha=0.3)
        _bounds(axis, distance)
        bounds = f"ASR is high above {100 * ASR_HIGH:.0f}%, moderate from {100 * ASR_MODERATE:.0f}%"
        bounds += f"; PSNR is good above {PSNR_GOOD:.0f} dB" if distance == "psnr" else ""
        head(figure, panel, f"Stealth and effect of each trigger. {bounds}.")
        legend(axis, *axis.get_legend_handles_labels())
    return figure


def _effect(panel: Panel, one: TriggerExample) -> Interval:
    """ASR without a defense."""
    cells = [cell for cell in panel.at(one.attack, NONE) if cell.status == "ok"]
    if one.backdoor is None:
        return over_seeds(cells, "asr")
    name = one.backdoor
    return over_seeds(cells, lambda cell: (cell.measures.asr_by_backdoor or {}).get(name))


def _mark(axis: Any, seen: float, asr: Interval, label: str, index: int) -> None:
    hollow = {"markerfacecolor": "none", "markeredgewidth": 1.6}  # marks lie on each other where triggers are alike
    style = {"linestyle": "none", "markersize": 8, "capsize": 3, "elinewidth": 1, **hollow}
    axis.errorbar([seen], [100 * (asr.value or 0.0)], yerr=bars(asr), label=label, clip_on=False, zorder=3, **style, **look(index))


def _bounds(axis: Any, distance: Distance) -> None:
    for bound in (ASR_HIGH, ASR_MODERATE):
        axis.axhline(100 * bound, color="0.5", linewidth=0.8, linestyle="--")
    if distance == "psnr":
        axis.axvline(PSNR_GOOD, color="0.5", linewidth=0.8, linestyle="--")
        axis.annotate("good", (PSNR_GOOD, 0), (4, 4), textcoords="offset points", color="0.35", fontsize=9)
