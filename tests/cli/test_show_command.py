"""`gatecrash show`: values of recipes, classes of datasets."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support.image_folders import write_classes

Gatecrash = Callable[..., Any]


def words(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines()]


def test_a_recipe_is_shown_with_its_values(gatecrash: Gatecrash) -> None:
    shown = words(gatecrash("show", "fast").out)
    assert ["fast", "(recipe)"] in shown
    assert [line[:2] for line in shown if line[:1] in (["epochs"], ["batch_size"], ["lr"])] == [
        ["epochs", "16"],
        ["batch_size", "512"],
        ["lr", "0.4"],
    ]


def test_the_adaptive_recipe_is_shown_for_several_sizes(gatecrash: Gatecrash) -> None:
    shown = gatecrash("show", "adaptive").out
    assert re.search(r"field +500 images +2,000 images +5,000 images +20,000 images +50,000 images", shown)


def test_a_name_of_a_model_and_a_recipe_shows_both(gatecrash: Gatecrash) -> None:
    shown = gatecrash("show", "airbench").out
    assert "airbench (model, version" in shown
    assert "airbench (recipe)" in shown


@pytest.fixture
def signs(tmp_path: Path) -> Path:
    write_classes(tmp_path / "signs", "Stop", "Yield", count=10)
    write_classes(tmp_path / "signs", "10", count=20, start=90)
    return tmp_path / "signs"


def test_the_classes_of_a_dataset_have_numbers_and_counts(gatecrash: Gatecrash, signs: Path) -> None:
    """A fifth of each class is the test set; of the rest a quarter is held out."""
    called = gatecrash("show", "dataset", "imagefolder", "-o", f"dataset.imagefolder.root={signs}")
    assert words(called.out) == [
        [
            "imagefolder:",
            "3",
            "classes,",
            "24",
            "train",
            "+",
            "8",
            "hold-out",
            "+",
            "8",
            "test,",
            "3x4x6,",
            "smallest",
            "class",
            "8",
            "(Stop),",
            "largest",
            "16",
        ],
        [],
        ["number", "class", "train", "hold-out", "test"],
        ["--------", "-------", "-------", "----------", "------"],
        ["0", "10", "12", "4", "4"],
        ["1", "Stop", "6", "2", "2"],
        ["2", "Yield", "6", "2", "2"],
    ]


def test_a_grid_file_names_the_dataset_too(gatecrash: Gatecrash, signs: Path, tmp_path: Path) -> None:
    grid = tmp_path / "grid.yaml"
    grid.write_text(f"{{name: g, dataset: {{imagefolder: {{root: '{signs}'}}}}, model: lean, attacks: [none], defenses: [none]}}")
    assert (
        gatecrash("show", "dataset", grid).out == gatecrash("show", "dataset", "imagefolder", "-o", f"dataset.imagefolder.root={signs}").out
    )
    assert "10 classes, 1,238 train + 200 hold-out + 359 test, 1x16x16" in gatecrash("show", "dataset", "quickstart").out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["dataset", "digit"], "unknown dataset 'digit'; did you mean 'digits'?"),
        (["dataset", "imagefolder"], "dataset.imagefolder.root: is missing"),
        (["badnets", "blend"], "show takes one name, or dataset and a name; got badnets blend"),
        (["fast", "-o", "epochs=3"], "-o goes with gatecrash show dataset fast"),
        (["fsat"], "nothing is called 'fsat'; did you mean 'fast' or 'ft' or 'ft-sam'?"),
    ],
)
def test_wrong_requests_are_one_line(arguments: list[str], said: str, gatecrash: Gatecrash) -> None:
    called = gatecrash("show", *arguments)
    assert called.code == 2
    assert said in called.err
    assert called.err.count("\n") == 1


def test_a_dry_run_and_a_run_say_what_the_dataset_is_and_what_to_know(gatecrash: Gatecrash, signs: Path, tmp_path: Path) -> None:
    grid = tmp_path / "grid.yaml"
    grid.write_text(
        f"{{name: g, dataset: {{imagefolder: {{root: '{signs}', resize: 8}}}}, model: small-cnn, recipe: {{preset: tiny, epochs: 1}}, "
        "attacks: [{badnets: {target: Stop, poison_rate: 0.4}}], defenses: [none]}"
    )
    line = "imagefolder: 3 classes, 24 train + 8 hold-out + 8 test, 3x8x8, smallest class 8 (Stop), largest 16\n"
    note = "warning: badnets (poison_rate 0.4): target class 'Stop' (1) has about 6 images of its own and 10 poisoned ones; "
    dry = gatecrash("run", grid, "--dry-run", "--store", tmp_path / "store")
    assert line in dry.err
    assert note in dry.err
    real = gatecrash("run", grid, "--store", tmp_path / "store")
    assert line in real.err
    assert note in real.err
    board = re.sub(r"[*\\]", "", gatecrash("leaderboard", "--store", tmp_path / "store").out)
    assert "Note: badnets (poison" in board
    assert "Note: badnets (seed 0): the loss of the last epoch" in board
