"""Rows and columns of a board: which result counts, and in which order they stand."""

from __future__ import annotations

from typing import Any

import pytest

from gatecrash.boards.panel import panel
from gatecrash.boards.standings import attack_standings, defense_standings
from gatecrash.evaluation.metrics import LANDED, landed
from gatecrash.records.stage import Stage
from support.cells import cell, undefended


def test_of_two_results_for_one_place_the_later_counts_and_of_one_date_the_last() -> None:
    pair = [cell("badnets", "d", 0, asr=asr, key=key) for asr, key in ((0.9, "first"), (0.1, "second"))]
    assert [one.key for one in panel(pair).cells] == ["second"]
    dated = [cell("badnets", "d", 0, key=key, provenance={"date": date}) for key, date in (("new", "2026-02-01"), ("old", "2026-01-01"))]
    assert [one.key for one in panel(dated).cells] == ["new"]


def test_variants_of_one_method_stand_in_the_order_of_their_numbers_and_words_after_numbers() -> None:
    def variant(value: Any) -> Any:
        return cell("badnets", "d", 0, key=str(value), defense=[Stage(name="d", config={"x": value})])

    assert panel([variant(value) for value in (10, "a", 2, 0.5)]).defenses == ("d (x=0.5)", "d (x=2)", "d (x=10)", "d (x=a)")


def test_variants_of_a_chain_name_the_stage_whose_option_differs() -> None:
    def chain(value: int) -> Any:
        stages = [Stage(name="one", config={"x": 1}), Stage(name="two", config={"y": value})]
        return cell("badnets", "chain", 0, key=str(value), defense=stages)

    assert panel([chain(3), chain(4)]).defenses == ("one + two (two.y=3)", "one + two (two.y=4)")


@pytest.mark.parametrize(
    ("gives", "repairs"), [(["classifier"], True), (["reject"], True), (["verdict"], False), ([], False), (None, True)]
)
def test_a_defense_repairs_if_it_hands_a_classifier_back_or_nobody_says_what_it_gives(gives: Any, repairs: bool) -> None:
    assert panel([cell("badnets", "d", 0, gives=gives)]).repairs("d") is repairs


def test_nothing_is_no_repair() -> None:
    assert panel([cell("badnets", "none", 0, gives=None)]).repairs("none") is False


def test_defenses_without_a_rank_come_after_those_with_one() -> None:
    cells = [*undefended(), *(cell("badnets", "weak", seed, asr=0.9) for seed in range(3)), cell("badnets", "lacking", 0, asr=0.0)]
    (standings,) = defense_standings(panel(cells)).values()
    assert [(one.defense, one.rank, one.lacking) for one in standings] == [("weak", 1, 0), ("lacking", None, 2)]


def test_attacks_are_ranked_by_the_share_of_defenses_that_they_survive() -> None:
    """`few` survives the only defense it met, `many` two of three: one of one is more."""
    cells = [one for attack in ("few", "many") for one in undefended(attacks=(attack,))]
    cells += [cell("few", "a", seed, asr=1.0) for seed in range(3)]
    cells += [cell("many", defense, seed, asr=asr) for defense, asr in (("a", 1.0), ("b", 1.0), ("c", 0.0)) for seed in range(3)]
    assert [(one.attack, one.rank, one.survived, one.met) for one in attack_standings(panel(cells))] == [
        ("few", 1, 1, 1),
        ("many", 2, 2, 3),
    ]


def test_an_attack_lands_at_the_limit_itself() -> None:
    assert landed(LANDED, 0.0) is True
    assert landed(LANDED - 1e-6, 0.0) is False
