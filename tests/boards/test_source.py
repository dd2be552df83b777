"""Which results a command shows: the rules for --store, --board, --boards and --grid are the same in every command."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from gatecrash.boards.published import Boards
from gatecrash.boards.source import ResultSource
from gatecrash.errors import UserError
from gatecrash.records.store import Store
from support.paths import ROOT

Gatecrash = Callable[..., Any]
BOARDS = Boards(ROOT / "leaderboards")
BOARD = "digits"
pytestmark = pytest.mark.skipif(BOARD not in BOARDS.names(), reason=f"the board {BOARD} is not in leaderboards/ of this checkout")
COMMANDS = {
    "leaderboard": ("leaderboard",),
    "report": ("report",),
    "results": ("results",),
    "compare": ("compare", "anp", "none"),
    "heatmap": ("plot", "heatmap"),
    "tradeoff": ("plot", "tradeoff"),
    "curve": ("plot", "curve", "--defense", "anp"),
    "masks": ("plot", "masks"),
    "reversed": ("plot", "reversed"),
}
every_command = pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)


def board_arguments(command: Sequence[str], name: str) -> list[str]:
    return [*command, name] if command == ("report",) else [*command, "--board", name]


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """The results of a published board as those of two grids' runs: seed 0 and the others."""
    monkeypatch.chdir(tmp_path)
    opened = Store(tmp_path / "store").open()
    for result in BOARDS.results(BOARD):
        opened.save_result(result.model_copy(update={"grid": "first" if result.seed == 0 else "rest", "figures": {}}))
    return opened


@every_command
@pytest.mark.parametrize("option", ["--store", "--grid"])
def test_a_board_excludes_a_store_and_a_grid(gatecrash: Gatecrash, store: Store, command: Sequence[str], option: str) -> None:
    called = gatecrash(*board_arguments(command, BOARD), option, "store")
    assert (called.code, called.err) == (2, "error: a board is a published one; leave --store and --grid out\n")


@every_command
def test_a_folder_of_boards_needs_a_board(gatecrash: Gatecrash, store: Store, command: Sequence[str]) -> None:
    called = gatecrash(*command, "--boards", BOARDS.root)
    assert (called.code, called.err) == (2, "error: --boards needs the name of a BOARD\n")


@every_command
def test_an_unknown_board_or_grid_gets_the_close_matches(gatecrash: Gatecrash, store: Store, command: Sequence[str]) -> None:
    called = gatecrash(*board_arguments(command, "digit"), "--boards", BOARDS.root)
    assert (called.code, "; did you mean 'digits'?" in called.err) == (2, True), called.err
    called = gatecrash(*command, "--store", "store", "--grid", "firsst")
    assert (called.code, called.err) == (2, "error: no results of a grid 'firsst'; did you mean 'first' or 'rest'?\n")


@every_command
def test_a_folder_of_boards_is_not_taken_for_a_store(
    gatecrash: Gatecrash, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: Sequence[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "boards" / "results" / "mine" / "one.json"
    file.parent.mkdir(parents=True)
    file.write_text("{}")
    called = gatecrash(*command, "--store", "boards")
    assert (called.code, called.err.startswith("error: boards is a folder of published boards, not a store")) == (2, True), called.err
    assert file.exists()


@every_command
def test_an_empty_store_is_one_line(gatecrash: Gatecrash, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: Sequence[str]) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    called = gatecrash(*command, "--store", "empty")
    if command == ("results",):  # a list may be empty
        assert (called.code, called.out) == (0, "no results yet\n")
    else:
        assert (called.code, called.err.startswith("error: the store empty has no results yet; run a grid first")) == (2, True), called.err


def test_a_grid_is_a_name_of_the_stores_runs_or_a_yaml_file(gatecrash: Gatecrash, store: Store, small_grid: Any) -> None:
    shown = json.loads(gatecrash("results", "--store", "store", "--grid", "rest", "--format", "json").out)
    assert {record["seed"] for record in shown} == {result.seed for result in BOARDS.results(BOARD)} - {0}
    shown = json.loads(gatecrash("results", "--store", "store", "--grid", BOARDS.root / "digits.yaml", "--format", "json").out)
    assert {record["key"] for record in shown} == {result.key for result in BOARDS.results(BOARD)}
    called = gatecrash("results", "--store", "store", "--grid", small_grid())
    assert called.err.startswith("error: no results of a grid ")
    assert "run `gatecrash run " in called.err
    assert gatecrash("leaderboard", "--store", "store", "--grid", "first").out.count("; seed 0.") == 1


def test_results_of_a_board_are_printed_as_those_of_a_store(gatecrash: Gatecrash, store: Store) -> None:
    ours = json.loads(gatecrash("results", "--board", BOARD, "--boards", BOARDS.root, "--format", "json").out)
    stored = json.loads(gatecrash("results", "--store", "store", "--format", "json").out)
    assert [record | {"grid": None} for record in ours] == [record | {"grid": None} for record in stored]


def test_traits_that_an_older_version_did_not_record_are_filled_in(store: Store) -> None:
    known = {result.key: (result.access, result.gives) for result in ResultSource(store.root).results()}
    for result in list(store.results()):
        store.save_result(result.model_copy(update={"access": None, "gives": None}))
    assert {result.key: (result.access, result.gives) for result in ResultSource(store.root).results()} == known


def test_groups_have_titles_and_one_panel_needs_one_group(store: Store) -> None:
    (group,) = ResultSource(store.root).groups()
    first = group.results[0]
    assert group.title == f"digits, small-cnn, tiny, {first.dataset_fingerprint[:8]}"
    store.save_result(first.model_copy(update={"key": "0" * 40, "recipe": {**first.recipe, "epochs": 1}}))
    assert [group.title.split(", ")[2] for group in ResultSource(store.root).groups()] == ["sgd lr 0.1", "tiny"]
    with pytest.raises(UserError, match=r"of several datasets, models or recipes; choose one with --grid \(first, rest\)"):
        ResultSource(store.root).panel()
