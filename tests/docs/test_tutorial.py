"""docs/plugins.md: its examples work as shown."""

from __future__ import annotations

import csv
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from sklearn.datasets import load_digits

from support.documents import code_block, code_blocks

Gatecrash = Callable[..., Any]
TUTORIAL = "docs/plugins.md"
ATTACK, DEFENSE = code_block(TUTORIAL, "class CornerDot("), code_block(TUTORIAL, "class FineTuning(")
EARLY_LOSS = code_block(TUTORIAL, "class EarlyLoss(")
DATASET, MODEL = code_block(TUTORIAL, "class NumpyArchive("), code_block(TUTORIAL, "class Tiny(")
OBSERVER, TEST = code_block(TUTORIAL, "def cell_finished("), code_block(TUTORIAL, "parametrize_with_checks([")


def test_every_example_is_tried_here_or_as_the_observer_in_test_hooks() -> None:
    assert code_blocks(TUTORIAL, "python") == [ATTACK, DEFENSE, EARLY_LOSS, DATASET, MODEL, OBSERVER, TEST]


@pytest.mark.parametrize(
    ("example", "attacks", "defenses"),
    [(ATTACK, ["corner-dot"], []), (DEFENSE, [], ["plain-fine-tuning"]), (EARLY_LOSS, [], ["early-loss"])],
)
def test_the_attack_and_the_defense_run(
    gatecrash: Gatecrash, small_grid: Callable[..., Path], tmp_path: Path, example: str, attacks: list[str], defenses: list[str]
) -> None:
    plugin = tmp_path / "plugin.py"
    plugin.write_text(example)
    grid = small_grid(attacks=["none", *attacks], defenses=["none", *defenses])
    called = gatecrash("run", grid, "--store", tmp_path / "s", "--plugins", plugin)
    assert called.code == 0, called.err
    assert "warning" not in called.err


def test_the_defense_passes_its_checks(gatecrash: Gatecrash, tmp_path: Path) -> None:
    plugin = tmp_path / "plain_fine_tuning.py"
    plugin.write_text(DEFENSE)
    called = gatecrash("check", plugin)
    assert called.code == 0, called.out


def test_the_dataset_and_the_model_run(gatecrash: Gatecrash, write: Callable[[str, str], Path], tmp_path: Path) -> None:
    digits = load_digits()
    images, labels = (digits.images[..., None] * 15).astype("uint8"), digits.target
    archive = tmp_path / "digits.npz"
    np.savez(archive, x_train=images[:1000], y_train=labels[:1000], x_test=images[1000:], y_test=labels[1000:])
    grid = {"name": "own", "dataset": {"npz": {"path": str(archive)}}, "model": "tiny-net", "recipe": {"preset": "tiny", "epochs": 8}}
    file = write("own.yaml", yaml.safe_dump({**grid, "attacks": ["none"], "defenses": ["none", "fine-pruning"]}))
    plugins = [argument for name, text in (("data", DATASET), ("net", MODEL)) for argument in ("--plugins", write(f"{name}.py", text))]
    called = gatecrash("run", file, "--store", tmp_path / "s", *plugins)
    assert called.code == 0, called.err
    rows = list(csv.DictReader(gatecrash("results", "--store", tmp_path / "s", "--format", "csv").out.splitlines()))
    assert [(row["dataset"], row["model"], row["status"]) for row in rows] == [("npz", "tiny-net", "ok")] * 2
    assert all(float(row["acc"]) > 0.3 for row in rows)  # guessing has 0.1


def test_the_conformance_test_passes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "corner_dot.py").write_text(ATTACK)
    monkeypatch.syspath_prepend(tmp_path)
    names: dict[str, Any] = {}
    exec(TEST, names)
    (mark,) = names["test_it_keeps_the_contract"].pytestmark
    assert len(mark.args[1]) > 20
    for case in mark.args[1]:
        names["test_it_keeps_the_contract"](*case.values)
    sys.modules.pop("corner_dot")
