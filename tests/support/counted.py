"""Results whose measures follow from counts, as the evaluation writes them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gatecrash.evaluation.inputs import InputScores, Separation
from gatecrash.evaluation.metrics import der, mitigation_score
from gatecrash.evaluation.scores import BackdoorClassCounts, BackdoorScores, ClassCounts, Scores
from gatecrash.records.result import Result
from gatecrash.records.stage import Stage
from gatecrash.running.tasks.evaluate import _rates
from support.boards import a_result

SHOWN = 100
"""Test images of each of two classes; class 0 is the target."""


def scores(correct: tuple[int, int], hits: int, recovered: int = 0) -> Scores:
    classes = BackdoorClassCounts((0, SHOWN), (0, hits), (0, recovered), None)
    backdoor = BackdoorScores("mark", "all-to-one", (0,), SHOWN, hits, recovered, None, 1.0, classes)
    return Scores(2 * SHOWN, sum(correct), None, 0.5, (backdoor,), ClassCounts((SHOWN, SHOWN), correct, None))


def counted(correct: Sequence[int] = (95, 91), hits: int = 98, **fields: Any) -> Result:
    """A victim without defense: ACC 0.93 by default, ASR 0.98."""
    found, floor = scores((correct[0], correct[1]), hits), scores((99, 98), 1)
    measures = _rates(found) | {"acc_before": found.acc, "asr_before": found.asr}
    measures |= {"asr_floor": floor.asr, "acc_benign": floor.acc, "floor_scores": floor, "poison_share": 0.05}
    return a_result(**({"measures": measures} | fields))


def defended(victim: Result, correct: tuple[int, int] = (90, 88), hits: int = 7, recovered: int = 85, **fields: Any) -> Result:
    found, before = scores(correct, hits, recovered), victim.measures
    compared = (before.acc, found.acc, before.asr, found.asr)
    measures = _rates(found) | {"acc_before": before.acc, "asr_before": before.asr, "asr_floor": before.asr_floor}
    measures |= {"der": der(*compared), "mitigation_score": mitigation_score(*compared)}
    return a_result(**({"key": "ef" * 20, "defense": [Stage(name="fine-pruning")], "measures": measures} | fields))


def detected(victim: Result, **counts: Any) -> Result:
    """The victim behind a detector of inputs: 4 of 200 clean images and 80 of 100 triggered ones are flagged, and 78 of the 98 hits."""
    before = victim.measures
    inputs = InputScores(
        **{"clean": 2 * SHOWN, "flagged_clean": 4, "triggered": Separation(SHOWN, 80, 60, 90, 0.9)}
        | {"successful": Separation(98, 78, 60, 89, 0.95)}
        | counts
    )
    classes = BackdoorClassCounts((0, SHOWN), (0, 20), (0, 0), (0, 80))
    backdoor = BackdoorScores("mark", "all-to-one", (0,), SHOWN, 20, 0, 80, 1.0, classes)
    found = Scores(2 * SHOWN, 184, 4, 0.5, (backdoor,), ClassCounts((SHOWN, SHOWN), (94, 90), (2, 2)))
    compared = (before.acc, found.acc, before.asr, found.asr)
    measures = _rates(found) | {"acc_before": before.acc, "asr_before": before.asr, "asr_floor": before.asr_floor}
    measures |= {"der": der(*compared), "mitigation_score": mitigation_score(*compared), **inputs.measures(), "input_scores": inputs}
    kind = {"defense": [Stage(name="strip")], "access": "input-time", "gives": ["detector"]}
    return a_result(**({"key": "cc" * 20, "measures": measures} | kind))


def changed(result: Result, **measures: Any) -> Result:
    """The result with other measures, as someone would write them who also mends the digest."""
    return result.model_copy(update={"measures": result.measures.model_copy(update=measures)})
