"""Publish, check, verify: a published board is its JSON, and Markdown that differs is noticed."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml

from gatecrash.boards.published import default_boards
from gatecrash.host.loading import load_plugins
from gatecrash.planning.grid import parse_grid
from gatecrash.records.result import Result

Gatecrash = Callable[..., Any]


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(grid, store) of a small grid with two seeds, run once."""
    from gatecrash.running.run import run
    from support.grids import SMALL_GRID

    folder = tmp_path_factory.mktemp("ran")
    grid = folder / "small.yaml"
    grid.write_text(yaml.safe_dump(SMALL_GRID | {"seeds": [0, 1], "recipe": {"preset": "tiny", "epochs": 6, "batch_size": 16}}))
    assert run(grid, folder / "store").exit_code == 0
    return grid, folder / "store"


def publish(gatecrash: Gatecrash, ran: tuple[Path, Path], boards: Path, *more: str) -> Any:
    grid, store = ran
    return gatecrash("publish", grid, "--board", "small", "--store", store, "--boards", boards, "--allow-dirty", *more)


def test_publish_then_check_then_verify(gatecrash: Gatecrash, ran: tuple[Path, Path], tmp_path: Path) -> None:
    called = publish(gatecrash, ran, tmp_path)
    assert called.code == 0, called.err
    assert "8 cells published, 8 in the board" in called.out
    files = sorted((tmp_path / "results/small").iterdir())
    assert len(files) == 8
    assert files[0].name.startswith("badnets.fine-pruning.0.")
    stored = json.loads(files[0].read_text())
    assert (stored["access"], stored["gives"]) == ("model + clean data", ["classifier"])
    assert (len(stored["trajectory"]), stored["log"]) == (32, None)
    text = (tmp_path / "small.md").read_text()
    for said in ("attack \\ defense", "Model + clean data", "gatecrash verify small", "dataset fingerprint", "fine-pruning 2"):
        assert said in text
    drawn = find_spec("matplotlib") is not None
    for kind in ("heatmap", "triggers"):
        assert (f"](figures/small-{kind}.png)" in text) == (tmp_path / f"figures/small-{kind}.png").is_file() == drawn
    assert "[small](small.md)" in (tmp_path / "README.md").read_text()
    assert parse_grid(yaml.safe_load((tmp_path / "small.yaml").read_text())).seeds == [0, 1]
    assert gatecrash("leaderboard", "--check", "--boards", tmp_path).code == 0

    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert publish(gatecrash, ran, tmp_path).code == 0
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before

    checked = gatecrash("verify", "small", "--boards", tmp_path, "--sample", "2")
    assert checked.code == 0, checked.out
    assert [line.split()[0] for line in checked.out.splitlines()] == ["equal", "equal"]


def test_verify_notices_a_number_that_is_not_so(gatecrash: Gatecrash, ran: tuple[Path, Path], tmp_path: Path) -> None:
    publish(gatecrash, ran, tmp_path)
    file = next((tmp_path / "results/small").glob("none.none.0.*"))
    honest = Result.from_text(file.read_text())
    file.write_text(honest.model_copy(update={"measures": honest.measures.model_copy(update={"acc": 0.999})}).to_text())
    checked = gatecrash("verify", file)
    assert checked.code == 1
    assert checked.out.startswith("differs   none × none (seed 0): acc is 0.9990, its counts say ")
    file.write_text(file.read_text().replace("0.999", "0.998"))
    assert "is no sound result (content does not match its digest)" in gatecrash("verify", file).err
    file.write_text(honest.model_copy(update={"dataset_fingerprint": "e" * 64}).to_text())
    checked = gatecrash("verify", file)
    assert (checked.code, "is not the one that was measured (eeeeeeeeeeee)" in checked.err) == (2, True)


def test_check_fails_where_markdown_and_results_differ(gatecrash: Gatecrash, ran: tuple[Path, Path], tmp_path: Path) -> None:
    publish(gatecrash, ran, tmp_path)
    (tmp_path / "small.md").write_text((tmp_path / "small.md").read_text().replace("badnets", "goodnets"))
    (tmp_path / "README.md").unlink()
    checked = gatecrash("leaderboard", "--check", "--boards", tmp_path)
    assert checked.code == 1
    assert [line.split(" ", 1)[0] for line in checked.out.splitlines()] == ["small.md", "README.md"]
    shown = gatecrash("leaderboard", "--board", "small", "--boards", tmp_path)
    assert shown.out == (tmp_path / "small.md").read_text()
    assert gatecrash("leaderboard", "--check", "--boards", tmp_path).code == 0


def test_cells_of_an_older_plugin_are_marked_and_told_and_fail_nothing(
    gatecrash: Gatecrash, ran: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(gatecrash, ran, tmp_path)
    plugin = load_plugins(installed=False).get("defense", "fine-pruning")
    before = plugin.cls.version
    monkeypatch.setattr(plugin.cls, "version", 7)
    checked = gatecrash("leaderboard", "--check", "--boards", tmp_path)
    assert checked.code == 0, checked.out
    assert f"small: 4 cells are older (defense fine-pruning {before} -> 7)\n" in checked.out
    page = tmp_path / "small.md"
    page.write_text(page.read_text().replace("0.", "1.", 1))
    assert gatecrash("leaderboard", "--check", "--boards", tmp_path).code == 1  # a wrong number, older or not
    board = gatecrash("leaderboard", "--board", "small", "--boards", tmp_path).out
    assert next(line.count("†") for line in board.splitlines() if line.startswith("| badnets")) == 1
    assert f"† measured with older versions than this checkout has (defense fine-pruning {before} " in board
    assert gatecrash("leaderboard", "--check", "--boards", tmp_path).code == 0
    checked = gatecrash("verify", next((tmp_path / "results/small").glob("badnets.fine-pruning.0.*")))
    assert (checked.code, checked.out.split(":")[0]) == (0, "outdated  badnets × fine-pruning (seed 0)")
    assert checked.err == "0 of 1 cells confirmed, 1 older and not run\n"


def test_cells_of_an_older_version_are_replaced_although_an_option_is_new(
    gatecrash: Gatecrash, ran: tuple[Path, Path], tmp_path: Path
) -> None:
    publish(gatecrash, ran, tmp_path)
    names = sorted(file.name for file in (tmp_path / "results/small").glob("*.json"))
    for file in (tmp_path / "results/small").glob("*.fine-pruning.*.json"):
        result = Result.from_text(file.read_text())
        (stage,) = result.defense
        older = stage.model_copy(update={"version": 0, "config": {k: v for k, v in stage.config.items() if k != "activations"}})
        file.write_text(result.model_copy(update={"defense": [older]}).to_text())
    assert publish(gatecrash, ran, tmp_path).out.startswith(f"small: {len(names)} cells published, {len(names)} in the board")
    assert sorted(file.name for file in (tmp_path / "results/small").glob("*.json")) == names


def test_an_incomplete_grid_is_published_only_on_request(gatecrash: Gatecrash, ran: tuple[Path, Path], tmp_path: Path) -> None:
    refused = publish(gatecrash, ran, tmp_path, "--seeds", "0,5")
    assert refused.code == 2
    assert refused.err.startswith("error: 4 of 8 cells have no scores (none × none (seed 5): missing)")
    assert list(tmp_path.iterdir()) == []
    assert publish(gatecrash, ran, tmp_path, "--seeds", "0,5", "--partial").code == 0
    assert publish(gatecrash, ran, tmp_path, "--seeds", "1").out.startswith("small: 4 cells published, 8 in the board")


def test_nothing_is_written_into_a_folder_that_was_not_named(
    gatecrash: Gatecrash, ran: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`publish` once wrote into the checkout that the package was installed from."""
    monkeypatch.chdir(tmp_path)
    grid, store = ran
    called = gatecrash("publish", grid, "--board", "small", "--store", store, "--allow-dirty")
    assert (called.code, called.err) == (2, "error: no folder leaderboards/ here; name one with --boards DIR\n")
    (tmp_path / "leaderboards").mkdir()
    assert gatecrash("publish", grid, "--board", "small", "--store", store, "--allow-dirty").code == 0
    assert (tmp_path / "leaderboards" / "small.md").is_file()


def test_a_board_of_the_checkout_is_shown_and_not_written(gatecrash: Gatecrash, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    name = next(default_boards().joinpath("results").glob("*")).name
    monkeypatch.setattr(Path, "write_text", lambda *_args, **_named: pytest.fail("something was written"))
    assert gatecrash("leaderboard", "--board", name).code == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["leaderboard", "--board", "smal", "--boards", "."], "no board 'smal' in .; "),
        (["leaderboard", "--board", "../x", "--boards", "."], "no board '../x'"),
        (["leaderboard", "--check", "--store", "x"], "--check is about published boards"),
        (["verify", "nothing.json"], "nothing.json is no sound result (No such file or directory)"),
        (["publish", "quickstart", "--board", "x", "--boards", ".", "--store", "nowhere"], "no store at nowhere"),
    ],
)
def test_wrong_requests_are_one_line(
    gatecrash: Gatecrash, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    called = gatecrash(*arguments)
    assert (called.code, called.out) == (2, "")
    assert called.err.startswith(f"error: {said}"), called.err
    assert list(tmp_path.iterdir()) == []
