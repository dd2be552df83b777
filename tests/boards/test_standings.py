"""Ranks of defenses and attacks."""

from __future__ import annotations

import re

import pytest

from gatecrash.boards.panel import arrange
from gatecrash.boards.recount import recount
from gatecrash.boards.standings import attack_standings, defense_standings
from gatecrash.evaluation.harm import HarmCounts
from gatecrash.evaluation.metrics import LANDED, landed
from gatecrash.records.result import Result
from support.boards import leaderboard_text, page_text
from support.cells import cell, undefended


def ranks(results: list[Result]) -> dict[str, list[tuple[str, int | None]]]:
    return {access: [(one.defense, one.rank) for one in members] for access, members in defense_standings(arrange(results)).items()}


def test_defenses_share_a_rank_where_no_difference_is_established() -> None:
    results = undefended()
    for name, rates in {"good": (0.0, 0.02, 0.01), "alike": (0.02, 0.0, 0.02), "bad": (0.5, 0.6, 0.5)}.items():
        results += [cell("badnets", name, seed, asr=asr) for seed, asr in enumerate(rates)]
    assert ranks(results) == {"model + clean data": [("good", 1), ("alike", 1), ("bad", 3)]}


def test_a_better_mean_never_stands_below_a_worse_one() -> None:
    """`noisy` has the best mean, yet only `steady` is established to be better than `poor`."""
    results = undefended()
    rates = {"poor": (0.4, 0.42, 0.41), "steady": (0.2, 0.22, 0.21), "noisy": (0.0, 0.55, 0.02), "worst": (0.9, 0.91, 0.9)}
    for name, asrs in rates.items():
        results += [cell("badnets", name, seed, asr=asr) for seed, asr in enumerate(asrs)]
    assert ranks(results) == {"model + clean data": [("noisy", 1), ("steady", 1), ("poor", 3), ("worst", 4)]}
    # no one is established to be better than `loose`, which has the lowest mean
    results = undefended()
    for name, asrs in {"loose": (0.3, 1.0, 0.9), "second": (0.5, 0.52, 0.51), "first": (0.48, 0.5, 0.49)}.items():
        results += [cell("badnets", name, seed, asr=asr) for seed, asr in enumerate(asrs)]
    assert ranks(results) == {"model + clean data": [("first", 1), ("second", 2), ("loose", 2)]}


def test_defenses_are_ranked_within_their_access_class() -> None:
    results = undefended()
    results += [cell("badnets", "pruner", seed, asr=0.5 + 0.01 * seed) for seed in range(3)]
    results += [cell("badnets", "filter", seed, asr=0.01 * seed, access="training data") for seed in range(3)]
    assert ranks(results) == {"model + clean data": [("pruner", 1)], "training data": [("filter", 1)]}
    assert "**Training data**" in leaderboard_text(results)


def test_one_seed_or_a_lost_cell_gives_no_rank() -> None:
    assert ranks([*undefended(1), cell("badnets", "a", 0, asr=0.1)]) == {"model + clean data": [("a", None)]}
    results = undefended()
    results += [cell("badnets", "whole", seed, asr=0.3 + 0.01 * seed) for seed in range(3)]
    results += [cell("badnets", "half", seed, asr=0.01 * seed) for seed in range(2)]
    results += [cell("badnets", "half", 2, status="failed", error="out of memory", measures={"der": None})]
    assert ranks(results) == {"model + clean data": [("whole", 1), ("half", None)]}
    shown = page_text(results)
    assert "half (1 of 3 victims lacking)" in shown
    assert "- badnets × half, seed 2: failed: out of memory" in shown
    assert "- none × half, seed 0: missing" in shown


def test_defenses_without_a_rank_come_after_those_with_one() -> None:
    cells = [*undefended(), *(cell("badnets", "weak", seed, asr=0.9) for seed in range(3)), cell("badnets", "lacking", 0, asr=0.0)]
    (standings,) = defense_standings(arrange(cells)).values()
    assert [(one.defense, one.rank, one.lacking) for one in standings] == [("weak", 1, 0), ("lacking", None, 2)]


def test_attacks_that_did_not_land_count_for_nothing() -> None:
    results = undefended(attacks=("badnets", "weak"))
    results = [one for one in results if one.attack.name != "weak"] + [
        cell("weak", "none", seed, before=(0.9, 0.6), floor=0.2) for seed in range(3)
    ]
    results += [cell("badnets", "d", seed, asr=0.1) for seed in range(3)]
    results += [cell("weak", "d", seed, asr=0.0, before=(0.9, 0.6), floor=0.2) for seed in range(3)]
    standing = defense_standings(arrange(results))["model + clean data"][0]
    assert standing.der.value == pytest.approx(0.95)  # badnets alone: (1 - 0.1 + 1) / 2
    assert [one.attack for one in attack_standings(arrange(results))] == ["badnets"]
    assert re.search(r"\| weak .*\| 0 of 3 ", leaderboard_text(results))


def test_attacks_are_ranked_by_the_defenses_that_they_survive() -> None:
    results = undefended(attacks=("badnets", "blend", "tough"))
    left = {"badnets": (0.0, 0.1), "blend": (0.1, 0.0), "tough": (0.1, 0.8)}
    for attack, rates in left.items():
        for defense, asr in zip(("one", "two"), rates, strict=True):
            results += [cell(attack, defense, seed, asr=asr) for seed in range(3)]
        results += [cell(attack, "detector", seed, gives=["verdict"]) for seed in range(3)]
    found = [(one.attack, one.rank, one.survived, one.met, one.hardest) for one in attack_standings(arrange(results))]
    assert found == [("tough", 1, 1, 2, "one"), ("badnets", 2, 0, 2, "one"), ("blend", 2, 0, 2, "two")]
    assert "detector" not in [name for members in ranks(results).values() for name, _ in members]


def test_attacks_are_ranked_by_the_share_of_defenses_that_they_survive() -> None:
    """`few` survives the only defense it met, `many` two of three: one of one is more."""
    cells = [one for attack in ("few", "many") for one in undefended(attacks=(attack,))]
    cells += [cell("few", "a", seed, asr=1.0) for seed in range(3)]
    cells += [cell("many", defense, seed, asr=asr) for defense, asr in (("a", 1.0), ("b", 1.0), ("c", 0.0)) for seed in range(3)]
    assert [(one.attack, one.rank, one.survived, one.met) for one in attack_standings(arrange(cells))] == [
        ("few", 1, 1, 1),
        ("many", 2, 2, 3),
    ]


def test_an_attack_lands_at_the_limit_itself() -> None:
    assert landed(LANDED, 0.0) is True
    assert landed(LANDED - 1e-6, 0.0) is False


def test_the_worst_attack_is_the_one_with_the_lowest_mean_der() -> None:
    cells = [*undefended(attacks=("easy", "hard"))]
    cells += [cell(attack, "d", seed, asr=asr) for attack, asr in (("easy", 0.0), ("hard", 0.8)) for seed in range(3)]
    ((standing,),) = defense_standings(arrange(cells)).values()
    assert (standing.worst, standing.worst_der) == ("hard", pytest.approx(0.6))  # ASR drop 0.2: (0.2 + 1) / 2


def harmful(defense: str, seed: int, lost: float, images: int = 1000) -> Result:
    counts = HarmCounts(images, round(lost * images), 0)
    measures = {"asr": None, "asr_before": None, "asr_floor": None, "ra": None, "der": None, "acc_lost": counts.rate, "harm_scores": counts}
    return cell("disrupt", defense, seed, measures=measures)


def test_an_attack_on_accuracy_lands_and_survives_by_the_accuracy_that_it_costs() -> None:
    """It has no ASR: it was shown as landed in 0 of 3 victims."""
    results = [*undefended(), *(cell("badnets", "good", seed, asr=0.0) for seed in range(3))]
    for defense, lost in (("none", 0.3), ("good", 0.02), ("poor", 0.25)):
        results += [harmful(defense, seed, lost) for seed in range(3)]
    panel = arrange(results)
    assert panel.harmed == {"disrupt-0", "disrupt-1", "disrupt-2"}
    assert panel.landed == {"badnets-0", "badnets-1", "badnets-2"}
    assert [(one.attack, one.survived, one.met, one.hardest) for one in attack_standings(panel)] == [
        ("disrupt", 1, 2, "good"),
        ("badnets", 0, 1, "good"),
    ]
    assert ranks(results) == {"model + clean data": [("good", 1)]}  # DER needs a backdoor
    shown = page_text(results)
    assert re.search(r"\| disrupt .*\| 30\.0 .*\| 3 of 3 ", shown)
    assert "## Attacks without a trigger" in shown
    assert "Attacks without a trigger" not in page_text(undefended())


def test_a_cell_without_the_harm_of_its_victim_or_with_impossible_counts_of_it_does_not_stop_a_board() -> None:
    results = [*undefended(), *(harmful("none", seed, 0.3) for seed in range(3)), cell("disrupt", "good", 0, measures={"asr": None})]
    assert "| disrupt" in page_text(results)
    impossible = HarmCounts(10, 11, 0)
    results = [*undefended(), cell("disrupt", "none", 0, measures={"asr_before": None, "acc_lost": 1.1, "harm_scores": impossible})]
    assert arrange(results).harmed == frozenset()
    assert "| disrupt" in page_text(results)
    assert "more images harmed than shown" in recount(results)["disrupt-none-0"]


def test_little_harm_has_not_landed() -> None:
    assert arrange([*undefended(), harmful("none", 0, 0.05), harmful("none", 1, 0.2, images=10)]).harmed == frozenset()
