"""`evaluation: {robustness: true}` from the grid to the board, through the real command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from gatecrash.boards.spec import grid_of
from gatecrash.cli import group
from gatecrash.errors import UserError
from gatecrash.evaluation.options import TRANSFORMED
from gatecrash.host.loading import load_plugins
from gatecrash.planning.grid import parse_grid
from gatecrash.planning.planned import plan_grid
from gatecrash.records.store import Store
from support.grids import SMALL_GRID

GRID = {**SMALL_GRID, "recipe": {**SMALL_GRID["recipe"], "epochs": 1}}


def gatecrash(*words: str | Path) -> None:
    group.main([*map(str, words)], prog_name="gatecrash", standalone_mode=False)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small grid, first without and then with the option."""
    folder = tmp_path_factory.mktemp("robust")
    (folder / "grid.yaml").write_text(yaml.safe_dump(GRID))
    for option in ([], ["-o", "evaluation.robustness=true"]):
        gatecrash("run", folder / "grid.yaml", "--store", folder / "store", "--executor", "serial", *option)
    return folder / "store"


def test_the_board_has_a_section_on_robustness(store: Path, capsys: pytest.CaptureFixture[str]):
    gatecrash("leaderboard", "--store", store)
    shown = capsys.readouterr().out
    assert shown.count("## Robustness") == 1
    rows = [line.split("|")[1].strip() for line in shown.split("## Robustness")[1].splitlines() if line.startswith("| ")]
    assert rows[1 : len(TRANSFORMED) + 3] == ["unchanged", *TRANSFORMED, "ASR above 80%"]


def test_results_hold_the_counts_and_say_what_was_asked(store: Path, capsys: pytest.CaptureFixture[str]):
    gatecrash("results", "--store", store, "--all-runs", "--format", "json")
    flat = json.loads(capsys.readouterr().out)
    assert [bool(record["evaluation"]) for record in flat].count(True) == 4
    with_option = {result.key: result for result in Store(store).results() if result.evaluation}
    assert len(with_option) == 4
    for result in with_option.values():
        under = result.measures.robustness
        assert under is not None
        assert set(under) == set(TRANSFORMED)
        assert {scores.n_test for scores in under.values() if scores} == {60}
        assert (result.measures.robustness_floor is not None) == (result.attack.name != "none" and result.defense_name == "none")
        text = result.to_text()
        assert type(result).from_text(text).to_text() == text


def test_all_other_numbers_and_the_victims_are_those_of_cells_without_the_option(store: Path):
    by_option: dict[bool, dict[tuple[str, str], dict[str, object]]] = {True: {}, False: {}}
    for result in Store(store).results():
        measures = result.measures.model_dump(exclude={"robustness", "robustness_floor", "seconds_defense", "peak_memory_mb"})
        by_option[bool(result.evaluation)][result.victim_key, result.defense_name] = measures
        assert bool(result.measures.robustness) == bool(result.evaluation)
        assert ("evaluation" in json.loads(result.to_text())) == bool(result.evaluation)
    assert by_option[True] == by_option[False]


def test_a_result_gives_its_own_key_again(store: Path):
    for result in Store(store).results():
        plan = plan_grid(parse_grid(grid_of([result])), load_plugins()).plan
        assert result.key in plan.cells


def test_the_figure_is_drawn(store: Path, tmp_path: Path):
    gatecrash("plot", "robustness", "--store", store, "--output", tmp_path / "robust.png")
    gatecrash("plot", "robustness", "--store", store, "--defense", "fine-pruning", "--output", tmp_path / "tuned.svg")
    assert (tmp_path / "robust.png").stat().st_size > 10_000
    assert (tmp_path / "tuned.svg").stat().st_size > 10_000
    with pytest.raises(UserError, match="did you mean"):
        gatecrash("plot", "robustness", "--store", store, "--defense", "fine-prunin", "--output", tmp_path / "no.png")


@pytest.mark.parametrize("wrong", [{"robustnes": True}, {"robustness": "sometimes"}, ["robustness"]])
def test_a_typo_is_refused(wrong: object):
    with pytest.raises(UserError, match="evaluation"):
        parse_grid({**GRID, "evaluation": wrong})
