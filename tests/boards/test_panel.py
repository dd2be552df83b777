"""Rows and columns of a board: which result counts, what it is called, and in which order they stand."""

from __future__ import annotations

from typing import Any

import pytest

from gatecrash.boards.panel import arrange
from gatecrash.records.stage import Stage
from support.cells import cell, undefended


def test_none_comes_first_then_names_as_they_come_and_sweeps_by_value() -> None:
    swept = [(100, "batch"), (8, "batch"), (20.5, "running"), (8, "all")]
    results = undefended()
    for number, (drop, mode) in enumerate(swept):
        stage = Stage(name="zap", config={"drop": drop, "mode": mode})
        results.append(cell("badnets", "zap", 0, key=f"k{number}", defense=[stage]))
    results += [cell("badnets", "cut", 0), cell("none", "late", 0)]
    found = arrange(list(reversed(results)))
    assert found.attacks == ("none", "badnets")
    zaps = tuple(f"zap (drop={drop}, mode={mode})" for drop, mode in ((8, "all"), (8, "batch"), (20.5, "running"), (100, "batch")))
    assert found.defenses == ("none", "late", "cut", *zaps)


def test_of_two_measurements_for_one_place_the_last_counts() -> None:
    old = cell("badnets", "d", 0, asr=0.9, key="old", provenance={"date": "2026-01-01"})
    new = cell("badnets", "d", 0, asr=0.1, key="new", provenance={"date": "2026-02-01"})
    for order in ([old, new], [new, old]):
        assert [one.key for one in arrange(order).cells] == ["new"]


def test_of_two_results_for_one_place_the_later_counts_and_of_one_date_the_last() -> None:
    pair = [cell("badnets", "d", 0, asr=asr, key=key) for asr, key in ((0.9, "first"), (0.1, "second"))]
    assert [one.key for one in arrange(pair).cells] == ["second"]
    dated = [cell("badnets", "d", 0, key=key, provenance={"date": date}) for key, date in (("new", "2026-02-01"), ("old", "2026-01-01"))]
    assert [one.key for one in arrange(dated).cells] == ["new"]


def test_namesakes_are_told_apart_by_the_options_in_which_they_differ() -> None:
    results = [cell("badnets", "d", 0, key=str(value), defense=[Stage(name="d", config={"lr": value, "n": 1})]) for value in (0.1, 0.2)]
    assert arrange(results).defenses == ("d (lr=0.1)", "d (lr=0.2)")


def test_variants_of_one_method_stand_in_the_order_of_their_numbers_and_words_after_numbers() -> None:
    def variant(value: Any) -> Any:
        return cell("badnets", "d", 0, key=str(value), defense=[Stage(name="d", config={"x": value})])

    assert arrange([variant(value) for value in (10, "a", 2, 0.5)]).defenses == ("d (x=0.5)", "d (x=2)", "d (x=10)", "d (x=a)")


def test_variants_of_a_chain_name_the_stage_whose_option_differs() -> None:
    def chain(value: int) -> Any:
        stages = [Stage(name="one", config={"x": 1}), Stage(name="two", config={"y": value})]
        return cell("badnets", "chain", 0, key=str(value), defense=stages)

    assert arrange([chain(3), chain(4)]).defenses == ("one + two (two.y=3)", "one + two (two.y=4)")


@pytest.mark.parametrize(
    ("gives", "repairs"), [(["classifier"], True), (["reject"], True), (["verdict"], False), ([], False), (None, True)]
)
def test_a_defense_repairs_if_it_hands_a_classifier_back_or_nobody_says_what_it_gives(gives: Any, repairs: bool) -> None:
    assert arrange([cell("badnets", "d", 0, gives=gives)]).repairs("d") is repairs


def test_nothing_is_no_repair() -> None:
    assert arrange([cell("badnets", "none", 0, gives=None)]).repairs("none") is False
