"""A published board of images that lie in a folder: its pictures, its README, and verification where the images lie elsewhere."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml

from gatecrash.boards.pictures import picture
from gatecrash.host.loading import load_plugins
from gatecrash.records.result import Result

Gatecrash = Callable[..., Any]


LIMITED = "dataset={imagefolder: {root: images, mode: grayscale, flip: false, limit: 200}}"


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `images/` (digits as PNG files), `mine.yaml` and the `store` of that grid on these images."""
    from PIL import Image

    from gatecrash.planning.grid import load_grid
    from gatecrash.running.run import run
    from support.grids import SMALL_GRID

    folder = tmp_path_factory.mktemp("own-images")
    splits = load_plugins(installed=False).get("dataset", "digits").configure().load(lambda _done, _total: None)
    for part, images, count in (("train", splits.train, 400), ("test", splits.test, 60)):
        for row in range(count):
            path = folder / "images" / part / f"{int(images.labels[row])}" / f"{row}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(images.images[row, 0].numpy()).save(path)
    defenses = ["none", {"anp": {"iterations": 5}}, {"neural-cleanse": {"rounds": 1}}]
    grid = folder / "mine.yaml"
    grid.write_text(yaml.safe_dump(SMALL_GRID | {"name": "mine", "seeds": [0, 1], "defenses": defenses}))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        path, _, value = LIMITED.partition("=")
        assert run(load_grid("mine.yaml", {path: value}), "store").exit_code == 0
    return folder


@pytest.fixture
def board(ran: Path, gatecrash: Gatecrash, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder `leaderboards`, with the published board `own` and a README beside it."""
    monkeypatch.chdir(ran)
    boards = tmp_path / "leaderboards"
    (tmp_path / "README.md").write_text("# Mine\n<!-- board:own -->\n<!-- /board -->\n<!-- board:later -->\nsoon\n<!-- /board -->\n")
    called = gatecrash("publish", "mine.yaml", "-o", LIMITED, "--board", "own", "--store", "store", "--boards", boards, "--allow-dirty")
    assert called.code == 0, called.err
    assert "warning: no" not in called.err or find_spec("matplotlib") is None
    return boards


def check(gatecrash: Gatecrash, boards: Path) -> list[str]:
    called = gatecrash("leaderboard", "--check", "--boards", boards)
    assert called.code == (0 if "agree" in called.out else 1)
    return str(called.out).splitlines()


def test_a_board_of_own_images_can_be_verified_where_they_lie_elsewhere(
    gatecrash: Gatecrash, ran: Path, board: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (board / "own.md").read_text()
    command = "gatecrash verify own -o dataset.imagefolder.root=images\n"
    assert f"$ {command}" in text
    shutil.copytree(ran / "images", tmp_path / "elsewhere/pictures")
    monkeypatch.chdir(tmp_path)
    # where the results say, there is nothing here
    astray = gatecrash("verify", "own", "--sample", "2", "--boards", board)
    assert (astray.code, astray.out) == (2, "")
    assert "images" in astray.err
    overridden = ("-o", "dataset.imagefolder.root=elsewhere/pictures")
    checked = gatecrash("verify", "own", "--sample", "2", "--boards", board, *overridden)
    assert [line.split()[0] for line in checked.out.splitlines()] == ["equal", "equal"], checked.out + checked.err
    # other images in their place are noticed
    shutil.copy(tmp_path / "elsewhere/pictures/train/0" / sorted(p.name for p in (ran / "images/train/0").iterdir())[0], tmp_path / "x.png")
    for file in (tmp_path / "elsewhere/pictures/train/1").iterdir():
        shutil.copy(tmp_path / "x.png", file)
    checked = gatecrash("verify", "own", "--sample", "1", "--boards", board, *overridden)
    assert (checked.code, "is not the one that was measured" in checked.err) == (2, True)


def edit(file: Path, provenance: dict[str, Any] | None = None, **measures: Any) -> None:
    """Change a published number as someone would who also mends the digest."""
    result = Result.from_text(file.read_text())
    changes = {"measures": result.measures.model_copy(update=measures), "provenance": result.provenance.model_copy(update=provenance or {})}
    file.write_text(result.model_copy(update=changes).to_text())


def test_the_verdict_is_equal_here_and_within_the_interval_elsewhere(gatecrash: Gatecrash, ran: Path, board: Path) -> None:
    file = next((board / "results/own").glob("badnets.none.0.*.json"))
    measures = Result.from_text(file.read_text()).measures
    assert measures.scores is not None
    assert gatecrash("verify", file).out.startswith("equal ")
    loss = measures.loss_clean + 1e-6
    counts = {"loss_clean": loss, "scores": dataclasses.replace(measures.scores, loss_clean=loss)}
    edit(file, **counts)
    assert gatecrash("verify", file).out.startswith("differs   badnets × none (seed 0): on the same kind of machine: loss_clean ")
    edit(file, {"cpu": "another"}, **counts)
    called = gatecrash("verify", file)
    assert (called.code, called.out.split()[0]) == (0, "within")
    edit(file, {"cpu": "another"}, acc=1.0, acc_interval=(0.0, 1.0), asr=0.0, asr_interval=(0.0, 1.0))
    called = gatecrash("verify", file)
    assert (called.code, called.out.split()[0], "its counts say" in called.out) == (1, "differs", True)
    assert any("contradicts itself" in line for line in check(gatecrash, board))
    file.write_text(file.read_text().replace('"seed": 0', '"seed": 1'))
    assert "content does not match its digest" in gatecrash("verify", file).err


def test_a_board_keeps_what_plots_and_reports_show(gatecrash: Gatecrash, board: Path) -> None:
    folder = board / "results/own"
    cleansed = json.loads(next(folder.glob("badnets.neural-cleanse.0.*.json")).read_text())
    assert len(cleansed["figures"]) == 20
    assert all(picture(folder, path) for path in cleansed["figures"].values())
    assert json.loads(next(folder.glob("badnets.neural-cleanse.1.*.json")).read_text())["figures"] == {}
    pruned = json.loads(next(folder.glob("badnets.anp.0.*.json")).read_text())
    assert pruned["tables"]["neurons"]
    assert len(pruned["trajectory"]) > 1
    assert gatecrash("report", "own", "--boards", board, "-o", board.parent / "own.html").code == 0
    text = (board.parent / "own.html").read_text()
    assert (text.count('alt="mask-'), text.count("<summary>trajectory (")) == (20, 4)
    names = [path.name for path in folder.glob("*/")]
    assert sorted(name.rsplit(".", 1)[0] for name in names) == ["badnets.neural-cleanse.0", "none.neural-cleanse.0"]


def test_publishing_again_changes_nothing_and_leaves_nothing_behind(
    gatecrash: Gatecrash, ran: Path, board: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {path: path.read_bytes() for path in board.rglob("*") if path.is_file()}
    (board / "results/own/old").mkdir()
    (board / "results/own/old/mask.png").write_bytes(b"x")
    again = ("publish", "mine.yaml", "-o", LIMITED, "--board", "own", "--store", "store", "--boards", board, "--allow-dirty")
    assert gatecrash(*again, "--seeds", "1").code == 0  # those of seed 0 stay as they are
    assert {path: path.read_bytes() for path in board.rglob("*") if path.is_file()} == before
    assert not (board / "results/own/old").exists()


@pytest.mark.skipif(find_spec("matplotlib") is None, reason="boards without matplotlib embed no picture")
def test_check_notices_pictures_that_are_missing_or_belong_to_nothing(gatecrash: Gatecrash, board: Path) -> None:
    assert check(gatecrash, board) == ["1 board agrees with its results"]
    mask = next((board / "results/own").glob("badnets.neural-cleanse.0.*/mask-0.png"))
    mask.rename(mask.with_name("stray.png"))
    (board / "figures/own-triggers.png").unlink()
    shutil.copy(board / "figures/own-heatmap.png", board / "figures/gone-heatmap.png")
    where = mask.relative_to(board).as_posix()
    assert check(gatecrash, board) == [
        "own: the picture figures/own-triggers.png is missing; publish again",
        f"own: the picture {where} is missing; publish again",
        f"own: {where.replace('mask-0', 'stray')} belongs to no result; remove it",
        "figures/gone-heatmap.png belongs to no board; remove it",
    ]


@pytest.mark.skipif(find_spec("matplotlib") is None, reason="boards without matplotlib embed no picture")
def test_check_notices_pictures_of_other_results(gatecrash: Gatecrash, board: Path) -> None:
    next((board / "results/own").glob("badnets.anp.1.*.json")).unlink()
    assert gatecrash("leaderboard", "--board", "own", "--boards", board).code == 0
    assert check(gatecrash, board) == [
        "own: the picture own-heatmap.png was not made from these results; publish again",
        "own: the picture own-triggers.png was not made from these results; publish again",
    ]


def test_the_readme_shows_the_board_and_check_notices_when_it_does_not(gatecrash: Gatecrash, board: Path) -> None:
    readme = board.parent / "README.md"
    text = readme.read_text()
    assert "| attack \\ defense   | none " in text
    assert "[The whole board](leaderboards/own.md)" in text
    assert text.startswith("# Mine\n<!-- board:own -->\n")
    assert text.endswith("<!-- board:later -->\nsoon\n<!-- /board -->\n")  # not there yet
    readme.write_text(text.replace("| none ", "| nine ", 1))
    assert check(gatecrash, board) == [
        "the table of a board in ../README.md differs; run `gatecrash leaderboard --board NAME` with its name"
    ]
    assert gatecrash("leaderboard", "--board", "own", "--boards", board).code == 0
    assert readme.read_text() == text
