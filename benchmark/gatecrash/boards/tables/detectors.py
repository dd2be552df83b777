"""Detectors: of poisoned training rows, of poisoned inputs, and of backdoored models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from gatecrash.boards.content import Code, Field, Table, paragraph
from gatecrash.boards.fields import count, label, measured, ratio, summary, table, text
from gatecrash.boards.panel import Panel
from gatecrash.evaluation.detection import population_scores
from gatecrash.records.measures import MEASURES, MeasureName
from gatecrash.records.plan import NONE
from gatecrash.records.result import Result

ROW_MEASURES: tuple[MeasureName, ...] = ("detection_tpr", "detection_fpr", "detection_precision", "detection_auroc")
CONSTANT = "always accuses"
ACCURACY: MeasureName = "detection_accuracy"
"""Has a column where a result holds it, which older ones do not."""
FOUND: tuple[MeasureName, ...] = ("detection_fpr", "detection_tpr", "detection_auroc")
"""A defense that looks for poisoned rows has one of these."""


def row_detectors(panel: Panel) -> Table:
    """How well poisoned training rows were told from clean ones, per attack; no rows where no defense looks for them."""
    rows = []
    shown = (*ROW_MEASURES, ACCURACY) if any(cell.measures.value(ACCURACY) is not None for cell in panel.cells) else ROW_MEASURES
    for defense in panel.defenses:
        for attack in panel.attacks:
            cells = [cell for cell in panel.at(attack, defense) if cell.status == "ok"]
            if any(cell.measures.value(name) is not None for cell in cells for name in FOUND):
                scores = {label(name): summary(cells, name) for name in shown}
                rows.append({"detector": text(defense), "attack": text(attack), **scores})
    note = paragraph("Rates in %. Under the attack ", Code("none"), " every flagged row is a false alarm.")
    return table(rows, ("detector", "attack"), "Poisoned training rows", note)


INPUT_MEASURES: tuple[MeasureName, ...] = (
    "input_tpr",
    "input_fpr",
    "input_auroc",
    "input_tpr_at_fpr_1",
    "input_tpr_at_fpr_5",
    "acc",
    "asr",
)
SUCCESSFUL: tuple[MeasureName, ...] = ("input_tpr_successful", "input_auroc_successful")


def input_detectors(panel: Panel) -> Table:
    """How well triggered test images were told from clean ones, per attack, and the classifier behind the detector; no rows where no
    defense gives a detector."""
    rows = []
    for defense in panel.defenses:
        for attack in panel.attacks:
            cells = [cell for cell in panel.at(attack, defense) if cell.measures.input_fpr is not None]
            if cells:
                scores = {label(name): measured(cells, name) for name in (*INPUT_MEASURES, *SUCCESSFUL)}
                rows.append({"detector": text(defense), "attack": text(attack), **scores})
    note = paragraph(
        "Rates in %, with ACC and ASR of the classifier that rejects what the detector flags. The columns named ",
        Code("successful"),
        " are over the triggered images on which the attack succeeds without a defense. Intervals are 95%: of one seed Wilson's (of AUROC "
        "Newcombe's) over test images, of several the t interval over seeds.",
    )
    return table(rows, ("detector", "attack"), "Poisoned inputs", note)


def model_detectors(panel: Panel) -> Table:
    """Verdicts on backdoored and on benign victims; no rows where no defense gives any.

    A victim counts as backdoored where its backdoor landed. One whose backdoor did not land counts as neither.
    """
    rows = []
    for defense in panel.defenses:
        judged = [cell for cell in panel.at(defense=defense) if cell.status == "ok" and cell.measures.verdict is not None]
        if judged:
            rows.append(_model_row(panel, defense, judged))
    rows += [_constant_row(panel, rows[0])] if rows and _targets(panel) else []
    control = " is no detector but a control: it looks at no model, and flags every one."
    note = paragraph("Each victim counts as one model. Intervals are 95%. ", Code(CONSTANT), control)
    return table(rows, ("detector",), "Backdoored models", note)


def _constant_row(panel: Panel, like: Mapping[str, Field]) -> dict[str, Field]:
    """What a detector has that looks at nothing, calls every model backdoored and always accuses the classes that are targets most often.

    Where all attacks have one target, its accusations are exact: an exact detector has shown nothing there.
    """
    targets = _targets(panel)
    guess = max(sorted(targets, key=sorted), key=targets.count)
    benign = [cell for cell in panel.at(NONE, NONE) if cell.status == "ok"]
    return dict.fromkeys(like, Field(kind="count")) | {
        "detector": text(f"{CONSTANT} {', '.join(map(str, sorted(guess)))}"),
        "backdoored models flagged": count(True for _ in targets),
        MEASURES["verdict_targets_equal"].label: count(target == guess for target in targets),
        "benign models flagged": count(True for _ in benign),
    }


def _targets(panel: Panel) -> list[frozenset[int]]:
    """The targets of each victim whose backdoor landed."""
    scores = [cell.measures.scores for cell in panel.hit(NONE)]
    return [frozenset(target for one in each.backdoors for target in one.targets) for each in scores if each is not None]


def _model_row(panel: Panel, defense: str, judged: Sequence[Result]) -> dict[str, Field]:
    benign = [cell for cell in judged if cell.attack.name == NONE]
    backdoored = [cell for cell in judged if cell.victim_key in panel.landed]
    return {
        "detector": text(defense),
        "backdoored models flagged": count(cell.measures.verdict for cell in backdoored),
        MEASURES["verdict_targets_equal"].label: count(cell.measures.verdict_targets_equal for cell in backdoored),
        "benign models flagged": count(cell.measures.verdict for cell in benign),
        **_population(backdoored, benign),
    }


def _population(backdoored: Sequence[Result], benign: Sequence[Result]) -> dict[str, Field]:
    """Scores of the probabilities, where every victim was given one."""
    probabilities = [cell.measures.verdict_probability for cell in (*backdoored, *benign)]
    given = [float(probability) for probability in probabilities if probability is not None]
    if not given or len(given) < len(probabilities):
        return {title: Field(kind="number") for title in ("ROC-AUC", "cross-entropy", "Brier")}
    scores = population_scores(given, [True] * len(backdoored) + [False] * len(benign))
    return {"ROC-AUC": ratio(scores.roc_auc), "cross-entropy": ratio(scores.cross_entropy), "Brier": ratio(scores.brier)}
