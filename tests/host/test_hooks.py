"""Hooks through the real command line: the observer that docs/plugins.md shows, and a dataset and a model from a file."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from support.documents import code_block

Gatecrash = Callable[..., Any]

OBSERVER = code_block("docs/plugins.md", "def cell_finished(")


def test_the_observer_in_the_tutorial_logs_each_cell_to_a_csv(
    gatecrash: Gatecrash, small_grid: Callable[..., Path], write: Callable[[str, str], Path], tmp_path: Path, monkeypatch: Any
) -> None:
    assert len([line for line in OBSERVER.splitlines() if line.strip()]) <= 12
    monkeypatch.chdir(tmp_path)
    plugin = write("log_cells.py", OBSERVER)
    arguments = ["run", small_grid(), "--store", tmp_path / "s", "--plugins", plugin, "--only", "attack=none"]
    assert gatecrash(*arguments).code == 0
    rows = list(csv.reader((tmp_path / "cells.csv").open()))
    assert [row[:4] for row in rows] == [["none", "none", "0", "ok"], ["none", "fine-pruning", "0", "ok"]]
    assert all(0 <= float(row[4]) <= 1 for row in rows)
    assert gatecrash(*arguments).code == 0  # nothing is computed again, so nothing is logged again
    assert len(list(csv.reader((tmp_path / "cells.csv").open()))) == 2


def test_an_observer_that_fails_is_named_and_the_run_goes_on(
    gatecrash: Gatecrash, small_grid: Callable[..., Path], write: Callable[[str, str], Path], tmp_path: Path, caplog: Any
) -> None:
    plugin = write("broken.py", "import gatecrash\n\n@gatecrash.hookimpl\ndef cell_finished(result):\n    raise OSError('no space left')\n")
    called = gatecrash(
        "run", small_grid(), "--store", tmp_path / "s", "--plugins", plugin, "--only", "attack=none", "--only", "defense=none"
    )
    assert called.code == 0
    assert f"observer cell_finished of plugin {plugin} failed and is ignored" in caplog.text
    assert "OSError: no space left" in caplog.text


GROUND = """
    import torch
    import gatecrash

    class Stripes(gatecrash.Dataset):
        name, summary = "stripes", "light and dark images with noise"

        def manifest(self):
            return "stripes"

        def load(self, progress):
            noise = torch.randint(0, 60, (240, 1, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
            labels = torch.arange(240) % 2
            images = gatecrash.ImageSet(noise + (150 * labels).to(torch.uint8).view(-1, 1, 1, 1), labels, ("dark", "light"))
            progress(240, 240)
            return gatecrash.Splits(images.subset(torch.arange(160)), images.subset(torch.arange(160, 240)), flip=True)

    class Brightness(gatecrash.Backbone):
        def __init__(self, num_classes):
            super().__init__()
            self.num_classes = num_classes
            self.mean = gatecrash.Point(1)
            self.head = torch.nn.Linear(1, num_classes)

        def config(self):
            return {"num_classes": self.num_classes}

        def forward(self, images):
            return self.head(self.mean(images.mean((1, 2, 3))[:, None]))

    class Linear(gatecrash.Model):
        name, summary = "brightness", "logistic regression on the mean brightness"

        def build(self, num_classes, shape):
            return Brightness(num_classes)

    @gatecrash.hookimpl
    def register_datasets(register):
        register(Stripes)

    @gatecrash.hookimpl
    def register_models(register):
        register(Linear)
"""


def test_a_dataset_and_a_model_from_a_file_run_in_a_grid(gatecrash: Gatecrash, write: Callable[[str, str], Path], tmp_path: Path) -> None:
    grid = {"name": "stripes", "dataset": "stripes", "model": "brightness", "attacks": ["none"], "defenses": ["none"]}
    grid["recipe"] = {"preset": "tiny", "epochs": 3, "batch_size": 16, "crop": 0}
    file = write("stripes.yaml", yaml.safe_dump(grid))
    called = gatecrash("run", file, "--store", tmp_path / "s", "--plugins", write("ground.py", GROUND))
    assert called.code == 0, called.err
    shown = gatecrash("results", "--store", tmp_path / "s", "--format", "csv")
    (row,) = csv.DictReader(shown.out.splitlines())
    assert (row["dataset"], row["model"], float(row["acc"])) == ("stripes", "brightness", 1.0)
