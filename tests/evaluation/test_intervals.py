"""Confidence intervals, compared with published limits and with scipy."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from gatecrash.evaluation.detection import population_scores
from gatecrash.evaluation.intervals import prediction_interval, t_interval, wilson


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


def test_auc_limits_are_where_the_hanley_mcneil_variance_puts_them():
    """Newcombe 2006, method 5: the distance to each limit is z times the standard error at that limit."""
    truth, probability = [True] * 6 + [False] * 10, [0.9, 0.8, 0.7, 0.6, 0.35, 0.3, 0.65, 0.5, 0.4, 0.32, 0.2, 0.2, 0.1, 0.1, 0.05, 0]
    area, *limits = population_scores(probability, truth).roc_auc
    for limit in limits:
        variance = limit * (1 - limit) * (1 + 7 * (1 - limit) / (2 - limit) + 7 * limit / (1 + limit)) / 60
        assert abs(area - limit) == pytest.approx(1.959964 * math.sqrt(variance), rel=1e-4)
    assert limits[0] < area < limits[1]
