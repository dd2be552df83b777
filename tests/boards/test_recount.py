"""A result is believed only where its measures follow from its counts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from gatecrash.boards.recount import recount
from gatecrash.evaluation.detection import DetectionScores
from gatecrash.evaluation.inputs import Separation
from gatecrash.records.measures import TrajectoryStep
from gatecrash.records.result import Result
from support.counted import changed, counted, defended, detected, scores
from support.paths import ROOT

VICTIM = counted()
DEFENDED = defended(VICTIM)


def test_what_the_evaluation_wrote_follows_from_its_counts() -> None:
    assert recount([VICTIM, DEFENDED]) == {}


@pytest.mark.parametrize("board", ["digits", "report-b", "report-c", "cifar10-cpu"])
def test_published_results_follow_from_theirs(board: str) -> None:
    files = (ROOT / "leaderboards" / "results" / board).glob("*.json")
    assert recount(Result.from_text(file.read_text(encoding="utf-8")) for file in files) == {}


@pytest.mark.parametrize(
    "forged",
    [
        {"acc": 1.0},
        {"asr": 0.0},
        {"acc_interval": (0.0, 1.0)},
        {"asr_interval": (0.0, 1.0)},
        {"der": 0.99},
        {"ra": 0.9},
        {"acc_macro": 0.5},
        {"acc_target": 0.5},
        {"asr_worst": 0.5},
        {"asr_by_backdoor": {"mark": 0.0}},
        {"mitigation_score": 40.0},
        {"loss_clean": 0.1},
        {"clean_reject_rate": 0.0},
    ],
    ids=str,
)
def test_a_measure_that_is_not_what_its_counts_say_is_named(forged: dict[str, Any]) -> None:
    found = recount([VICTIM, changed(DEFENDED, **forged)])
    assert list(found) == [DEFENDED.key]
    assert next(iter(forged)) in found[DEFENDED.key]


@pytest.mark.parametrize("forged", [{"acc_before": 0.99}, {"asr_before": 1.0}, {"asr_floor": 0.3}], ids=str)
def test_what_a_cell_takes_from_its_victim_is_held_against_the_victims_cell(forged: dict[str, Any]) -> None:
    assert next(iter(forged)) in recount([VICTIM, changed(DEFENDED, **forged)])[DEFENDED.key]
    assert next(iter(forged)) in recount([changed(VICTIM, **forged), DEFENDED])[VICTIM.key]


def test_counts_that_cannot_be_are_named() -> None:
    more = replace(scores((95, 91), 98), correct=300)
    assert "more clean images counted than shown" in recount([changed(VICTIM, scores=more)])[VICTIM.key]
    unlike = replace(scores((95, 91), 98), correct=180)
    assert "the counts by class do not add up" in recount([changed(VICTIM, scores=unlike)])[VICTIM.key]


def test_counts_cannot_be_left_out() -> None:
    assert "it has no counts" in recount([changed(VICTIM, scores=None)])[VICTIM.key]
    assert "no counts by class" in recount([changed(VICTIM, scores=scores((95, 91), 98).without_classes())])[VICTIM.key]
    assert "no counts of the benign victim" in recount([changed(VICTIM, floor_scores=None)])[VICTIM.key]
    assert "no counts of training rows" in recount([changed(DEFENDED, detection_tpr=0.9)])[DEFENDED.key]
    with_steps = DEFENDED.model_copy(update={"trajectory": [TrajectoryStep(params={"threshold": 1}, acc=1.0)]})
    assert "its trajectory has no counts" in recount([with_steps])[DEFENDED.key]


def test_a_result_of_version_1_is_judged_by_what_it_has() -> None:
    older = VICTIM.model_copy(update={"provenance": VICTIM.provenance.model_copy(update={"evaluation_version": 1})})
    without = {"scores": scores((95, 91), 98).without_classes(), "floor_scores": None, "acc_macro": None, "acc_target": None}
    assert recount([changed(older, **without)]) == {}
    assert "acc is 1.0000" in recount([changed(older, **without, acc=1.0)])[VICTIM.key]


def test_detections_and_steps_are_counted_again() -> None:
    found = DetectionScores(clean=90, poison=10, cover=0, flagged_clean=9, flagged_poison=8, flagged_cover=0, auroc=0.9)
    rates = {"detection_tpr": 0.8, "detection_fpr": 0.1, "detection_precision": 8 / 17, "detection_auroc": 0.9}
    rates |= {"detection_tpr_minus_fpr": 0.7, "cover_flagged": None}
    assert recount([changed(DEFENDED, detection_scores=found, **rates)]) == {}  # an older one, without accuracy
    rates["detection_accuracy"] = 0.89
    assert recount([changed(DEFENDED, detection_scores=found, **rates)]) == {}
    forged = recount([changed(DEFENDED, detection_scores=found, **rates | {"detection_accuracy": 1.0})])
    assert forged[DEFENDED.key] == "detection_accuracy is 1.0000, its counts say 0.8900"
    forged = recount([changed(DEFENDED, detection_scores=found, **rates | {"detection_fpr": 0.0})])
    assert "detection_fpr is 0.0000, its counts say 0.1000" in forged[DEFENDED.key]
    counts = scores((90, 90), 5, 80).without_classes()
    step = TrajectoryStep(params={}, acc=0.9, asr=0.05, ra=0.8, loss_clean=0.5, loss_poison=1.0, scores=counts)
    assert recount([DEFENDED.model_copy(update={"trajectory": [step]})]) == {}
    forged = recount([DEFENDED.model_copy(update={"trajectory": [step.model_copy(update={"asr": 0.0})]})])
    assert "step 1: asr is 0.0000, its counts say 0.0500" in forged[DEFENDED.key]


@pytest.mark.parametrize("name", ["acc_interval", "asr_by_backdoor", "acc"])
def test_a_measure_that_its_counts_give_cannot_be_left_out(name: str) -> None:
    assert f"{name} is None, its counts say " in recount([changed(VICTIM, **{name: None})])[VICTIM.key]


def test_a_detector_may_be_perfect_and_cannot_be_better() -> None:
    def found(**counts: Any) -> dict[str, str]:
        made = DetectionScores(**{"clean": 90, "poison": 10, "cover": 0, "flagged_clean": 0, "flagged_poison": 10, "auroc": 1.0} | counts)
        rates = {
            "detection_tpr": 1.0,
            "detection_fpr": 0.0,
            "detection_precision": 1.0,
            "detection_auroc": 1.0,
            "detection_tpr_minus_fpr": 1.0,
        }
        return recount([changed(DEFENDED, detection_scores=made, **rates)])

    assert found() == {}
    for impossible in ({"auroc": 1.01}, {"auroc": -0.01}, {"flagged_poison": 11}, {"flagged_clean": -1}, {"flagged_cover": 1}):
        assert found(**impossible) == {DEFENDED.key: "more training rows flagged than there are"}


DETECTED = detected(VICTIM)


def test_rates_of_a_detector_of_inputs_follow_from_its_counts() -> None:
    assert recount([VICTIM, DETECTED]) == {}
    assert recount([changed(DETECTED, input_tpr=0.9)])[DETECTED.key] == "input_tpr is 0.9000, its counts say 0.8000"
    assert "input_auroc_successful is None" in recount([changed(DETECTED, input_auroc_successful=None)])[DETECTED.key]
    assert "it has no counts of test images" in recount([changed(DETECTED, input_scores=None)])[DETECTED.key]


@pytest.mark.parametrize(
    "counts",
    [
        {"flagged_clean": 201},
        {"triggered": Separation(100, 101, 60, 90, 0.9)},
        {"triggered": Separation(100, 80, 91, 90, 0.9)},
        {"triggered": Separation(100, 80, 60, 90, 1.1)},
        {"successful": Separation(101, 78, 60, 89, 0.95)},
        {"successful": Separation(98, 81, 60, 89, 0.95)},
    ],
)
def test_a_detector_of_inputs_cannot_have_counted_more_than_it_was_shown(counts: dict[str, Any]) -> None:
    assert recount([detected(VICTIM, **counts)]) == {DETECTED.key: "more test images flagged than there are"}


@pytest.mark.parametrize(
    "counts",
    [{"clean": 199}, {"flagged_clean": 5}, {"triggered": Separation(99, 80, 60, 90, 0.9)}, {"triggered": Separation(100, 81, 60, 90)}],
)
def test_a_detector_and_the_classifier_behind_it_were_shown_the_same_images(counts: dict[str, Any]) -> None:
    assert recount([detected(VICTIM, **counts)]) == {DETECTED.key: "the detector's counts are not those of the classifier behind it"}
