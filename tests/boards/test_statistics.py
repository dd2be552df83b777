"""Seeds are the unit of all statistics, and defenses are compared on the same victims."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatecrash.boards.fields import measured
from gatecrash.boards.statistics import NO_DIFFERENCE, Difference, over_seeds, paired
from gatecrash.evaluation.intervals import Interval, wilson
from support.cells import cell


def test_an_interval_is_over_seeds_not_over_cells() -> None:
    cells = [
        cell(attack, "d", seed, asr=asr)
        for seed, pair in enumerate([(0.0, 0.2), (0.2, 0.4)])
        for attack, asr in zip("ab", pair, strict=True)
    ]
    found = over_seeds(cells, "asr")
    # seed means 0.1 and 0.3: mean 0.2, t(0.975, 1) = 12.706 times 0.1414 / sqrt 2 = 0.1
    assert found.value == pytest.approx(0.2)
    assert found.low == 0.0
    assert found.high == pytest.approx(1.0)
    assert over_seeds(cells[:2], "asr") == (pytest.approx(0.1), None, None)


def test_paired_differences_see_what_overlapping_intervals_hide() -> None:
    """Both defenses vary widely with the victim, but one is always 0.1 better on the same victim."""
    better = [cell("badnets", "better", seed, asr=asr) for seed, asr in enumerate((0.0, 0.4, 0.79))]
    worse = [cell("badnets", "worse", seed, asr=asr) for seed, asr in enumerate((0.1, 0.5, 0.9))]
    assert over_seeds(better, "asr").high > over_seeds(worse, "asr").low
    found = paired(better, worse, "asr")
    # differences -0.10, -0.10, -0.11: mean -0.10333, t(0.975, 2) = 4.3027 times 0.0057735 / sqrt 3
    assert found.mean == (pytest.approx(-0.103333, abs=1e-6), pytest.approx(-0.117676, abs=1e-6), pytest.approx(-0.088991, abs=1e-6))
    assert (found.sign, found.victims, found.seeds) == (-1, 3, 3)
    assert paired(better, better, "asr").sign == 0


def test_only_the_same_victims_are_paired() -> None:
    first = [cell("badnets", "a", seed, asr=0.1) for seed in range(3)]
    retrained = [cell("badnets", "b", seed, asr=0.2, weights="other") for seed in range(3)]
    assert paired(first, retrained, "asr").victims == 0
    assert paired(first, retrained, "asr").mean.value is None
    one_seed = paired(first[:1], [cell("badnets", "b", 0, asr=0.2)], "asr")
    assert (one_seed.seeds, one_seed.mean.low, one_seed.sign) == (1, None, 0)


def test_only_what_is_smaller_than_rounding_is_no_difference() -> None:
    def sign(mean: float) -> int:
        return Difference(Interval(mean, mean / 2, mean * 2), victims=3, seeds=3).sign

    assert (sign(NO_DIFFERENCE), sign(0.9 * NO_DIFFERENCE)) == (1, 0)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=2, max_size=6))
def test_swapping_the_defenses_swaps_the_sign(pairs: list[tuple[float, float]]) -> None:
    first = [cell("badnets", "a", seed, asr=one) for seed, (one, _) in enumerate(pairs)]
    second = [cell("badnets", "b", seed, asr=other) for seed, (_, other) in enumerate(pairs)]
    there, back = paired(first, second, "asr"), paired(second, first, "asr")
    assert there.sign == -back.sign
    assert there.mean.value == pytest.approx(-back.mean.value)


@pytest.mark.parametrize(
    ("successes", "total", "shown"),
    [
        (0, 80, "0.0 [0.0, 4.6]"),  # z^2 / (n + z^2) = 3.84 / 83.84: half of its width, 2.3, would not reach the upper limit
        (80, 80, "100.0 [95.4, 100.0]"),
        (1, 2, "50.0 [9.5, 90.5]"),  # 0.5 -+ 1.96 sqrt(0.25 / 2 + 3.84 / 16) / (1 + 3.84 / 2), around 0.5
    ],
)
def test_an_interval_over_images_is_shown_by_its_own_limits(successes: int, total: int, shown: str) -> None:
    measures = {"asr_interval": wilson(successes, total)}
    assert measured([cell("badnets", "d", asr=successes / total, measures=measures)], "asr").text == shown


@pytest.mark.parametrize(
    ("rates", "shown"),
    [
        ([0.7, 0.9], "80.0 [0.0, 100.0]"),  # 0.8 -+ 12.706 * 0.1414 / sqrt(2) = 0.8 -+ 1.27, clipped
        ([0.79, 0.81], "80.0 [67.3, 92.7]"),  # -+ 12.706 * 0.01
        ([0.8, 0.8], "80.0 [80.0, 80.0]"),
    ],
)
def test_an_interval_of_two_seeds_is_the_t_interval_within_0_and_1(rates: list[float], shown: str) -> None:
    assert measured([cell("badnets", "d", seed, asr=rate) for seed, rate in enumerate(rates)], "asr").text == shown
