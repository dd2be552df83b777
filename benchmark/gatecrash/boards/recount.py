"""Rates computed again from the counts that a result holds, without running anything.

A result is believed only where its measures follow from its counts, and its comparison with the victim from the victim's own cell. What
an older version did not store cannot be computed again: such a result is judged by what it has.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from gatecrash.boards.counting import impossible, impossible_detection, impossible_harm, impossible_inputs
from gatecrash.evaluation.metrics import der, mitigation_score
from gatecrash.evaluation.scores import retune_rates
from gatecrash.records.measures import NUMBERS, Measures
from gatecrash.records.plan import NONE
from gatecrash.records.result import Result

BY_CLASS = 2
"""The evaluation version since which all counts are stored."""

FROM_SCORES = (
    "acc",
    "acc_macro",
    "acc_target",
    "acc_interval",
    "asr",
    "asr_interval",
    "asr_worst",
    "asr_by_backdoor",
    "ra",
    "loss_clean",
    "loss_poison",
    "clean_reject_rate",
    "trigger_reject_rate",
    "leak",
    "cover_acc",
)
"""Measures with the name of a property of `Scores`."""
OF_STEP = ("acc", "asr", "ra", "loss_clean", "loss_poison")
FROM_DETECTION = {
    "detection_tpr": "tpr",
    "detection_fpr": "fpr",
    "detection_precision": "precision",
    "detection_auroc": "auroc",
    "detection_tpr_minus_fpr": "tpr_minus_fpr",
    "detection_accuracy": "accuracy",
    "cover_flagged": "cover_flagged",
}
"""Properties of `DetectionScores` by measure."""
FROM_INPUTS = tuple(name for name in NUMBERS if name.startswith("input_"))
OF_VICTIM = {"asr_floor": "asr_floor", "acc_before": "acc", "asr_before": "asr"}
"""Measures that a defended cell takes from the cell of its victim without defense, by their names there."""


def recount(results: Iterable[Result]) -> dict[str, str]:
    """What does not follow from the counts, by cell key, for cells that are not as their counts say.

    `results` may be one; the more of a board there are, the more can be compared.
    """
    results = list(results)
    victims = {result.victim_key: result for result in results if result.defense_name == NONE and result.status == "ok"}
    faults = {result.key: list(_faults(result, victims.get(result.victim_key))) for result in results if result.status == "ok"}
    return {key: "; ".join(found) for key, found in faults.items() if found}


def _faults(result: Result, victim: Result | None) -> Iterator[str]:
    measures = result.measures
    counted = {"the counts": measures.scores, "the benign victim's counts": measures.floor_scores}
    counted |= {f"under {name}": scores for name, scores in (measures.robustness or {}).items()}
    counted |= {f"the benign victim under {name}": scores for name, scores in (measures.robustness_floor or {}).items()}
    counted |= {f"draw {draw} of retune": scores for draw, scores in enumerate(measures.retune_scores or [], 1)}
    counted |= {f"draw {draw} of retune, benign": scores for draw, scores in enumerate(measures.retune_control or [], 1)}
    counted |= {f"step {number}": step.scores for number, step in enumerate(result.trajectory, 1)}
    nonsense = [f"{name}: {fault}" for name, scores in counted.items() if scores is not None for fault in impossible(scores)]
    if measures.harm_scores is not None:
        nonsense += impossible_harm(measures.harm_scores)
    if measures.detection_scores is not None:
        nonsense += impossible_detection(measures.detection_scores)
    if measures.input_scores is not None:
        nonsense += impossible_inputs(measures.input_scores, measures.scores)
    if nonsense:
        yield from nonsense  # nothing follows from such counts
        return
    yield from _missing(result)
    benign = measures.acc_benign if victim is None else victim.measures.acc_benign
    if measures.acc_lost is not None and benign is not None and measures.acc is not None:
        yield from _differing({"acc_lost": measures.acc_lost}, {"acc_lost": benign - measures.acc})
    yield from _differing(measures.model_dump(), _expected(result, victim))
    for number, step in enumerate(result.trajectory, 1):
        if step.scores is not None:
            known = {name: getattr(step.scores, name) for name in OF_STEP}
            yield from (f"step {number}: {fault}" for fault in _differing(step.model_dump(), known))


def _missing(result: Result) -> Iterator[str]:
    """Counts that the result's version stores, and without which nothing could be held against its rates."""
    measures, version = result.measures, result.provenance.evaluation_version
    if measures.scores is None:
        yield "it has no counts"
    if version is not None and version < BY_CLASS:
        return
    if measures.scores is not None and measures.scores.classes is None:
        yield "it has no counts by class"
    if result.defense_name == NONE and measures.asr_floor is not None and measures.floor_scores is None:
        yield "it has no counts of the benign victim"
    if measures.detection_scores is None and any(getattr(measures, name) is not None for name in FROM_DETECTION):
        yield "it has no counts of training rows"
    if measures.input_scores is None and any(getattr(measures, name) is not None for name in FROM_INPUTS):
        yield "it has no counts of test images"
    if "robustness" in result.evaluation and not measures.robustness:
        yield "it has no counts under transformations"
    if "retune" in result.evaluation and measures.retune_asr is not None and not measures.retune_scores:
        yield "it has no counts after fine-tuning"
    if any(step.scores is None for step in result.trajectory):
        yield "its trajectory has no counts"


def _expected(result: Result, victim: Result | None) -> dict[str, Any]:
    """All measures that follow from something else."""
    measures = result.measures
    expected: dict[str, Any] = {}
    if measures.scores is not None:
        expected |= {name: getattr(measures.scores, name) for name in FROM_SCORES}
        if measures.scores.classes is None:  # an older result
            expected = {name: value for name, value in expected.items() if name not in {"acc_macro", "acc_target"}}
    if measures.detection_scores is not None:
        expected |= {name: getattr(measures.detection_scores, source) for name, source in FROM_DETECTION.items()}
        if measures.detection_accuracy is None:  # an older result
            del expected["detection_accuracy"]
    if measures.input_scores is not None:
        expected |= measures.input_scores.measures()
    if measures.retune_scores is not None:
        draws = ([scores for scores in found or [] if scores] for found in (measures.retune_scores, measures.retune_control))
        expected |= retune_rates(*draws)
    if measures.harm_scores is not None:
        expected["acc_lost" if measures.acc_lost is not None else "source_to_target"] = measures.harm_scores.rate
    elif measures.harm is not None:
        expected |= {"acc_lost": None, "source_to_target": None}
    if result.defense_name == NONE:
        expected |= {"acc_before": expected.get("acc", measures.acc), "asr_before": expected.get("asr", measures.asr)}
        if measures.floor_scores is not None:
            expected |= {"asr_floor": measures.floor_scores.asr, "acc_benign": measures.floor_scores.acc}
        return expected
    if victim is not None:
        expected |= {name: victim.measures.value(source) for name, source in OF_VICTIM.items()}  # type: ignore[arg-type]
    return expected | _comparison(measures.model_copy(update=expected))


def _comparison(measures: Measures) -> dict[str, Any]:
    before, after = (measures.acc_before, measures.asr_before), (measures.acc, measures.asr)
    if before[1] is None or after[1] is None:
        return {"der": None, "mitigation_score": None}
    return {
        "der": der(before[0], after[0], before[1], after[1]),
        "mitigation_score": mitigation_score(before[0], after[0], before[1], after[1]),
    }


def _differing(stored: Mapping[str, Any], expected: Mapping[str, Any]) -> Iterator[str]:
    for name, value in expected.items():
        if not _equal(stored.get(name), value):
            yield f"{name} is {_shown(stored.get(name))}, its counts say {_shown(value)}"


def _equal(one: Any, other: Any) -> bool:
    """Up to the last digits, which another version of Python may round otherwise."""
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=1e-9, abs_tol=1e-12)
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_equal(one[key], other[key]) for key in one)
    if isinstance(one, tuple | list) and isinstance(other, tuple | list):
        return len(one) == len(other) and all(map(_equal, one, other))
    return bool(one == other)


def _shown(value: Any) -> str:
    return f"{value:.4f}" if isinstance(value, float) else str(value)[:60]
