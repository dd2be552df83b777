"""Rates, intervals and the stored form of scores."""

from __future__ import annotations

import json
from dataclasses import FrozenInstanceError

import pytest

from gatecrash.evaluation.exam import evaluate
from gatecrash.evaluation.scores import BackdoorClassCounts, ClassCounts, Scores, StepScores
from support.written_answers import ONE, TEST, UNSEEN, backdoor, numbered, table


def test_reject_rates_do_not_apply_to_a_classifier_that_cannot_reject():
    scores = evaluate(table([0] * 6, [0] * 6), TEST, [ONE], device="cpu")
    assert (scores.clean_reject_rate, scores.trigger_reject_rate) == (None, None)


def test_several_backdoors_are_scored_one_by_one_and_together():
    first, second = backdoor(column=1, name="first"), backdoor("one-to-one", target=0, source=2, column=2, name="second")
    victim = table([0, 0, 1, 1, 2, 2], [UNSEEN, UNSEEN, 0, 0, 0, 2], [UNSEEN] * 4 + [0, 1])
    scores = evaluate(victim, TEST, [first, second], device="cpu")
    assert scores.asr_by_backdoor == {"first": 0.75, "second": 0.5}
    assert (scores.asr, scores.asr_worst) == (0.625, 0.75)
    assert scores.ra == pytest.approx((0.25 + 0.0) / 2)


def test_without_a_backdoor_or_an_eligible_image_there_is_no_attack_success():
    none = evaluate(table([0] * 6), TEST, device="cpu")
    assert (none.asr, none.asr_worst, none.ra, none.loss_poison, none.asr_interval) == (None, None, None, None, None)
    assert none.asr_by_backdoor == {}
    only_targets = evaluate(table([0, 0]), numbered([0, 0]), [ONE], device="cpu")
    assert (only_targets.acc, only_targets.asr, only_targets.ra, only_targets.loss_poison) == (1.0, None, None, None)
    assert only_targets.asr_by_backdoor == {"mark": None}


def test_a_backdoor_without_eligible_images_does_not_drag_the_mean():
    victim = table([0, 0, 1, 1], [UNSEEN, UNSEEN, 0, 0])
    scores = evaluate(victim, numbered([0, 0, 1, 1]), [ONE, backdoor("one-to-one", 0, 2, column=2, name="no source")], device="cpu")
    assert (scores.asr, scores.asr_worst) == (1.0, 1.0)
    assert scores.asr_by_backdoor == {"mark": 1.0, "no source": None}


def test_intervals_are_wilsons_over_the_counted_images():
    scores = Scores(n_test=263, correct=81, rejected=None, loss_clean=1.0)
    assert scores.acc_interval == pytest.approx((0.2553, 0.3662), abs=5e-5)
    victim = evaluate(table([0, 0, 1, 1, 2, 2], [UNSEEN, UNSEEN, 0, 1, 0, 1]), TEST, [ONE], device="cpu")
    assert victim.asr_interval == pytest.approx((0.1500, 0.8500), abs=5e-5)  # 2 of 4
    assert victim.ra_interval == pytest.approx((0.0456, 0.6994), abs=5e-5)  # 1 of 4


def test_scores_survive_json():
    victim = table([0, 3, 1, 1, 2, 2], [UNSEEN, UNSEEN, 0, 1, 0, 3], reject=True)
    scores = evaluate(victim, TEST, [ONE], device="cpu")
    assert Scores.from_json(json.loads(json.dumps(scores.to_json()))) == scores
    step = StepScores({"threshold": 0.2, "kind": "norm"}, scores)
    assert StepScores.from_json(json.loads(json.dumps(step.to_json()))) == step


def test_counts_by_class_follow_the_true_labels():
    reject = 3
    victim = table([0, 1, 1, 1, reject, reject], [UNSEEN, UNSEEN, 0, 1, reject, 1], reject=True)
    scores = evaluate(victim, TEST, [ONE], device="cpu")
    assert scores.classes == ClassCounts(total=(2, 2, 2), correct=(1, 2, 0), rejected=(0, 0, 2))
    assert scores.backdoors[0].classes == BackdoorClassCounts(eligible=(0, 2, 2), hits=(0, 1, 0), recovered=(0, 1, 0), rejected=(0, 0, 1))


def test_accuracy_over_classes_counts_each_class_alike():
    # three images of class 0, one of class 1, none of class 2: ACC 3/4, over classes (1 + 0) / 2, of the target class 0 all
    scores = evaluate(table([0, 0, 0, 2], [UNSEEN, UNSEEN, UNSEEN, 1]), numbered([0, 0, 0, 1]), [ONE], device="cpu")
    assert (scores.acc, scores.acc_macro, scores.acc_target) == (0.75, 0.5, 1.0)
    assert evaluate(table([0, 0, 0, 2]), numbered([0, 0, 0, 1]), device="cpu").acc_target is None


def test_scores_of_older_results_have_no_counts_by_class():
    scores = Scores(n_test=4, correct=3, rejected=None, loss_clean=1.0)
    assert (scores.acc_macro, scores.acc_target) == (None, None)
    assert "classes" not in scores.to_json()
    assert Scores.from_json(scores.to_json()) == scores


def test_an_observer_who_is_shown_a_result_cannot_change_its_counts():
    victim = table([0, 0, 1, 1, 2, 2], [UNSEEN, UNSEEN, 0, 1, 0, 1])
    scores = evaluate(victim, TEST, [ONE], device="cpu")
    (shown,) = scores.backdoors
    for held, count in (
        (scores, "correct"),
        (scores.classes, "correct"),
        (shown, "hits"),
        (shown.classes, "hits"),
        (StepScores({}, scores), "scores"),
    ):
        with pytest.raises(FrozenInstanceError):
            setattr(held, count, 0)
