"""The newest run of a grid is what commands show; the others are told, and shown on request."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from gatecrash.boards.history import History
from gatecrash.host.loading import load_plugins
from gatecrash.planning.planned import plan_grid
from gatecrash.records.runs import Run
from gatecrash.running.run import run as run_grid
from support.grids import SMALL_GRID
from support.small_runs import small

Gatecrash = Callable[..., Any]
HOST = load_plugins(installed=False)
SERIAL = ("--executor", "serial", "--quiet")


def run(partial: bool = False, **fields: Any) -> Run:
    return Run.of(plan_grid(small(**fields), HOST).plan, partial=partial)


def test_partial_runs_count_with_those_before_them_back_to_a_whole_one_of_their_setting() -> None:
    first, whole, part = run(), run(seeds=[1]), run(True, seeds=[2])
    other, part_of_other = run(recipe="tiny"), run(True, recipe="tiny", seeds=[1])
    of_another_grid = run(name="another")
    assert History([first, whole, part, of_another_grid]).newest("small") == [whole, part]
    assert History([first, whole, part, other]).newest("small") == [other]
    assert History([other, first, part_of_other]).newest("small") == [other, part_of_other]
    assert History([part, first]).newest("small") == [first]
    assert History([part, part_of_other]).newest("small") == [part_of_other]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a grid whose recipe was changed after its first run."""
    root = tmp_path_factory.mktemp("runs") / "store"
    for lr in (0.03, 0.02):
        assert run_grid(small(recipe={**SMALL_GRID["recipe"], "lr": lr}), root).exit_code == 0
    return root


def records(gatecrash: Gatecrash, *arguments: Any) -> list[dict[str, Any]]:
    shown: list[dict[str, Any]] = json.loads(gatecrash("results", "--format", "json", *arguments).out)
    return shown


def test_a_changed_recipe_locks_neither_plots_nor_the_report(
    gatecrash: Gatecrash, store: Path, small_grid: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for command in (
        ["plot", "heatmap", "--output", "h.png"],
        ["plot", "triggers", "--output", "t.png"],
        ["report"],
        ["compare", "none", "fine-pruning"],
        ["leaderboard"],
    ):
        for grid in ([], ["--grid", "small"], ["--grid", small_grid()]):
            called = gatecrash(*command, "--store", store, *grid)
            assert called.code == 0, called.err
    assert [record["recipe"]["lr"] for record in records(gatecrash, "--store", store)] == [0.02] * 4
    assert [record["recipe"]["lr"] for record in records(gatecrash, "--store", store, "--grid", small_grid())] == [0.03] * 4
    called = gatecrash("results", "--store", store)
    assert called.err == "note: 4 results of earlier runs are left out; --all-runs shows them\n"
    assert len(records(gatecrash, "--store", store, "--all-runs")) == 8
    refused = gatecrash("plot", "heatmap", "--store", store, "--all-runs")
    assert (refused.code, "choose one with --grid (small)" in refused.err) == (2, True)


def test_a_store_whose_runs_were_not_recorded_shows_all_that_it_has(gatecrash: Gatecrash, store: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(store, tmp_path / "store"))
    shutil.rmtree(copy / "runs")
    assert len(records(gatecrash, "--store", copy)) == len(records(gatecrash, "--store", copy, "--grid", "small")) == 8


def test_a_run_of_a_part_adds_to_the_run_of_the_whole(gatecrash: Gatecrash, store: Path, small_grid: Any, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(store, tmp_path / "store"))
    gatecrash("run", small_grid(), "--store", copy, "-o", "recipe.lr=0.02", "--seeds", "1", "--only", "defense=none", *SERIAL)
    assert len(records(gatecrash, "--store", copy)) == 6
    assert "2 of 6" not in gatecrash("leaderboard", "--store", copy).out


def test_a_picture_that_was_replaced_at_its_path_makes_older_columns_leave_the_table(
    gatecrash: Gatecrash, small_grid: Any, tmp_path: Path
) -> None:
    picture, store = tmp_path / "trigger.png", tmp_path / "store"
    attack = {"badnets": {"pattern": "given", "image": str(picture)}}
    grid = small_grid(attacks=["none", attack], defenses=["none", {"anp": {"iterations": 20}}, {"fine-pruning": {"epochs": 1}}])
    for brightness, more in ((255, ()), (90, ("--only", "defense=fine-pruning"))):
        Image.fromarray(np.full((3, 3), brightness, np.uint8)).save(picture)
        assert gatecrash("run", grid, "--store", store, *more, *SERIAL).code == 0
    shown = gatecrash("leaderboard", "--store", store).out
    assert "**Left out:** 3 results that were measured with older versions than the others (attack badnets 1 (the file of image" in shown
    (row,) = [line.split("|")[2:5] for line in shown.split("## ")[0].splitlines() if line.startswith("| badnets")]
    assert [text.strip() for text in row][1] == "missing"
