"""A table holds one version of each thing: what older versions measured is left out, and said."""

from __future__ import annotations

from typing import Any

from gatecrash.boards.superseded import newest
from gatecrash.records.result import Result
from gatecrash.records.stage import Stage
from support.boards import leaderboard_text
from support.cells import cell, undefended

OLD, NEW = "2026-01-01T00:00:00", "2026-02-01T00:00:00"


def measured(defense: str, date: str, /, *, held: str = "", seed: int = 0, **fields: Any) -> Result:
    """On a victim whose attack has this content: of a plugin's file, or of a picture at the same path."""
    name, _, what = held.partition("=")
    attack = Stage(name="badnets", config={"image": "t.png"}, content={name: what} if held else {})
    asked: dict[str, Any] = {"attack": attack, "victim_key": f"{held}-{seed}", "weights": f"{held}-{seed}", "provenance": {"date": date}}
    return cell("badnets", defense, seed, **(asked | {"key": f"{held}-{defense}-{seed}-{date}"} | fields))


def kept(results: list[Result]) -> set[str]:
    return {result.key for result in newest(results)[0]}


def test_a_column_measured_on_another_file_at_the_same_path_is_left_out_and_named() -> None:
    """GoodNet once "raised" ASR from 1.7 to 80: the column before and the column after were not of one trigger."""
    for held in ("image", ""):  # a picture; the plugin's own code
        old = [measured(defense, OLD, held=f"{held}=old", asr=asr) for defense, asr in (("none", 0.017), ("anp", 0.01))]
        new = [measured(defense, NEW, held=f"{held}=new", asr=0.8) for defense in ("none", "goodnet")]
        assert kept([*old, *new]) == {result.key for result in new}
        said = leaderboard_text([*undefended(1, ()), *old, *new])
        assert "Left out: 2 results that were measured with older versions" in said.replace("*", "")
        assert "1.7" not in said


def test_seeds_of_an_older_version_are_no_part_of_a_mean() -> None:
    old = [measured("none", OLD, held="=old", seed=seed) for seed in (0, 1)]
    assert kept([*old, new := measured("none", NEW, held="=new", seed=2)]) == {new.key}


def test_older_versions_of_attack_defense_and_harness_are_left_out() -> None:
    new = measured("anp", NEW)
    for fields in (
        {"defense": [Stage(name="anp", version=0)]},
        {"attack": Stage(name="badnets", version=0, config={"image": "t.png"})},
        {"model": Stage(name="small-cnn", version=0)},
        {"provenance": {"date": OLD, "engine_version": 7}},
        {"provenance": {"date": OLD, "evaluation_version": 7}},
        {"weights": "of another training"},
        {"victim_key": "another"},
    ):
        old = measured("anp", OLD, **{"key": "old", "seed": 1 if "version" in str(fields) else 0, **fields})
        assert kept([old, new]) == {new.key}, fields


def test_results_without_recorded_content_belong_to_the_victim_they_were_measured_on() -> None:
    before, now = measured("none", OLD, victim_key="v", weights="w"), measured("anp", NEW, held="=new", victim_key="v", weights="w")
    assert kept([before, now]) == {before.key, now.key}


def test_the_later_run_counts_even_where_its_results_are_from_an_earlier_day() -> None:
    """A file that was changed and changed back: what the newest run found in the store is what it asked for."""
    back, changed = measured("none", OLD, held="=a"), measured("none", NEW, held="=b")
    found, older = newest([back, changed], {back.key: 2, changed.key: 1})
    assert ([result.key for result in found], set(older)) == ([back.key], {changed.key})


def test_a_cell_that_failed_has_no_weights_and_puts_nothing_out() -> None:
    fine, failed = measured("none", OLD), measured("anp", NEW, status="failed", weights=None)
    assert kept([fine, failed]) == {fine.key, failed.key}
