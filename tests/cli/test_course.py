"""The shipped grid `course` on the digits: it plans whole, its three trigger designs land, and what the assignment asks for is shown."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gatecrash.boards.source import ResultSource
from gatecrash.boards.tables.detectors import row_detectors
from gatecrash.cli import main

pytestmark = pytest.mark.slow

Gatecrash = Callable[..., Any]
ON_DIGITS = [part for value in ("dataset=digits", "model=small-cnn", "recipe={epochs: 12, lr: 0.03}") for part in ("-o", value)]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The three trigger designs."""
    folder = tmp_path_factory.mktemp("course") / "store"
    asked = ["run", "course", *ON_DIGITS, "--only", "attack=dirty-label", "--store", folder, "--executor", "serial", "--quiet"]
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in asked])
    assert not ended.value.code
    return folder


def test_three_designs_meet_the_assignments_bar(gatecrash: Gatecrash, store: Path) -> None:
    cells = json.loads(gatecrash("results", "--store", store, "--format", "json").out)
    designs = [cell for cell in cells if cell["defense"] == "none" and cell["attack"].startswith("dirty-label")]
    assert len(designs) == 3
    assert all(cell["acc"] > 0.85 and cell["asr"] > 0.9 for cell in designs), designs


def test_the_report_shows_activation_clusterings_accuracy(store: Path) -> None:
    found = row_detectors(ResultSource(store).panel())
    shown = [dict(zip(found.columns, (field.text for field in row), strict=True)) for row in found.rows]
    assert [row["detector"] for row in shown] == ["activation-clustering"] * 3
    assert all(float(row["accuracy"]) > 50 for row in shown), shown


def test_stealth_against_effect_is_drawn_from_the_store(gatecrash: Gatecrash, store: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    for distance in ("psnr", "ssim"):
        path = tmp_path / f"{distance}.png"
        called = gatecrash("plot", "stealth", "--store", store, "--distance", distance, "--output", path)
        assert (called.code, called.out.strip()) == (0, str(path)), called.err
        assert path.read_bytes().startswith(b"\x89PNG")


def test_the_whole_grid_fits_the_digits(gatecrash: Gatecrash, tmp_path: Path) -> None:
    called = gatecrash("run", "course", *ON_DIGITS, "--dry-run", "--store", tmp_path / "none")
    assert called.code == 0, called.err
    assert "7 victims" in called.out
    assert "14 cells" in called.out
