"""A run computes a grid, and its results say how."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from torchvision.transforms.functional import pil_to_tensor

from gatecrash.errors import UserError
from gatecrash.records.store import Store
from gatecrash.running.options import RunOptions
from gatecrash.running.run import run, serial
from gatecrash.running.tasks.protocol import Executor
from support.grids import SMALL_GRID
from support.small_runs import numbers, small


def test_a_grid_runs_and_a_second_run_computes_nothing(tmp_path: Path) -> None:
    first = run(small(), tmp_path)
    assert (first.exit_code, first.computed_victims, first.computed_cells) == (0, 2, 4)
    second = run(small(), tmp_path)
    assert (second.exit_code, second.computed_victims, second.computed_cells) == (0, 0, 0)
    assert numbers(second) == numbers(first)


def test_the_same_spec_gives_the_same_numbers_in_another_store_and_order(tmp_path: Path) -> None:
    first = run(small(), tmp_path / "a")
    other = run(small(attacks=["badnets", {"badnets": {"size": 2}}], defenses=list(reversed(SMALL_GRID["defenses"]))), tmp_path / "b")
    assert first.results.keys() <= other.results.keys()
    first_numbers, other_numbers = (
        {key: result.measures.model_dump(exclude={"seconds_victim", "seconds_defense", "peak_memory_mb"}) for key, result in found.items()}
        for found in (first.results, {key: other.results[key] for key in first.results})
    )
    assert other_numbers == first_numbers


def test_an_executor_has_a_name_or_is_made_by_a_function(tmp_path: Path) -> None:
    made = []

    def own(*arguments: Any) -> Executor:
        made.append(arguments)
        return serial(*arguments)

    only = {"attack": ["none"], "defense": ["none"]}
    one = run(small(), tmp_path / "one", "serial", only=only)
    other = run(small(), tmp_path / "other", own, only=only)
    assert (one.exit_code, len(made)) == (0, 1)
    assert numbers(one) == numbers(other)


@pytest.mark.parametrize(
    ("executor", "options", "message"),
    [
        ("slurm", {}, "no executor 'slurm'; use serial or ray, or a function that makes one"),
        ("serial", {"workers": 2}, "--workers needs --executor ray"),
        ("serial", {"isolate": True}, "--isolate needs --executor ray"),
        ("ray", {"gpus_per_task": 2.0}, "--gpus-per-task 2: a task uses one GPU at most"),
        ("ray", {"device": "cuda:1"}, "--device cuda:1: Ray assigns the GPUs"),
        ("ray", {"device": "cpu", "gpus_per_task": 0.5}, "contradict each other"),
        ("ray", {"cell_time_limit": 0.0}, "--cell-time-limit 0: give a positive number"),
    ],
)
def test_a_wrong_request_is_refused_before_anything_is_written(
    tmp_path: Path, executor: Any, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        run(small(), tmp_path / "store", executor, options=RunOptions(**options))
    assert not (tmp_path / "store").exists()


def test_a_record_says_what_ran_where(tmp_path: Path) -> None:
    summary = run(small(), tmp_path)
    (result,) = (r for r in summary.results.values() if r.attack.name == "badnets" and r.defense_name == "fine-pruning")
    assert result.measures.poison_share == pytest.approx(0.05, abs=0.01)
    assert result.measures.asr_before is not None
    assert result.provenance.gatecrash_version
    assert result.provenance.threads == 1
    assert result.provenance.plugins == {
        "dataset digits": "gatecrash_plugins.datasets.digits",
        "model small-cnn": "gatecrash_plugins.models.small_cnn",
        "attack badnets": "gatecrash_plugins.attacks.badnets",
        "defense fine-pruning": "gatecrash_plugins.defenses.fine_pruning",
    }
    assert result.attack.config["size"] == 3, "defaults are written out"
    record = Store(tmp_path).victim_record(result.victim_key)
    assert record is not None
    assert record.weights == result.weights


def test_results_are_json_without_nan(tmp_path: Path) -> None:
    run(small(), tmp_path)
    files = list((tmp_path / "results").glob("*/*.json"))
    assert files
    for path in files:
        json.loads(path.read_text(), parse_constant=pytest.fail)


DRAWING = """
    import gatecrash
    import torch

    class Drawing(gatecrash.Defense):
        name, summary = "drawing", "hands pictures back"
        needs, gives = frozenset({gatecrash.Need.CLEAN_DATA}), frozenset({gatecrash.Give.VERDICT})

        def defend(self, evidence):
            figures = {"first": evidence.clean.images[0], "../mask": torch.full((1, 3, 2), 7, dtype=torch.uint8)}
            return gatecrash.Outcome(verdict=gatecrash.Verdict(False), figures=figures)

    @gatecrash.hookimpl
    def register_defenses(register):
        register(Drawing)
"""


def test_a_defenses_pictures_are_kept_beside_its_result(tmp_path: Path, write: Any) -> None:
    file = write("drawing.py", DRAWING)
    store = tmp_path / "store"
    summary = run(small(attacks=["none"], defenses=["drawing"]), store, plugins=[file])
    (result,) = (result for result in summary.results.values() if result.defense_name == "drawing")
    assert result.error is None
    assert pil_to_tensor(Image.open(store / result.figures["../mask"])).tolist() == [[[7, 7]] * 3]
    assert pil_to_tensor(Image.open(store / result.figures["first"])).float().std() > 0
    assert sorted(store.rglob("*.png")) == sorted(store / path for path in result.figures.values())
    again = run(small(attacks=["none"], defenses=["drawing"]), store, plugins=[file])
    assert again.computed_cells == 0
    assert again.results == summary.results


OBSERVER = """
    import gatecrash

    seen = []

    @gatecrash.hookimpl
    def run_started(plan):
        seen.append(("run_started", len(plan.cells)))

    @gatecrash.hookimpl
    def victim_finished(victim, error):
        seen.append(("victim_finished", victim.attack.name, error))

    @gatecrash.hookimpl
    def cell_finished(cell, result):
        with open({path!r}, "a") as file:
            file.write(f"{{result.attack.name}},{{result.defense_name}},{{result.status}}\\n")
        raise RuntimeError("an observer may break")

    @gatecrash.hookimpl
    def run_finished(summary):
        seen.append(("run_finished", summary.exit_code))
        with open({path!r}, "a") as file:
            file.write(repr(seen))
"""


def test_observers_see_the_run_and_their_exceptions_are_logged_and_ignored(
    tmp_path: Path, write: Any, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "seen.csv"
    summary = run(small(attacks=["none"]), tmp_path / "s", plugins=[write("observer.py", OBSERVER.format(path=str(path)))])
    assert summary.exit_code == 0
    lines = path.read_text().splitlines()
    assert lines[:2] == ["none,none,ok", "none,fine-pruning,ok"]
    assert lines[2] == "[('run_started', 2), ('victim_finished', 'none', None), ('run_finished', 0)]"
    assert "an observer may break" in caplog.text


def test_the_steps_of_a_trajectory_agree_with_the_cells_of_the_same_networks(tmp_path: Path) -> None:
    """What a defense hands back is one of its steps, and the step that changes nothing is the victim: each is scored once."""
    anp = {"anp": {"iterations": 30, "selection": "fixed", "by": "number", "number": 0, "batch_size": 16}}
    summary = run(small(attacks=["badnets"], defenses=["none", anp]), tmp_path, only={"attack": ["badnets"]})
    victim, defended = (result.measures.scores for result in summary.results.values() if result.attack.name == "badnets")
    (steps,) = (result.trajectory for result in summary.results.values() if result.trajectory)
    assert victim is not None
    assert defended == victim
    assert [step.params["number"] for step in steps if step.scores == victim.without_classes()][:1] == [0]
    assert len({step.loss_clean for step in steps}) > 10
