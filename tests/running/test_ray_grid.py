"""A grid on real Ray: the same numbers as the serial executor, shared data, plugins that only the driver has, separate roles."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gatecrash.host.host import Host
from gatecrash.records.summary import Summary
from gatecrash.running.options import RunOptions
from gatecrash.running.run import ray, run, serial
from gatecrash.running.tasks.protocol import TaskReport

pytestmark = [pytest.mark.ray, pytest.mark.timeout(300)]

COSTS = ("seconds_victim", "seconds_defense", "peak_memory_mb")

PLUGIN = """
import gc, json, os, threading
from pathlib import Path
import torch
from pydantic import Field
from gatecrash import *

class Doubled(Classifier):
    \"\"\"A classifier of a type that only this file knows.\"\"\"

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    @property
    def num_classes(self):
        return self.inner.num_classes

    def config(self):
        return {"inner": self.inner}

    def forward(self, images):
        return 2 * self.inner(images)

def note(diary, what, **more):
    sets = {len(found) for found in gc.get_objects() if isinstance(found, ImageSet)}
    entry = {"what": what, "pid": os.getpid(), "role": os.environ.get("GATECRASH_ROLE"), "threads": torch.get_num_threads(),
             "sets": sorted(sets), **more}
    with open(diary, "a") as file:
        file.write(json.dumps(entry) + "\\n")

class Curious(Defense):
    name = "curious"
    summary = "Writes down where it runs and which data sets its process holds."
    needs = frozenset({Need.MODEL, Need.TRAINING_DATA})
    gives = frozenset({Give.CLASSIFIER})

    class Config(Config):
        diary: str = Field(description="file to write to")

    def defend(self, evidence):
        note(self.config.diary, "defend", rows=len(evidence.training_data))
        return Outcome(classifier=Doubled(evidence.network))

class CuriousAttack(Attack):
    name = "curious"
    summary = "Writes down where it runs."
    version = 1
    controls = "data"

    class Config(Config):
        diary: str = Field(description="file to write to")

    def poison(self, train, ctx):
        note(self.config.diary, "implant", rows=len(train))
        return Poisoned.untouched(train)

@hookimpl
def register_defenses(register):
    register(Curious)

@hookimpl
def register_attacks(register):
    register(CuriousAttack)
"""


def measured(summary: Summary) -> dict[str, Any]:
    """Everything that was measured, by cell, but the costs."""
    assert {result.status for result in summary.results.values()} == {"ok"}, summary.failures
    return {
        key: [
            result.weights,
            {k: v for k, v in result.measures.model_dump().items() if k not in COSTS},
            [step.model_dump() for step in result.trajectory],
            result.tables,
        ]
        for key, result in sorted(summary.results.items())
    }


def test_serial_and_ray_agree_to_the_last_digit(local_ray: None, small_grid: Callable[..., Path], tmp_path: Path) -> None:
    recipe = {"preset": "tiny", "epochs": 6, "batch_size": 16}
    clustering = {"activation-clustering": {"decision": "relative-size", "retrain": False}}  # needs features: a task of their own
    defenses = ["none", {"fine-pruning": {"epochs": 1}}, clustering]
    grid = small_grid(recipe=recipe, attacks=["none", "badnets", "clean-label"], defenses=defenses)
    one = run(grid, tmp_path / "one", serial)
    other = run(grid, tmp_path / "other", ray)
    assert json.dumps(measured(one)) == json.dumps(measured(other))
    assert len(one.results) == 9


@pytest.fixture(scope="module")
def diary(local_ray: None, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What the plugin wrote while a grid ran with it, on two threads per task."""
    folder = tmp_path_factory.mktemp("curious")
    diary, plugin, grid = folder / "diary", folder / "curious.py", folder / "grid.yaml"
    plugin.write_text(PLUGIN)
    option = json.dumps({"diary": str(diary)})
    grid.write_text(
        f"{{name: curious, dataset: {{digits: {{limit: 200, limit_test: 61}}}}, model: {{small-cnn: {{width: 4}}}}, "
        f"recipe: {{preset: tiny, epochs: 2, batch_size: 16}}, attacks: [{{curious: {option}}}], defenses: [{{curious: {option}}}]}}"
    )

    def driver_alone_has_it(host: Host, options: RunOptions, report: TaskReport, logs: Path) -> Any:
        executor = ray(host, options, report, logs)
        plugin.unlink()
        return executor

    summary = run(grid, folder / "store", driver_alone_has_it, plugins=[plugin], options=RunOptions(threads=2))
    assert summary.exit_code == 0, summary.failures
    return [json.loads(line) for line in diary.read_text().splitlines()]


def test_plugins_that_only_the_driver_has_run_in_the_workers(diary: list[dict[str, Any]]) -> None:
    assert sorted(entry["what"] for entry in diary) == ["defend", "defend", "implant"]


def test_tasks_compute_with_the_threads_that_were_asked_for(diary: list[dict[str, Any]]) -> None:
    assert {entry["threads"] for entry in diary} == {2}


def test_defenses_never_share_a_process_with_the_ground_truth(diary: list[dict[str, Any]]) -> None:
    pids = {what: {entry["pid"] for entry in diary if entry["what"] == what} for what in ("implant", "defend")}
    assert not pids["implant"] & pids["defend"]
    assert {entry["role"] for entry in diary if entry["what"] == "defend"} == {"defend"}
    (victim,) = [entry for entry in diary if entry["what"] == "implant"]
    for entry in diary:
        if entry["what"] == "defend":
            assert entry["rows"] == victim["rows"]
            assert 61 not in entry["sets"]  # the test set
            assert set(entry["sets"]) == {victim["rows"], 200 - victim["rows"]}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--workers", "5000"], "error: --workers 5000: only "),
        (["--cpus-per-task", "1000"], "error: --cpus-per-task 1000: the largest machine has "),
        (["--gpus-per-task", "2"], "error: --gpus-per-task 2: a task uses one GPU at most"),
        (["--device", "cpu", "--gpus-per-task", "0.5"], "contradict each other"),
        (["--cell-time-limit", "0"], "error: --cell-time-limit 0: give a positive number"),
        (["--executor", "serial", "--workers", "2"], "error: --workers needs --executor ray"),
    ],
)
def test_a_request_that_cannot_be_met_is_one_line_and_computes_nothing(
    local_ray: None, gatecrash: Callable[..., Any], small_grid: Callable[..., Path], tmp_path: Path, arguments: list[str], message: str
) -> None:
    called = gatecrash("run", small_grid(), "--store", tmp_path / "store", "--executor", "ray", *arguments)
    assert called.code == 2
    assert message in called.err
    assert not list((tmp_path / "store").glob("victims/*"))
