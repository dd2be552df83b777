"""docs/plugins.md and the pages in docs/plugins/: their plugins are what `gatecrash new` writes, pass the checks and run."""

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

from gatecrash.authoring.scaffold import PLUGIN_KINDS, NewKind, check_name, files
from support.documents import PAGES, code_block, code_blocks, links
from support.paths import ROOT

Gatecrash = Callable[..., Any]
TUTORIAL = "docs/plugins.md"
NAMES: dict[NewKind, str] = {
    "attack": "corner-square",
    "training-attack": "second-loss",
    "trigger": "waves",
    "defense": "plain-fine-tuning",
    "filter": "spectral",
    "input-detector": "overlay-entropy",
    "model-detector": "largest-margin",
    "dataset": "npz",
    "model": "tiny-net",
}
"""The plugin that each page shows."""
OBSERVER, TEST = code_block(TUTORIAL, "def cell_finished("), code_block(TUTORIAL, "parametrize_with_checks([")


def shown(kind: NewKind) -> str:
    """The plugin on the page of this intention."""
    (code,) = code_blocks(f"docs/plugins/{kind}.md", "python")
    return code


def test_every_intention_has_a_page_that_the_tutorial_links() -> None:
    assert [f"plugins/{kind}.md" for kind in PLUGIN_KINDS] == [link for link in links(TUTORIAL) if link.startswith("plugins/")]
    assert {page for page in PAGES if page.startswith("docs/plugins/")} == {f"docs/plugins/{kind}.md" for kind in NAMES}
    assert set(NAMES) == set(PLUGIN_KINDS)


def test_every_example_is_tried_here_or_as_the_observer_in_test_hooks() -> None:
    assert code_blocks(TUTORIAL, "python") == [OBSERVER, TEST]


@pytest.mark.parametrize("kind", NAMES)
def test_a_page_shows_what_gatecrash_new_writes(kind: NewKind) -> None:
    written = files(kind, check_name(NAMES[kind]), Path("/somewhere"), package=False)
    assert shown(kind) == next(text for path, text in written.items() if not path.name.startswith("test_"))
    assert f"`gatecrash new {kind} {NAMES[kind]}`" in (ROOT / "docs" / "plugins" / f"{kind}.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("kind", [kind for kind in NAMES if PLUGIN_KINDS[kind] not in {"dataset", "model"}])
def test_an_attack_trigger_or_defense_passes_its_checks(gatecrash: Gatecrash, tmp_path: Path, kind: NewKind) -> None:
    plugin = tmp_path / "plugin.py"
    plugin.write_text(shown(kind))
    called = gatecrash("check", "--quick", plugin)
    assert called.code == 0, called.out
    assert "n/a" not in called.out


def test_the_dataset_and_the_model_run(gatecrash: Gatecrash, write: Callable[[str, str], Path], tmp_path: Path) -> None:
    digits = load_digits()
    images, labels = (digits.images[..., None] * 15).astype("uint8"), digits.target
    archive = tmp_path / "digits.npz"
    np.savez(archive, x_train=images[:1000], y_train=labels[:1000], x_test=images[1000:], y_test=labels[1000:])
    grid = {"name": "own", "dataset": {"npz": {"path": str(archive)}}, "model": "tiny-net", "recipe": {"preset": "tiny", "epochs": 8}}
    file = write("own.yaml", yaml.safe_dump({**grid, "attacks": ["none"], "defenses": ["none", "fine-pruning"]}))
    written = [write(f"{kind}.py", shown(kind)) for kind in ("dataset", "model")]
    called = gatecrash("run", file, "--store", tmp_path / "s", *(argument for path in written for argument in ("--plugins", path)))
    assert called.code == 0, called.err
    rows = list(csv.DictReader(gatecrash("results", "--store", tmp_path / "s", "--format", "csv").out.splitlines()))
    assert [(row["dataset"], row["model"], row["status"]) for row in rows] == [("npz", "tiny-net", "ok")] * 2
    assert all(float(row["acc"]) > 0.3 for row in rows)  # guessing has 0.1


def test_the_conformance_test_passes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "corner_square.py").write_text(shown("attack"))
    monkeypatch.syspath_prepend(tmp_path)
    names: dict[str, Any] = {}
    exec(TEST, names)
    (mark,) = names["test_it_keeps_the_contract"].pytestmark
    assert len(mark.args[1]) > 20
    for case in mark.args[1]:
        names["test_it_keeps_the_contract"](*case.values)
    sys.modules.pop("corner_square")
