"""Scores of detectors of training rows, of one model, and of a population of models."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gatecrash.contracts.data import Role
from gatecrash.evaluation.detection import CLEAN, COVER, POISON, DetectionScores, detection, population_scores, verdict_scores


def test_role_values_are_those_of_the_contract():
    assert (CLEAN, POISON, COVER) == (Role.CLEAN, Role.POISON, Role.COVER)


ROLES = np.array([CLEAN] * 4 + [POISON] * 3 + [COVER] * 2, dtype=np.uint8)


def test_detection_counts_poison_and_clean_and_keeps_covers_apart():
    suspects = np.array([1, 0, 0, 0, 1, 1, 0, 1, 0], dtype=bool)
    scores = detection(suspects, None, ROLES)
    assert scores.tpr == pytest.approx(2 / 3)
    assert scores.fpr == pytest.approx(1 / 4)
    assert scores.precision == pytest.approx(2 / 3)  # the flagged cover is neither right nor wrong
    assert scores.tpr_minus_fpr == pytest.approx(2 / 3 - 1 / 4)
    assert scores.accuracy == pytest.approx(5 / 7)  # 2 of 3 poisoned and 3 of 4 clean rows
    assert scores.cover_flagged == pytest.approx(1 / 2)
    assert scores.auroc is None
    assert detection(None, np.arange(9.0), ROLES).accuracy is None


def test_auroc_compares_poison_with_clean_only():
    # Of the 12 pairs, 0.5 wins 3, 0.6 wins 3 and ties 1, 0.2 wins 1 and ties 1: 7 + 2/2. Covers have the extremes and do not matter.
    suspicion = np.array([0.1, 0.2, 0.3, 0.6, 0.5, 0.6, 0.2, 9.0, -9.0])
    assert detection(None, suspicion, ROLES).auroc == pytest.approx(8 / 12)


def test_detection_takes_tensors():
    scores = detection(torch.tensor([True, False]), torch.tensor([2.0, 1.0]), torch.tensor([1, 0], dtype=torch.uint8))
    assert (scores.tpr, scores.fpr, scores.auroc) == (1.0, 0.0, 1.0)


def test_on_a_benign_set_only_the_false_positive_rate_applies():
    scores = detection(np.array([True, False]), np.array([1.0, 0.0]), np.array([CLEAN, CLEAN]))
    assert (scores.fpr, scores.accuracy) == (0.5, 0.5)
    assert [scores.tpr, scores.precision, scores.auroc, scores.tpr_minus_fpr, scores.cover_flagged] == [None] * 5


def test_flagging_nothing_has_no_precision():
    scores = detection(np.zeros(9, dtype=bool), None, ROLES)
    assert (scores.tpr, scores.fpr, scores.precision) == (0.0, 0.0, None)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.sampled_from([CLEAN, POISON, COVER]), min_size=2, max_size=60).filter(lambda r: {CLEAN, POISON} <= set(r)))
def test_perfect_and_inverse_detectors(roles):
    poison = np.array(roles) == POISON
    perfect, inverse = detection(poison, poison.astype(float), roles), detection(~poison, -poison.astype(float), roles)
    assert (perfect.tpr, perfect.fpr, perfect.precision, perfect.auroc, perfect.tpr_minus_fpr) == (1, 0, 1, 1, 1)
    assert (inverse.tpr, inverse.fpr, inverse.precision, inverse.auroc, inverse.tpr_minus_fpr) == (0, 1, 0, 0, -1)


def test_detection_scores_survive_json():
    scores = detection(np.arange(9) > 5, np.arange(9.0), ROLES)
    assert DetectionScores.from_json(json.loads(json.dumps(scores.to_json()))) == scores


def test_a_verdict_names_targets_exactly_or_in_part():
    scores = verdict_scores(True, (3,), {3, 5}, is_backdoored=True)
    assert (scores.right, scores.targets_equal, scores.targets_recall) == (True, False, 0.5)
    scores = verdict_scores(True, (5, 3), {3, 5}, is_backdoored=True)
    assert (scores.right, scores.targets_equal, scores.targets_recall) == (True, True, 1.0)


def test_accusing_every_class_recalls_all_and_equals_nothing():
    scores = verdict_scores(True, range(10), {3}, is_backdoored=True)
    assert (scores.targets_equal, scores.targets_recall) == (False, 1.0)


def test_a_missed_backdoor_is_wrong_and_recalls_nothing():
    scores = verdict_scores(False, (), {3}, is_backdoored=True)
    assert (scores.right, scores.targets_equal, scores.targets_recall) == (False, False, 0.0)


def test_a_benign_model_has_no_targets_to_name():
    assert verdict_scores(False, (), (), is_backdoored=False).right
    wrong = verdict_scores(True, (1,), (), is_backdoored=False)
    assert (wrong.right, wrong.targets_equal, wrong.targets_recall) == (False, None, None)


def test_naming_targets_does_not_apply_to_a_method_that_looks_at_no_classes():
    scores = verdict_scores(True, (), {3}, is_backdoored=True, names_classes=False)
    assert (scores.right, scores.targets_equal, scores.targets_recall) == (True, None, None)


def test_population_scores_by_hand():
    scores = population_scores([0.9, 0.6, 0.4, 0.1, 0.7], [True, True, False, False, False])
    assert (scores.backdoored, scores.benign) == (2, 3)
    assert scores.roc_auc.value == pytest.approx(5 / 6)  # of six pairs only (0.6, 0.7) is out of order
    losses = [-math.log(p) for p in (0.9, 0.6, 0.6, 0.9, 0.3)]
    assert scores.cross_entropy.value == pytest.approx(sum(losses) / 5)
    assert scores.brier.value == pytest.approx((0.01 + 0.16 + 0.16 + 0.01 + 0.49) / 5)
    half = 1.959964 * np.std(losses, ddof=1) / math.sqrt(5)
    assert scores.cross_entropy[1:] == pytest.approx((sum(losses) / 5 - half, sum(losses) / 5 + half), abs=1e-6)


def test_a_coin_has_the_scores_of_a_coin():
    scores = population_scores([0.5] * 8, [True, False] * 4)
    assert scores.roc_auc.value == 0.5
    assert scores.cross_entropy.value == pytest.approx(math.log(2))
    assert scores.brier.value == 0.25


def test_a_few_models_told_apart_perfectly_prove_little():
    few = population_scores([1.0] * 3 + [0.0] * 3, [True] * 3 + [False] * 3)
    many = population_scores([1.0] * 50 + [0.0] * 50, [True] * 50 + [False] * 50)
    assert few.roc_auc.value == many.roc_auc.value == 1.0
    assert few.roc_auc.low < 0.6
    assert many.roc_auc.low > 0.9
    assert few.roc_auc.high == many.roc_auc.high == 1.0


def test_a_certain_and_wrong_detector_keeps_a_finite_cross_entropy():
    scores = population_scores([0.0, 0.0], [True, False])
    assert math.isfinite(scores.cross_entropy.value)
    assert scores.cross_entropy.value > 10
    assert scores.brier.value == 0.5


def test_one_kind_of_model_is_no_population():
    scores = population_scores([0.1, 0.2], [False, False])
    assert scores.roc_auc == scores.cross_entropy == scores.brier == (None, None, None)
    assert population_scores([], []).roc_auc == (None, None, None)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=2, max_size=40).filter(lambda m: len({t for _, t in m}) == 2))
def test_intervals_of_a_population_hold_their_values_and_are_finite(models):
    scores = population_scores(*zip(*models, strict=True))
    for value, low, high in (scores.roc_auc, scores.cross_entropy, scores.brier):
        assert 0 <= low <= value + 1e-8
        assert value - 1e-8 <= high < math.inf
    assert scores.roc_auc.high <= 1
    assert scores.brier.high <= 1
