"""What a board says of results: statistics over seeds, ranks that are earned, and text that no plugin can break."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatecrash.boards.leaderboard import board
from gatecrash.boards.page import page
from gatecrash.boards.panel import panel
from gatecrash.boards.sections import matrix
from gatecrash.boards.standings import attack_standings, defense_standings
from gatecrash.boards.statistics import over_seeds, paired
from gatecrash.boards.text import escape, table
from gatecrash.records.result import Result
from gatecrash.records.stage import Stage
from gatecrash.records.store import Store
from support.cells import cell, undefended


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


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=2, max_size=6))
def test_swapping_the_defenses_swaps_the_sign(pairs: list[tuple[float, float]]) -> None:
    first = [cell("badnets", "a", seed, asr=one) for seed, (one, _) in enumerate(pairs)]
    second = [cell("badnets", "b", seed, asr=other) for seed, (_, other) in enumerate(pairs)]
    there, back = paired(first, second, "asr"), paired(second, first, "asr")
    assert there.sign == -back.sign
    assert there.mean.value == pytest.approx(-back.mean.value)


def ranks(results: list[Result]) -> dict[str, list[tuple[str, int | None]]]:
    return {access: [(one.defense, one.rank) for one in members] for access, members in defense_standings(panel(results)).items()}


def test_defenses_share_a_rank_where_no_difference_is_established() -> None:
    results = undefended()
    for name, rates in {"good": (0.0, 0.02, 0.01), "alike": (0.02, 0.0, 0.02), "bad": (0.5, 0.6, 0.5)}.items():
        results += [cell("badnets", name, seed, asr=asr) for seed, asr in enumerate(rates)]
    assert ranks(results) == {"model + clean data": [("good", 1), ("alike", 1), ("bad", 3)]}


def test_defenses_are_ranked_within_their_access_class() -> None:
    results = undefended()
    results += [cell("badnets", "pruner", seed, asr=0.5 + 0.01 * seed) for seed in range(3)]
    results += [cell("badnets", "filter", seed, asr=0.01 * seed, access="training data") for seed in range(3)]
    assert ranks(results) == {"model + clean data": [("pruner", 1)], "training data": [("filter", 1)]}
    assert "**Training data**" in board(results, "x")


def test_one_seed_or_a_lost_cell_gives_no_rank() -> None:
    assert ranks([*undefended(1), cell("badnets", "a", 0, asr=0.1)]) == {"model + clean data": [("a", None)]}
    results = undefended()
    results += [cell("badnets", "whole", seed, asr=0.3 + 0.01 * seed) for seed in range(3)]
    results += [cell("badnets", "half", seed, asr=0.01 * seed) for seed in range(2)]
    results += [cell("badnets", "half", 2, status="failed", error="out of memory", measures={"der": None})]
    assert ranks(results) == {"model + clean data": [("whole", 1), ("half", None)]}
    shown = page("b", results)
    assert "half (1 of 3 victims lacking)" in shown
    assert "- badnets × half, seed 2: failed: out of memory" in shown
    assert "- none × half, seed 0: missing" in shown


def test_attacks_that_did_not_land_count_for_nothing() -> None:
    results = undefended(attacks=("badnets", "weak"))
    results = [one for one in results if one.attack.name != "weak"] + [
        cell("weak", "none", seed, before=(0.9, 0.6), floor=0.2) for seed in range(3)
    ]
    results += [cell("badnets", "d", seed, asr=0.1) for seed in range(3)]
    results += [cell("weak", "d", seed, asr=0.0, before=(0.9, 0.6), floor=0.2) for seed in range(3)]
    standing = defense_standings(panel(results))["model + clean data"][0]
    assert standing.der.value == pytest.approx(0.95)  # badnets alone: (1 - 0.1 + 1) / 2
    assert [one.attack for one in attack_standings(panel(results))] == ["badnets"]
    assert re.search(r"\| weak .*\| 0 of 3 ", board(results, "x"))


def test_attacks_are_ranked_by_the_defenses_that_they_survive() -> None:
    results = undefended(attacks=("badnets", "blend", "tough"))
    left = {"badnets": (0.0, 0.1), "blend": (0.1, 0.0), "tough": (0.1, 0.8)}
    for attack, rates in left.items():
        for defense, asr in zip(("one", "two"), rates, strict=True):
            results += [cell(attack, defense, seed, asr=asr) for seed in range(3)]
        results += [cell(attack, "detector", seed, gives=["verdict"]) for seed in range(3)]
    found = [(one.attack, one.rank, one.survived, one.met, one.hardest) for one in attack_standings(panel(results))]
    assert found == [("tough", 1, 1, 2, "one"), ("badnets", 2, 0, 2, "one"), ("blend", 2, 0, 2, "two")]
    assert "detector" not in [name for members in ranks(results).values() for name, _ in members]


def test_detectors_are_scored_on_backdoored_and_on_benign_victims() -> None:
    results = undefended()
    for seed in range(3):
        verdict = {
            "verdict": True,
            "verdict_probability": 0.9,
            "verdict_targets_equal": seed != 0,
            "detection_tpr": 0.8,
            "detection_fpr": 0.1,
        }
        results.append(cell("badnets", "detector", seed, gives=["verdict", "suspects"], measures=verdict))
        false_alarm = {"verdict": seed == 0, "verdict_probability": 0.4, "detection_fpr": 0.05}
        results.append(cell("none", "detector", seed, gives=["verdict", "suspects"], measures=false_alarm))
    shown = page("b", results)
    assert re.search(r"\| detector +\| 3 of 3 +\| 2 of 3 +\| 1 of 3 +\| 1\.000 \[", shown)
    assert re.search(r"\| detector +\| badnets +\| 80\.0 ± 0\.0 +\| 10\.0 ± 0\.0", shown)
    assert re.search(r"\| detector +\| none +\| +\| 5\.0 ± 0\.0", shown)


def test_the_matrix_shows_seeds_failures_and_gaps_as_such() -> None:
    results = undefended()
    results += [cell("badnets", "d", 0, asr=0.2), cell("badnets", "d", 1, status="failed", error="x")]
    results += [cell("none", "d", seed, status="not-applicable") for seed in range(3)]
    rows = matrix(panel(results)).splitlines()
    assert re.search(r"\| none +\| 90\.0 ± 0\.0 +\| not-applicable +\|", rows[2])
    assert re.search(r"90\.0 / 20\.0 \(n=1, 1 failed, 1 missing\)", rows[3])


def test_none_comes_first_then_names_as_they_come_and_sweeps_by_value() -> None:
    swept = [(100, "batch"), (8, "batch"), (20.5, "running"), (8, "all")]
    results = undefended()
    for number, (drop, mode) in enumerate(swept):
        stage = Stage(name="zap", config={"drop": drop, "mode": mode})
        results.append(cell("badnets", "zap", 0, key=f"k{number}", defense=[stage]))
    results += [cell("badnets", "cut", 0), cell("none", "late", 0)]
    found = panel(list(reversed(results)))
    assert found.attacks == ("none", "badnets")
    zaps = tuple(f"zap (drop={drop}, mode={mode})" for drop, mode in ((8, "all"), (8, "batch"), (20.5, "running"), (100, "batch")))
    assert found.defenses == ("none", "late", "cut", *zaps)


def test_of_two_measurements_for_one_place_the_last_counts() -> None:
    old = cell("badnets", "d", 0, asr=0.9, key="old", provenance={"date": "2026-01-01"})
    new = cell("badnets", "d", 0, asr=0.1, key="new", provenance={"date": "2026-02-01"})
    for order in ([old, new], [new, old]):
        assert [one.key for one in panel(order).cells] == ["new"]


def test_namesakes_are_told_apart_by_the_options_in_which_they_differ() -> None:
    results = [cell("badnets", "d", 0, key=str(value), defense=[Stage(name="d", config={"lr": value, "n": 1})]) for value in (0.1, 0.2)]
    assert panel(results).defenses == ("d (lr=0.1)", "d (lr=0.2)")


HOSTILE = "a|b\n| c | `x` <script>alert(1)</script> [l](http://e) **b** \x1b[31m \u202e"


@pytest.mark.parametrize("where", ["attack", "defense", "error", "title", "config"])
def test_no_plugin_can_break_a_table(where: str) -> None:
    fields: dict[str, Any] = {
        "attack": {"attack": Stage(name=HOSTILE)},
        "defense": {"defense": [Stage(name=HOSTILE)]},
        "error": {"status": "failed", "error": HOSTILE},
        "config": {"defense": [Stage(name="d", config={HOSTILE: HOSTILE})]},
        "title": {},
    }[where]
    results = [*undefended(), cell("badnets", "d", 0, asr=0.1), cell("badnets", "d", 1, asr=0.1, key="hostile", **fields)]
    for text in (board(results, HOSTILE if where == "title" else "t"), page("t", results)):
        assert "<script" not in text
        assert "\x1b" not in text
        assert "\u202e" not in text
        for block in re.findall(r"(?:^\|.*\n?)+", text, flags=re.MULTILINE):
            widths = {len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}
            assert len(widths) == 1, block


@settings(max_examples=50, deadline=None)
@given(st.text())
def test_escaped_text_stays_in_its_cell(text: str) -> None:
    rendered = table([{"a": escape(text), "b": "end"}]).splitlines()
    assert len(rendered) == 3
    assert len(re.findall(r"(?<!\\)(?:\\\\)*\|", rendered[2])) == 3


Gatecrash = Callable[..., Any]


def store_of(results: list[Result], root: Path) -> Path:
    store = Store(root).open()
    for index, result in enumerate(results):
        store.save_result(result.model_copy(update={"key": f"{index:040x}"}))
    return root


def test_compare_tells_what_the_paired_difference_is(gatecrash: Gatecrash, tmp_path: Path) -> None:
    results = undefended()
    results += [cell("badnets", "good", seed, asr=0.01 * seed) for seed in range(3)]
    results += [cell("badnets", "bad", seed, asr=0.5 + 0.02 * seed) for seed in range(3)]
    store = store_of(results, tmp_path / "s")
    said = gatecrash("compare", "good", "bad", "--store", store).out
    assert re.search(r"DER +25\.5 ± 1\.2 +3 +3 +good is better", said)
    assert re.search(r"ASR +-51\.0 ± 2\.5 +3 +3 +good is better", said)
    assert re.search(r"ACC +0\.0 ± 0\.0 +3 +3 +includes 0", said)
    wrong = gatecrash("compare", "good", "bat", "--store", store)
    assert (wrong.code, wrong.err) == (2, "error: no results of a defense 'bat'; did you mean 'bad'?\n")


def test_compare_says_that_one_seed_is_no_comparison(gatecrash: Gatecrash, tmp_path: Path) -> None:
    results = [*undefended(1), cell("badnets", "a", 0, asr=0.0), cell("badnets", "b", 0, asr=0.9)]
    said = gatecrash("compare", "a", "b", "--store", store_of(results, tmp_path / "s")).out
    assert re.search(r"DER +45\.0 +1 +1 +none: needs two seeds or more", said)


def test_compare_names_the_variants_of_a_swept_defense(gatecrash: Gatecrash, tmp_path: Path) -> None:
    results = [*undefended(), *(cell("badnets", "d", 0, asr=0.1, defense=[Stage(name="d", config={"lr": lr})]) for lr in (0.1, 0.2))]
    wrong = gatecrash("compare", "d", "none", "--store", store_of(results, tmp_path / "s"))
    assert wrong.err == "error: no results of a defense 'd'; give one of: d (lr=0.1); d (lr=0.2)\n"
