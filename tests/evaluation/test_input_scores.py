"""Scores of detectors of inputs, counted by hand."""

from __future__ import annotations

import pytest

from gatecrash.evaluation.inputs import InputScores, Separation, input_scores
from gatecrash.evaluation.intervals import auc_interval, wilson


def test_counts_and_area_by_hand() -> None:
    """Of the 4 x 3 pairs of a triggered and a clean image, 4 + 4 + 1 are in order and 2 are ties: an area of 10/12."""
    clean, triggered = [0.1, 0.2, 0.6], [0.3, 0.6, 0.6, 0.9]
    found = input_scores(clean, triggered, [False, False, True], [False, True, True, True], [True, True, False, True])
    assert (found.clean, found.flagged_clean, found.fpr) == (3, 1, pytest.approx(1 / 3))
    # no more than 1% or 5% of 3 clean images is none of them: only what scores above 0.6 counts
    assert found.triggered == Separation(4, 3, 1, 1, pytest.approx(10 / 12))
    assert (found.triggered.tpr, found.triggered.tpr_at_fpr_1) == (0.75, 0.25)
    # without the third image: pairs of 3 x 3, of which 3 + 3 + 1 are in order and 1 is a tie
    assert found.successful == Separation(3, 2, 1, 1, pytest.approx(7.5 / 9))


def test_a_threshold_may_flag_exactly_one_and_five_in_a_hundred_clean_images() -> None:
    clean = [float(score) for score in range(100)]
    triggered = [98.5, 97.5, 94.5, 93.5]
    found = input_scores(clean, triggered, [False] * 100, [False] * 4, [True] * 4)
    # above 98 lies one clean image, above 94 lie five
    assert (found.triggered.at_fpr_1, found.triggered.at_fpr_5) == (1, 3)


def test_a_benign_victim_has_false_alarms_only() -> None:
    found = input_scores([0.1, 0.9], [], [False, True], [], [])
    assert found == InputScores(2, 1, Separation(0, 0), Separation(0, 0))
    assert {name for name, value in found.measures().items() if value is not None} == {"input_fpr"}
    assert [found.limits(name) for name in ("tpr", "auroc", "tpr_at_fpr_1")] == [None, None, None]


def test_intervals_are_wilsons_of_rates_and_newcombes_of_the_area() -> None:
    found = InputScores(200, 10, Separation(100, 80, 40, 60, 0.9), Separation(50, 45, 30, 40, 0.95))
    assert found.limits("fpr") == wilson(10, 200)
    assert (found.limits("tpr"), found.limits("tpr_successful")) == (wilson(80, 100), wilson(45, 50))
    assert (found.limits("tpr_at_fpr_1"), found.limits("tpr_at_fpr_5_successful")) == (wilson(40, 100), wilson(40, 50))
    assert found.limits("auroc") == auc_interval(0.9, 100, 200)[1:]
    assert found.limits("auroc_successful") == auc_interval(0.95, 50, 200)[1:]
