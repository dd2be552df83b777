"""Two measurements of one cell: equal on one machine, within limits measured here on another."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gatecrash.boards.verify import compare, verify
from gatecrash.evaluation.detection import DetectionScores
from gatecrash.host.loading import load_plugins
from gatecrash.planning.planned import plan_grid
from gatecrash.records.measures import TrajectoryStep
from gatecrash.records.result import Result
from gatecrash.records.store import Store
from support.counted import changed, counted, defended, detected, scores
from support.small_runs import small

VICTIM = counted()


def elsewhere(result: Result, **facts: Any) -> Result:
    """The same, made on another machine."""
    return result.model_copy(update={"provenance": result.provenance.model_copy(update=facts or {"cpu": "b"})})


def test_the_same_machine_must_give_every_digit() -> None:
    assert compare(VICTIM, changed(VICTIM, seconds_victim=99.0)).outcome == "equal"
    found = compare(VICTIM, changed(VICTIM, acc=0.93 + 1e-12))
    assert (found.outcome, found.good) == ("differs", False)
    assert "on the same kind of machine: acc 0.9300 -> 0.9300" in found.detail


@pytest.mark.parametrize(
    "facts", [{"device": "NVIDIA H200"}, {"cpu": "b"}, {"cpu_kind": "AVX2"}, {"packages": {"torch": "3"}}, {"threads": 2}], ids=str
)
def test_another_machine_must_stay_within_the_limits_measured_here(facts: dict[str, Any]) -> None:
    fresh = elsewhere(VICTIM, **facts)
    assert compare(counted((94, 90)), fresh).outcome == "within"
    found = compare(counted((100, 100)), fresh)
    assert found.outcome == "differs"
    assert "acc 1.0000 -> 0.9300, outside 0.8859 to 0.9578" in found.detail  # Wilson, 186 of 200


@pytest.mark.parametrize(
    "forged",
    [
        {"acc": 1.0, "asr": 0.0, "acc_interval": (0.0, 1.0), "asr_interval": (0.0, 1.0)},
        {"asr": None},
        {"asr_floor": 0.5},
        {"acc_before": 0.5},
        {"asr_by_backdoor": {"mark": 0.5}},
        {"poison_share": 0.01},
        {"acc_target": 0.5},
        {"loss_clean": 9.0},
        {"surprise": 1.0},
        {"scores": scores((95, 91), 98).without_classes()},
    ],
    ids=lambda forged: next(iter(forged)),
)
def test_every_measure_is_judged_and_the_file_has_no_say_in_how(forged: dict[str, Any]) -> None:
    stored = Result(**{**VICTIM.model_dump(), "measures": {**VICTIM.measures.model_dump(), **forged}})
    assert compare(stored, elsewhere(VICTIM)).outcome == "differs"


def test_a_spec_whose_key_is_another_one_is_no_older_version(tmp_path: Path) -> None:
    """Nothing runs: what the result says it is does not lead to its key, though every version is the one installed here."""
    spec = plan_grid(small(), load_plugins(installed=False)).plan
    planned = spec.cells[min(spec.cells)]
    stated = {"dataset": spec.dataset, "dataset_fingerprint": spec.fingerprint, "model": spec.model, "recipe": spec.recipe}
    result = VICTIM.model_copy(update={**stated, "holdout": spec.holdout, "key": planned.key, "seed": 7})
    found = verify(result, Store(tmp_path / "s"), load_plugins(installed=False))
    assert (found.outcome, found.good) == ("differs", False)
    assert "all versions agree, but its spec has another key here" in found.detail


def test_seeds_that_are_run_here_say_how_far_trainings_lie_apart() -> None:
    fresh, stored = elsewhere(counted(hits=50)), counted(hits=70)
    assert compare(stored, fresh).outcome == "differs"
    scattered = [elsewhere(counted(hits=hits, seed=seed)) for seed, hits in ((1, 90), (2, 10))]
    assert compare(stored, fresh, lambda: scattered).outcome == "within"
    alike = [elsewhere(counted(hits=hits, seed=seed)) for seed, hits in ((1, 51), (2, 49))]
    assert compare(stored, fresh, lambda: alike).outcome == "differs"


def test_each_step_of_a_trajectory_is_judged() -> None:
    def with_step(asr: float) -> Result:
        step = TrajectoryStep(params={"threshold": 0.5}, acc=0.9, asr=asr, ra=0.8, loss_clean=0.5, loss_poison=1.0)
        return defended(VICTIM).model_copy(update={"trajectory": [step]})

    assert compare(with_step(0.06), elsewhere(with_step(0.05))).outcome == "within"
    found = compare(with_step(0.5), elsewhere(with_step(0.05)))
    assert (found.outcome, "step 1: asr 0.5000 -> 0.0500" in found.detail) == ("differs", True)
    assert compare(with_step(0.5), with_step(0.05)).outcome == "differs"
    assert compare(defended(VICTIM), elsewhere(with_step(0.05))).outcome == "differs"


def test_the_limits_that_seeds_set_are_allowed_themselves() -> None:
    """ASR 0.5, 0.9 and 0.1 here: one more training is expected anywhere from 0 to 1."""
    fresh = elsewhere(counted(hits=50))
    scattered = [elsewhere(counted(hits=hits, seed=seed)) for seed, hits in ((1, 90), (2, 10))]
    for hits in (0, 100):
        assert compare(counted(hits=hits), fresh, lambda: scattered).outcome == "within"


@pytest.mark.parametrize(("loss", "outcome"), [(0.29, "within"), (0.27, "differs"), (0.79, "within"), (0.81, "differs")])
def test_a_loss_may_differ_by_a_factor_and_a_little_more(loss: float, outcome: str) -> None:
    """0.5 here: from 0.5 / 1.5 - 0.05 = 0.283 to 0.5 * 1.5 + 0.05 = 0.8."""
    assert compare(changed(VICTIM, loss_clean=loss), elsewhere(VICTIM)).outcome == outcome


def test_rates_of_a_detector_of_inputs_are_judged_by_its_counts_of_images() -> None:
    """Wilson's interval of 80 of 100 is 0.711 to 0.867; Newcombe's of an area of 0.9 over 100 and 200 images is wider than 0.05."""
    fresh = elsewhere(detected(VICTIM))

    def outcome(**there: float) -> str:
        return compare(changed(fresh, **there), elsewhere(fresh, cpu="c")).outcome

    assert outcome(input_tpr=0.72) == outcome(input_auroc=0.88) == outcome(input_tpr_at_fpr_1_successful=0.65) == "within"
    assert outcome(input_tpr=0.7) == outcome(input_auroc=0.8) == outcome(input_fpr=0.06) == "differs"


def test_rates_of_a_detector_are_judged_by_its_counts_of_rows() -> None:
    """No poisoned row of 10 and 5 clean ones of 90 flagged here: a precision of up to 3.84 / (5 + 3.84) = 0.434 lies within."""
    counts = DetectionScores(clean=90, poison=10, cover=0, flagged_clean=5, flagged_poison=0, flagged_cover=0, auroc=0.9)
    here = {"detection_tpr": 0.0, "detection_fpr": 5 / 90, "detection_precision": 0.0, "detection_auroc": 0.9}
    fresh = elsewhere(changed(defended(VICTIM), detection_scores=counts, **here))

    def outcome(**there: float) -> str:
        return compare(changed(fresh, **there), elsewhere(fresh, cpu="c")).outcome

    assert outcome(detection_precision=0.43) == outcome(detection_auroc=0.8) == "within"
    assert outcome(detection_precision=0.44) == outcome(detection_auroc=0.5) == outcome(detection_auroc=1.0) == "differs"


def test_a_long_value_is_cut_in_what_is_said() -> None:
    found = compare(changed(VICTIM, asr_by_backdoor={"a" * 60: 0.98}), elsewhere(VICTIM))
    assert f"asr_by_backdoor {{'{'a' * 38} -> {{'mark': 0.98}}" in found.detail
