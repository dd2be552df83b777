"""Features are computed once for all defenses of a victim."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gatecrash.running.options import RunOptions
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


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """One entry for each time that features are computed; however little that takes, they are worth keeping."""
    calls = []

    def counted(ground: Any, defender_input: Any, report: Any) -> Any:
        calls.append(len(defender_input.training_data))
        return features(ground, defender_input, report)

    monkeypatch.setattr(perform, "features", counted)
    monkeypatch.setattr("gatecrash.running.nodes.features.WORTH_KEEPING", 0.0)
    monkeypatch.setattr("gatecrash.running.nodes.features.READ_PER_SECOND", 1e15)
    return calls


def by_silhouette(**options: Any) -> Any:
    return small(attacks=["none"], defenses=["none", {"activation-clustering": {"decision": "silhouette", "retrain": False, **options}}])


def test_the_next_run_finds_features_in_the_store_and_comes_to_the_same_numbers(tmp_path: Path, made: list[int]) -> None:
    first = run(by_silhouette(), tmp_path)
    again = run(by_silhouette(), tmp_path, options=RunOptions(rerun="cells"))
    assert (again.computed_cells, len(made)) == (first.computed_cells, 1)
    kept = [{key: result.kept for key, result in summary.results.items()} for summary in (first, again)]
    assert kept[0] == kept[1]  # with the digests of suspects and suspicion
    run(by_silhouette(silhouette=0.3), tmp_path)
    assert len(made) == 1
    run(by_silhouette(), tmp_path, options=RunOptions(rerun="all"))
    assert len(made) == 2


def test_features_of_another_machine_or_damaged_ones_are_computed_again(
    tmp_path: Path, made: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    run(by_silhouette(), tmp_path)
    (values,) = (tmp_path / "features").glob("*/*/features.safetensors")
    content = values.read_bytes()
    values.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    run(by_silhouette(), tmp_path, options=RunOptions(rerun="cells"))
    assert len(made) == 2
    (values.parent / "record.json").write_text("{}")
    run(by_silhouette(), tmp_path, options=RunOptions(rerun="cells"))
    assert len(made) == 3
    monkeypatch.setattr("gatecrash.running.tasks.features.cpu_model", lambda: "another processor")
    run(by_silhouette(), tmp_path, options=RunOptions(rerun="cells"))
    assert len(made) == 4


def test_features_that_are_quickly_computed_are_not_stored(tmp_path: Path) -> None:
    run(by_silhouette(), tmp_path)
    assert not (tmp_path / "features").exists()
