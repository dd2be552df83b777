"""Clean accuracy against attack success rate, a mark for each defense."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gatecrash.boards.panel import Panel
from gatecrash.boards.plots.style import LEGEND, bars, differing, drawing, head, legend, legend_size, look, wrapped
from gatecrash.boards.statistics import over_seeds
from gatecrash.errors import UserError
from gatecrash.evaluation.intervals import Interval
from gatecrash.records.measures import MEASURES
from gatecrash.records.plan import NONE

if TYPE_CHECKING:
    from matplotlib.figure import Figure


ACC, ASR = MEASURES["acc"], MEASURES["asr"]


def tradeoff(panel: Panel) -> Figure:
    """One mark per defense: mean ACC and ASR over the victims whose backdoor landed, with 95% intervals over seeds.

    Defenses that only detect are left out. Raises UserError where no defense met an attack that landed.
    """
    defenses = [defense for defense in panel.defenses if (defense == NONE or panel.repairs(defense)) and panel.hit(defense)]
    if not any(defense != NONE for defense in defenses):
        raise UserError("no defense has met an attack that landed; there is nothing to trade off")
    with drawing() as figure_class:
        names, shared = differing(defenses)
        labels = [wrapped("no defense" if name == NONE else name, LEGEND) for name in names]
        width, height = legend_size(labels)
        figure = figure_class(figsize=(5.2 + width, max(4.6, 1.2 + height)), layout="constrained")
        axis = figure.subplots()
        for index, (defense, label) in enumerate(zip(defenses, labels, strict=True)):
            acc, asr = over_seeds(panel.hit(defense), "acc"), over_seeds(panel.hit(defense), "asr")
            _mark(axis, acc, asr, label, index)
        met = {panel.attack_of[cell.key] for defense in defenses for cell in panel.hit(defense)}
        axis.set_xlabel(f"{ACC.title}, % ({'right' if ACC.better == 'high' else 'left'} is better)")
        axis.set_ylabel(f"{ASR.title}, % ({ASR.better} is better)")
        axis.set_ylim(-4, 104)
        axis.margins(x=0.08)
        axis.grid(alpha=0.3)
        attacks = ", ".join(attack for attack in panel.attacks if attack in met)
        intervals = ", with 95% intervals over seeds" if len(panel.seeds) > 1 else ""
        means = f"{shared}: means" if shared else "Means"
        head(figure, panel, f"{means} over the attacks that landed ({attacks}){intervals}.")
        legend(axis, *axis.get_legend_handles_labels())
    return figure


def _mark(axis: Any, acc: Interval, asr: Interval, label: str, index: int) -> None:
    axis.errorbar(
        [100 * (acc.value or 0.0)],
        [100 * (asr.value or 0.0)],
        xerr=bars(acc),
        yerr=bars(asr),
        label=label,
        linestyle="none",
        markersize=8,
        capsize=3,
        elinewidth=1,
        **look(index),
    )
