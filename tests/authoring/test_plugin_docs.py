"""docs/reference/plugins.md is what the plugins say of themselves."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from gatecrash import Options
from gatecrash.authoring.plugin_docs import costs_of, costs_on_board, main, measured_in, options_of, page
from gatecrash.host.loading import load_plugins
from gatecrash.records.result import Result
from gatecrash.records.stage import Stage
from support.paths import ROOT

PAGE, BOARDS = ROOT / "docs" / "reference" / "plugins.md", ROOT / "leaderboards"


def test_the_page_is_up_to_date() -> None:
    measured = measured_in(ROOT / "docs" / "measured")
    expected = page(load_plugins(installed=False), costs_on_board(BOARDS), measured)
    assert PAGE.read_text(encoding="utf-8") == expected, "run `make docs` and commit docs/reference/plugins.md"


def test_writing_the_pages_gives_the_pages(tmp_path: Path) -> None:
    main(tmp_path, BOARDS)
    for name in ("plugins.md", "contracts.md"):
        assert (tmp_path / name).read_text(encoding="utf-8") == (PAGE.parent / name).read_text(encoding="utf-8")


def test_every_plugin_and_option_is_on_the_page() -> None:
    host = load_plugins(installed=False)
    sections = {part.partition("\n")[0]: part for part in page(host).split("\n### ")}
    for plugin in host.plugins.values():
        section = sections[f"{plugin.kind} {plugin.name}"]
        assert all(f"| `{option}` |" in section for option in plugin.cls.Config.model_fields)
    badnets = sections["attack badnets"]
    assert "Controls: data; dirty label." in badnets
    assert "<https://arxiv.org/abs/1708.06733>" in badnets
    assert "| `size` | int | `3` | &gt;= 1, &lt;= 1024 | side of the patch in pixels |" in badnets
    assert "Needs: clean-data, model. Gives: classifier." in sections["defense fine-pruning"]
    assert "a \\| " not in badnets


def result(attack: str, defense: list[str], seed: int, victim: float, seconds: float | None) -> Result:
    stage = Stage(name="any")
    return Result(
        key=f"{attack}-{defense}-{seed}",
        victim_key=f"{attack}-{seed}",
        grid="digits",
        dataset=stage,
        dataset_fingerprint="",
        holdout={},
        model=stage,
        recipe={},
        attack=Stage(name=attack),
        defense=[Stage(name=name) for name in defense],
        seed=seed,
        status="ok",
        measures={"seconds_victim": victim, "seconds_defense": seconds},
    )


def test_costs_are_medians_over_victims_and_over_cells() -> None:
    costs = costs_of(
        [
            result("badnets", ["none"], 0, 3.0, None),
            result("badnets", ["anp"], 0, 3.0, 0.5),
            result("badnets", ["none"], 1, 5.04, None),
            result("badnets", ["anp"], 1, 5.04, 0.125),
            result("badnets", ["activation-clustering", "anp"], 1, 5.04, 100.0),
        ]
    )
    assert set(costs) == {("attack", "badnets"), ("defense", "anp")}
    where = "Cost on the [digits](../../leaderboards/digits.md): "
    assert costs["attack", "badnets"] == f"{where}4 s per victim, training included (median of 2)."
    assert costs["defense", "anp"] == f"{where}0.31 s per cell (median of 2)."
    written = page(load_plugins(installed=False), costs)
    assert costs["defense", "anp"] in written.partition("### defense anp")[2].partition("\n### ")[0]
    assert written.count("Cost on the") == 2


def test_without_a_board_of_the_digits_no_costs_are_claimed(tmp_path: Path) -> None:
    assert costs_on_board(tmp_path) == {}
    assert "Cost on the" not in page(load_plugins(installed=False))


class Some(Options):
    rate: float | None = Field(None, gt=0, le=1, description="a share")
    way: Literal["a", "b"] = Field("a", description="one of two")
    sizes: tuple[int, ...] = Field((1, 2), description="some")
    needed: bool = Field(description="must be given")


def test_options_as_a_person_reads_them() -> None:
    rate, way, sizes, needed = options_of(Some)
    assert (rate.type, rate.default, rate.bounds, rate.is_number) == ("float | none", "null", "> 0, <= 1", True)
    assert (way.type, way.default, way.bounds, way.is_number) == ("a | b", '"a"', "", False)
    assert (sizes.type, sizes.default, sizes.is_number) == ("tuple[int, ...]", "[1, 2]", False)
    assert (needed.type, needed.default, needed.is_number) == ("bool", "required", False)
