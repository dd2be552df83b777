"""Detectors: of poisoned training rows, and of backdoored models."""

from __future__ import annotations

from collections.abc import Sequence

from gatecrash.boards.panel import NONE, Panel
from gatecrash.boards.statistics import over_seeds
from gatecrash.boards.text import percent
from gatecrash.evaluation.detection import population_scores
from gatecrash.evaluation.intervals import Interval
from gatecrash.records.measures import MeasureName
from gatecrash.records.result import Result

FOUND: tuple[MeasureName, ...] = ("detection_fpr", "detection_tpr", "detection_auroc")
"""A defense that looks for poisoned rows has one of these."""

Rows = list[dict[str, str]]
"""A table: names as the plugins wrote them, figures as text."""


def sample_detectors(panel: Panel) -> Rows:
    """How well poisoned training rows were told from clean ones, per attack; no row where no defense looks for them."""
    rows = []
    for defense in panel.defenses:
        for attack in panel.attacks:
            cells = [cell for cell in panel.at(attack, defense) if cell.status == "ok"]
            if any(cell.measures.value(name) is not None for cell in cells for name in FOUND):
                rows.append(
                    {
                        "detector": defense,
                        "attack": attack,
                        "TPR": percent(over_seeds(cells, "detection_tpr")),
                        "FPR": percent(over_seeds(cells, "detection_fpr")),
                        "precision": percent(over_seeds(cells, "detection_precision")),
                        "AUROC": _plain(over_seeds(cells, "detection_auroc")),
                    }
                )
    return rows


def model_detectors(panel: Panel) -> Rows:
    """Verdicts on backdoored and on benign victims; no row where no defense gives any.

    A victim counts as backdoored where its backdoor landed: one that did not is neither.
    """
    rows = []
    for defense in panel.defenses:
        judged = [cell for cell in panel.at(defense=defense) if cell.status == "ok" and cell.measures.verdict is not None]
        if judged:
            rows.append(_model_row(panel, defense, judged))
    return rows


def _model_row(panel: Panel, defense: str, judged: list[Result]) -> dict[str, str]:
    benign = [cell for cell in judged if cell.attack.name == NONE]
    backdoored = [cell for cell in judged if cell.victim_key in panel.landed]
    named = [cell.measures.verdict_targets_equal for cell in backdoored if cell.measures.verdict_targets_equal is not None]
    row = {
        "detector": defense,
        "backdoored called so": _share([cell.measures.verdict for cell in backdoored]),
        "targets named exactly": _share(named),
        "benign called backdoored": _share([cell.measures.verdict for cell in benign]),
        "ROC-AUC": "",
        "cross-entropy": "",
        "Brier": "",
    }
    probabilities = [cell.measures.verdict_probability for cell in backdoored + benign]
    given = [float(probability) for probability in probabilities if probability is not None]
    if given and len(given) == len(probabilities):
        scores = population_scores(given, [True] * len(backdoored) + [False] * len(benign))
        row |= {"ROC-AUC": _plain(scores.roc_auc), "cross-entropy": _plain(scores.cross_entropy), "Brier": _plain(scores.brier)}
    return row


def _share(values: Sequence[bool | None]) -> str:
    return f"{sum(map(bool, values))} of {len(values)}" if values else ""


def _plain(interval: Interval) -> str:
    """`value [low, high]`."""
    if interval.value is None:
        return ""
    if interval.low is None or interval.high is None:
        return f"{interval.value:.3f}"
    return f"{interval.value:.3f} [{interval.low:.3f}, {interval.high:.3f}]"
