"""Tasks that map their training set from a file find what tasks with a copy in memory find."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gatecrash.datasets import selection
from gatecrash.records.summary import Summary
from gatecrash.running.run import run, serial


def test_the_same_numbers_from_files_as_from_memory(
    small_grid: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grid = small_grid(
        model={"small-cnn": {"width": 4}},
        recipe={"preset": "tiny", "epochs": 2, "batch_size": 16, "crop": 2},
        attacks=["badnets"],
        defenses=["none", {"activation-clustering": {"decision": "relative-size", "retrain": False}}],
    )
    cache = tmp_path / "cache"
    monkeypatch.setenv("GATECRASH_CACHE", str(cache))

    def measured(store: str) -> dict[str, Any]:
        summary: Summary = run(grid, tmp_path / store, serial)
        assert {result.status for result in summary.results.values()} == {"ok"}, summary.failures
        costs = {"seconds_victim", "seconds_defense", "peak_memory_mb"}
        return {key: [result.weights, result.measures.model_dump(exclude=costs)] for key, result in summary.results.items()}

    in_memory = measured("memory")
    assert not (cache / "selections").exists()
    monkeypatch.setattr(selection, "SMALL", 0)
    assert measured("files") == in_memory
    assert any((cache / "selections").iterdir())
