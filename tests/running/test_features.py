"""Features are computed once for all defenses of a victim."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gatecrash.running.run import run
from gatecrash.running.tasks import perform
from gatecrash.running.tasks.features import features
from support.small_runs import small

CLUSTERING: list[Any] = [
    "none",
    {"activation-clustering": {"decision": ["relative-size", "silhouette"], "reduction": ["pca", "ica"], "retrain": False}},
]
"""Four defenses that look at the same features."""


def test_features_are_computed_once_per_victim(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []

    def counted(ground: Any, defender_input: Any, report: Any) -> Any:
        made.append(len(defender_input.training_data))
        return features(ground, defender_input, report)

    monkeypatch.setattr(perform, "features", counted)
    summary = run(small(defenses=CLUSTERING), tmp_path)
    assert (summary.exit_code, summary.computed_cells, len(made)) == (0, 10, 2)
    assert run(small(defenses=CLUSTERING), tmp_path).computed_cells == 0
    assert len(made) == 2


def test_features_that_fail_fail_the_cells_that_need_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(ground: Any, defender_input: Any, report: Any) -> Any:
        raise ValueError("out of features")

    monkeypatch.setattr(perform, "features", failing)
    summary = run(small(defenses=[*CLUSTERING, "fine-pruning"]), tmp_path)
    assert summary.exit_code == 1
    errors = {(result.defense_name, result.error) for result in summary.results.values()}
    assert errors == {("none", None), ("fine-pruning", None), ("activation-clustering", "ValueError: out of features")}
    monkeypatch.undo()
    again = run(small(defenses=[*CLUSTERING, "fine-pruning"]), tmp_path)
    assert (again.exit_code, again.computed_cells) == (0, 8)
