"""Every measure against numbers that can be worked by hand or looked up, and None where there is nothing to measure."""

from __future__ import annotations

import json
import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from gatecrash.contracts.data import Role
from gatecrash.evaluation.detection import CLEAN, COVER, POISON, DetectionScores, detection, population_scores, verdict_scores
from gatecrash.evaluation.intervals import prediction_interval, t_interval, wilson
from gatecrash.evaluation.metrics import der, landed, mitigation_score


def test_the_arithmetic_needs_no_torch():
    code = (
        "import sys, gatecrash.evaluation.metrics, gatecrash.evaluation.detection; "
        "sys.exit('torch' in sys.modules or 'sklearn' in sys.modules or 'scipy' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_role_values_are_those_of_the_contract():
    assert (CLEAN, POISON, COVER) == (Role.CLEAN, Role.POISON, Role.COVER)


# --- intervals ---------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("successes", "total", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718), (0, 10, 0.0, 0.2775)],
)
def test_wilson_gives_the_published_limits(successes, total, low, high):
    """The first four are Newcombe 1998, table I, method 3."""
    assert wilson(successes, total) == pytest.approx((low, high), abs=5e-5)


@settings(deadline=None)
@given(st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), st.sampled_from([0.9, 0.95, 0.99]))
def test_wilson_agrees_with_scipy_and_stays_in_bounds(counts, confidence):
    successes, total = counts
    low, high = wilson(successes, total, confidence)
    expected = binomtest(successes, total).proportion_ci(confidence, method="wilson")
    assert (low, high) == pytest.approx((expected.low, expected.high), abs=1e-12)
    assert 0 <= low <= successes / total <= high <= 1


def test_wilson_of_nothing_is_none_and_nonsense_is_an_error():
    assert wilson(0, 0) is None
    with pytest.raises(ValueError, match="3 successes out of 2"):
        wilson(3, 2)


def test_t_interval_over_three_seeds():
    # mean 0.90, standard deviation 0.02, t(2, 97.5%) = 4.30265: half a width of 4.30265 * 0.02 / sqrt(3) = 0.049683
    assert t_interval([0.88, 0.90, 0.92]) == pytest.approx((0.90, 0.850317, 0.949683), abs=1e-6)


def test_prediction_interval_over_three_seeds():
    # s = 0.02, t(2) = 4.302653: one more seed lies within 4.302653 * 0.02 * sqrt(4 / 3) of the mean
    assert prediction_interval([0.88, 0.90, 0.92]) == pytest.approx((0.90, 0.800634, 0.999366), abs=1e-6)
    assert prediction_interval([0.1, 0.9])[1:] == (0.0, 1.0)
    assert prediction_interval([0.7]) == (0.7, None, None)
    assert prediction_interval([]) == (None, None, None)


def test_t_interval_is_clipped_to_rates_and_silent_below_two_seeds():
    assert t_interval([0.5, 1.0])[1:] == (0.0, 1.0)
    assert t_interval([0.7]) == (0.7, None, None)
    assert t_interval([]) == (None, None, None)


# --- defenses ----------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("acc", "asr", "expected"),
    [
        ((0.90, 0.90), (1.0, 1.0), 0.5),  # nothing done
        ((0.90, 0.90), (1.0, 0.0), 1.0),  # the backdoor gone at no price
        ((0.90, 0.80), (1.0, 0.2), 0.85),
        ((0.90, 0.95), (0.6, 0.9), 0.5),  # gains of either kind count as no drop
        ((0.90, 0.00), (0.0, 0.0), 0.05),  # ruined for nothing
    ],
)
def test_der(acc, asr, expected):
    assert der(*acc, *asr) == pytest.approx(expected)


def test_rejecting_everything_has_a_der_above_one_half():
    """Hence it is never shown without RA and the clean reject rate."""
    assert der(0.92, 0.0, 1.0, 0.0) == pytest.approx(0.54)


def test_mitigation_score_is_asr_drop_per_acc_drop():
    assert mitigation_score(0.90, 0.88, 1.0, 0.2) == pytest.approx(40)
    assert mitigation_score(0.90, 0.80, 0.5, 0.6) == pytest.approx(-1)


@pytest.mark.parametrize("acc_after", [0.90, 0.91])
def test_mitigation_score_is_none_where_acc_did_not_drop(acc_after):
    assert mitigation_score(0.90, acc_after, 1.0, 0.0) is None


def test_without_a_backdoor_nothing_is_mitigated():
    assert der(0.9, 0.8, None, None) is None
    assert mitigation_score(0.9, 0.8, None, None) is None
    assert landed(None, None) is None


def test_an_attack_lands_by_what_it_gains_over_a_benign_model():
    assert landed(0.99, 0.02)
    assert not landed(0.99, 0.60)
    assert not landed(0.40, 0.0)


# --- detection of training samples -------------------------------------------------------------------------------------------------------

ROLES = np.array([CLEAN] * 4 + [POISON] * 3 + [COVER] * 2, dtype=np.uint8)


def test_detection_counts_poison_and_clean_and_keeps_covers_apart():
    suspects = np.array([1, 0, 0, 0, 1, 1, 0, 1, 0], dtype=bool)
    scores = detection(suspects, None, ROLES)
    assert scores.tpr == pytest.approx(2 / 3)
    assert scores.fpr == pytest.approx(1 / 4)
    assert scores.precision == pytest.approx(2 / 3)  # the flagged cover is neither right nor wrong
    assert scores.tpr_minus_fpr == pytest.approx(2 / 3 - 1 / 4)
    assert scores.cover_flagged == pytest.approx(1 / 2)
    assert scores.auroc is None


def test_auroc_compares_poison_with_clean_only():
    # Of the 12 pairs, 0.5 wins 3, 0.6 wins 3 and ties 1, 0.2 wins 1 and ties 1: 7 + 2/2. Covers have the extremes and do not matter.
    suspicion = np.array([0.1, 0.2, 0.3, 0.6, 0.5, 0.6, 0.2, 9.0, -9.0])
    assert detection(None, suspicion, ROLES).auroc == pytest.approx(8 / 12)


def test_detection_takes_tensors():
    scores = detection(torch.tensor([True, False]), torch.tensor([2.0, 1.0]), torch.tensor([1, 0], dtype=torch.uint8))
    assert (scores.tpr, scores.fpr, scores.auroc) == (1.0, 0.0, 1.0)


def test_on_a_benign_set_only_the_false_positive_rate_applies():
    scores = detection(np.array([True, False]), np.array([1.0, 0.0]), np.array([CLEAN, CLEAN]))
    assert scores.fpr == 0.5
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


# --- verdicts on models ------------------------------------------------------------------------------------------------------------------


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


# --- detectors over a population of models -----------------------------------------------------------------------------------------------


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


def test_auc_limits_are_where_the_hanley_mcneil_variance_puts_them():
    """Newcombe 2006, method 5: the distance to each limit is z times the standard error at that limit."""
    truth, probability = [True] * 6 + [False] * 10, [0.9, 0.8, 0.7, 0.6, 0.35, 0.3, 0.65, 0.5, 0.4, 0.32, 0.2, 0.2, 0.1, 0.1, 0.05, 0]
    area, *limits = population_scores(probability, truth).roc_auc
    for limit in limits:
        variance = limit * (1 - limit) * (1 + 7 * (1 - limit) / (2 - limit) + 7 * limit / (1 + limit)) / 60
        assert abs(area - limit) == pytest.approx(1.959964 * math.sqrt(variance), rel=1e-4)
    assert limits[0] < area < limits[1]


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
