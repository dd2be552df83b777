"""The command line as a person uses it: what it prints, and how it ends."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gatecrash.cli import COMMANDS

Gatecrash = Callable[..., Any]
SERIAL = ("--executor", "serial", "--quiet")


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_imports_neither_torch_nor_ray_nor_pandas(command: str) -> None:
    code = (
        "import sys\nfrom gatecrash.cli import main\n"
        f"try: main({[*([command] if command else []), '--help']!r})\n"
        "except SystemExit as end: assert not end.code\n"
        "print('LOADED', sorted({'torch', 'ray', 'pandas', 'torchvision'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.rstrip().endswith("LOADED []")
    assert "Usage: gatecrash" in done.stdout


def test_run_then_results_then_leaderboard(gatecrash: Gatecrash, small_grid: Any, tmp_path: Path) -> None:
    grid, store = small_grid(), tmp_path / "store"
    assert gatecrash("run", grid, "--store", store, *SERIAL).code == 0
    records = json.loads(gatecrash("results", "--store", store, "--format", "json").out)
    assert [(record["attack"], record["defense"], record["status"]) for record in records] == [
        ("badnets", "fine-pruning", "ok"),
        ("badnets", "none", "ok"),
        ("none", "fine-pruning", "ok"),
        ("none", "none", "ok"),
    ]
    benign = records[3]
    assert [benign[name] for name in ("asr", "ra", "der", "asr_floor", "verdict")] == [None] * 5
    attacked = records[1]
    assert 0 <= attacked["asr_floor"] <= 1
    assert attacked["attack_config"]["poison_rate"] == 0.05
    rows = list(csv.DictReader(io.StringIO(gatecrash("results", "--store", store, "--format", "csv").out)))
    assert [row["key"] for row in rows] == [record["key"] for record in records]
    assert "fine-pruning" in gatecrash("results", "--store", store).out
    board = gatecrash("leaderboard", "--store", store, "--grid", grid).out
    assert f"{100 * attacked['acc']:.1f} [" in board
    assert "no result yet" not in board
    assert board.splitlines()[2:] != []
    assert gatecrash("leaderboard", "--store", store).out.count("# digits, small-cnn") == 1


def test_a_leaderboard_says_which_cells_are_missing(gatecrash: Gatecrash, small_grid: Any, tmp_path: Path) -> None:
    grid, store = small_grid(), tmp_path / "store"
    gatecrash("run", grid, "--store", store, "--only", "attack=none", *SERIAL)
    assert "2 of 4 cells have no result yet" in gatecrash("leaderboard", "--store", store, "--grid", grid).out


def test_a_dry_run_says_what_there_is_to_do_and_does_nothing(gatecrash: Gatecrash, small_grid: Any, tmp_path: Path) -> None:
    grid, store = small_grid(), tmp_path / "store"
    called = gatecrash("run", grid, "--store", store, "--dry-run")
    assert called.code == 0
    assert "2 victims (0 in the store), 4 cells (0 in the store)" in called.out
    assert not store.exists()
    gatecrash("run", grid, "--store", store, "--only", "defense=none", *SERIAL)
    assert "2 victims (2 in the store), 4 cells (2 in the store)" in gatecrash("run", grid, "--store", store, "--dry-run").out


def test_overrides_and_seeds_reach_the_grid(gatecrash: Gatecrash, small_grid: Any, tmp_path: Path) -> None:
    called = gatecrash("run", small_grid(), "--store", tmp_path / "s", "--seeds", "3,4", "-o", "recipe.epochs=1", "--dry-run")
    assert "4 victims (0 in the store), 8 cells" in called.out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["run", "quickstar"], "no grid file or shipped grid 'quickstar'; did you mean 'quickstart'?"),
        (["rum"], "no command 'rum'; did you mean 'run'?"),
        (["run", "quickstart", "--only", "badnets"], "--only badnets: write attack=NAME,NAME or defense=NAME"),
        (["run", "quickstart", "--only", "attack=blnd"], "--only attack=blnd: the grid has no such attack"),
        (["run", "quickstart", "--seeds", "x"], "--seeds x: write whole numbers separated by commas"),
        (["run", "quickstart", "-o", "epochs"], "-o epochs: write PATH=VALUE"),
        (["run", "quickstart", "-o", "recipe.epochs=none"], "recipe.epochs: Input should be a valid integer"),
        (["run", "quickstart", "--device", "tpu"], "--device tpu"),
        (["run", "quickstart", "--plugins", "missing.py"], "--plugins missing.py: no such file or folder"),
        (["run", "quickstart", "--seeds", "9" * 5000], "--seeds 999999"),
        (["run", "quickstart", "-o", "seeds=2020-13-45"], "quickstart: seeds: Input should be a valid list"),
        (["run", "quickstart", "--seeds", ",".join(map(str, range(60_000)))], "a grid of 240,000 cells"),
        (["show", "nones"], "nothing is called 'nones'; did you mean 'none'?"),
        (["new", "attack", "x" * 5000], "xxx"),
        (["show", "badnet"], "nothing is called 'badnet'; did you mean 'badnets'"),
        (["results", "--store", "nowhere"], "no store at nowhere; run a grid first"),
        (["leaderboard", "--store", "nowhere"], "no store at nowhere; run a grid first"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    gatecrash: Gatecrash, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    called = gatecrash(*arguments)
    assert called.code == 2
    assert called.out == ""
    assert called.err.startswith(f"error: {said}"), called.err
    assert len(called.err.splitlines()) == 1
    assert list(tmp_path.iterdir()) == [], "nothing is written"


@pytest.mark.parametrize("number", ["nan", "inf", "9" * 400, "x"])
@pytest.mark.parametrize("option", ["--gpus-per-task", "--victim-time-limit", "--cell-time-limit", "--workers"])
def test_a_number_must_be_one(gatecrash: Gatecrash, option: str, number: str) -> None:
    called = gatecrash("run", "quickstart", "--executor", "ray", "--dry-run", option, number)
    assert called.code == 2
    assert f"Error: Invalid value for '{option}'" in called.err


@pytest.mark.parametrize("option", ["--store", "--plugins"])
def test_a_path_that_cannot_be_looked_up_is_refused(gatecrash: Gatecrash, tmp_path: Path, option: str) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for path, said in (("a" * 300, "File name too long"), ("a/" * 3000, "File name too long"), (str(tmp_path / "loop" / "x"), "symbolic")):
        called = gatecrash("run", "quickstart", "--dry-run", option, path)
        assert called.code == 2
        assert f"Invalid value for '{option}'" in called.err
        assert said in called.err


def test_the_store_of_the_environment_is_checked_too(gatecrash: Gatecrash, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GATECRASH_STORE", "a" * 300)
    called = gatecrash("results")
    assert (called.code, "File name too long" in called.err) == (2, True)


def folder_of_images(root: Path, classes: dict[str, int]) -> Path:
    from PIL import Image

    for split in ("train", "test"):
        for index, (name, count) in enumerate(classes.items()):
            (root / split / name).mkdir(parents=True)
            for number in range(count):
                Image.new("RGB", (32, 32), (40 * index, number, len(split))).save(root / split / name / f"{number}.png")
    return root


@pytest.mark.parametrize(
    ("break_it", "said"),
    [
        (lambda root: (root / "train/cat/3.png").write_bytes(b"no image"), "3.png"),
        (lambda root: [path.unlink() for path in (root / "train/dog").iterdir()], "dog"),
        (lambda root: root.rename(root.with_name("gone")), "images"),
    ],
)
def test_a_bad_image_folder_is_named(gatecrash: Gatecrash, small_grid: Any, tmp_path: Path, break_it: Any, said: str) -> None:
    root = folder_of_images(tmp_path / "images", {"cat": 30, "dog": 30})
    break_it(root)
    called = gatecrash("run", small_grid(dataset={"imagefolder": {"root": str(root)}}), "--store", tmp_path / "store")
    assert called.code == 2
    assert said in called.err.splitlines()[-1]
    assert called.err.splitlines()[-1].startswith("error: ")
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"attacks": [{"badnets": {"target": 10}}]}, "target class 10 does not exist; the dataset has classes 0 to 9"),
        ({"attacks": [{"badnets": {"poison_rate": 1e-6}}]}, "is none; use at least"),
        ({"attacks": [{"badnets": {"poison_rate": 1}}]}, "can be poisoned; use at most"),
        ({"model": "lean"}, "model lean needs images of at least"),
        ({"holdout": {"fraction": "x"}}, "holdout.fraction: Input should be a valid number"),
    ],
)
def test_what_cannot_work_on_this_dataset_is_refused(
    gatecrash: Gatecrash, small_grid: Any, tmp_path: Path, fields: dict[str, Any], said: str
) -> None:
    if fields.get("model") == "lean":
        fields = {
            "model": "lean",
            "dataset": {"imagefolder": {"root": str(folder_of_images(tmp_path / "i", {"a": 9, "b": 9})), "resize": 4}},
        }
    called = gatecrash("run", small_grid(**fields), "--store", tmp_path / "store")
    assert called.code == 2
    assert said in called.err
    assert not (tmp_path / "store").exists()


def test_a_store_that_cannot_be_used_is_refused(gatecrash: Gatecrash, small_grid: Any, tmp_path: Path) -> None:
    newer = tmp_path / "newer"
    newer.mkdir()
    (newer / "store.json").write_text('{"schema": 99}')
    assert "was written by a newer Gatecrash" in gatecrash("run", small_grid(), "--store", newer).err
    called = gatecrash("run", small_grid(), "--store", "/proc/nowhere")
    assert (called.code, "is not writable" in called.err) == (2, True)


def test_failed_cells_give_exit_code_1_and_are_shown_as_such(gatecrash: Gatecrash, small_grid: Any, tmp_path: Path, write: Any) -> None:
    plugin = write(
        "bad.py",
        """
        import gatecrash
        class Bad(gatecrash.Defense):
            name, summary, needs, gives = "bad", "fails", frozenset(), frozenset()
            def defend(self, evidence):
                raise ValueError("a | pipe and\\nnewline")
        @gatecrash.hookimpl
        def register_defenses(register):
            register(Bad)
        """,
    )
    grid, store = small_grid(attacks=["none"], defenses=["bad"]), tmp_path / "s"
    called = gatecrash("run", grid, "--store", store, "--plugins", plugin, *SERIAL)
    assert called.code == 1
    assert "failed: none × bad (seed 0): ValueError: a | pipe and newline" in called.err
    board = gatecrash("leaderboard", "--store", store).out
    assert "failed" in board
    assert "a \\| pipe and newline" in board


def test_broken_plugins_are_listed_with_their_reason(gatecrash: Gatecrash, write: Any) -> None:
    called = gatecrash("plugins", "--plugins", write("broken.py", "import nothing_of_that_name"))
    assert called.code == 1
    assert "BROKEN" in called.out
    assert "No module named 'nothing_of_that_name'" in called.out
    assert gatecrash("plugins").code == 0


def test_list_and_show_come_from_the_plugins_own_words(gatecrash: Gatecrash) -> None:
    assert "badnets" in gatecrash("list", "attacks").out
    assert "quickstart" in gatecrash("list").out
    shown = gatecrash("show", "badnets").out
    for text in ("arxiv.org/abs/1708.06733", "poison_rate", "0.05", "> 0, <= 1", "white | checkerboard |"):
        assert text in shown
    assert "Needs: clean-data, model" in gatecrash("show", "fine-pruning").out
    assert "attacks: [none, badnets" in gatecrash("show", "quickstart").out
    assert gatecrash("show", "none").out.count("(attack") == 1


def test_doctor_finds_this_installation_sound(gatecrash: Gatecrash, tmp_path: Path) -> None:
    called = gatecrash("doctor", "--store", tmp_path / "store")
    assert called.code == 0, called.out
    assert called.out.count("ok    ") == len(called.out.splitlines())


def test_a_closed_pipe_is_no_error(tmp_path: Path) -> None:
    command = f"{sys.executable} -m gatecrash list | head -n 1"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=False, env={**os.environ})
    assert done.stdout.strip() == "ATTACKS"
    assert "Traceback" not in done.stderr
