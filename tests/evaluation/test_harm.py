"""Attacks without a trigger: what they do to untouched images, against the benign victim on the same images."""

from __future__ import annotations

import pytest

from gatecrash import Goal
from gatecrash.evaluation.exam import evaluate_beside
from gatecrash.evaluation.harm import HarmCounts
from gatecrash.evaluation.intervals import paired_interval
from gatecrash.evaluation.metrics import HARMED, harmed
from support.written_answers import TEST, table


def test_accuracy_lost_is_counted_image_by_image() -> None:
    # labels 0 0 1 1 2 2: the victim loses images 1, 2, 4 and gains 5
    scores, benign, harm = evaluate_beside(table([0, 1, 0, 1, 0, 2]), table([0, 0, 1, 1, 2, 0]), TEST, device="cpu")
    assert harm == HarmCounts(images=6, by_victim=3, by_benign=1)
    assert (scores.acc, benign.acc, harm.rate) == (pytest.approx(3 / 6), pytest.approx(5 / 6), pytest.approx(2 / 6))


def test_a_rejected_image_is_a_lost_one() -> None:
    _, _, harm = evaluate_beside(table([0, 0, 1, 1, 2, 3], reject=True), table([0, 0, 1, 1, 2, 2]), TEST, device="cpu")
    assert harm == HarmCounts(6, 1, 0)


def test_source_to_target_counts_the_sources_images_alone() -> None:
    # of class 1 the victim sends both to 2, the benign victim one; of class 0 it sends one to 2, which nobody asked for
    goals = [Goal.one_to_one(3, 1, 2)]
    _, _, harm = evaluate_beside(table([0, 2, 2, 2, 2, 2]), table([0, 0, 1, 2, 2, 2]), TEST, goals, device="cpu")
    assert (harm, harm.rate) == (HarmCounts(2, 1, 0), 0.5)


def test_the_interval_is_walds_with_half_an_item_in_each_cell() -> None:
    # 30 and 10 of 200: (20 -+ 1.96 sqrt(41 - 400 / 202)) / 202
    assert paired_interval(30, 10, 200) == pytest.approx((0.03838, 0.15964), abs=5e-5)
    assert paired_interval(0, 0, 100) == pytest.approx((-0.01922, 0.01922), abs=5e-5)
    assert paired_interval(0, 0, 0) is None


def test_harm_lands_at_the_limit_where_its_interval_leaves_out_zero() -> None:
    assert harmed(HARMED, (0.05, 0.15)) is True
    assert harmed(HARMED - 1e-9, (0.05, 0.15)) is False
    assert harmed(0.4, (-0.01, 0.8)) is False
    assert harmed(None, None) is None
