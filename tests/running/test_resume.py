"""Nothing finished is lost, and nothing finished is computed again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from gatecrash.planning.grid import parse_grid
from gatecrash.records.result import Result
from gatecrash.records.store import Store
from gatecrash.running.display import Display
from gatecrash.running.options import RunOptions
from gatecrash.running.run import run
from support.small_runs import numbers, small


def test_one_more_defense_costs_that_defense_only(tmp_path: Path) -> None:
    run(small(defenses=["none"]), tmp_path)
    summary = run(small(), tmp_path)
    assert (summary.computed_victims, summary.computed_cells) == (0, 2)


def test_a_damaged_victim_is_made_again_with_the_same_numbers(tmp_path: Path) -> None:
    first = run(small(defenses=["none"]), tmp_path)
    for weights in (tmp_path / "victims").glob("*/*/weights.safetensors"):
        weights.write_bytes(weights.read_bytes()[:100])
    second = run(small(), tmp_path)
    assert (second.exit_code, second.computed_victims) == (0, 2)
    assert numbers(first).items() <= numbers(second).items()
    assert numbers(run(small(), tmp_path / "undisturbed")) == numbers(second)


def test_a_damaged_result_is_computed_again(tmp_path: Path) -> None:
    first = run(small(), tmp_path)
    path = next((tmp_path / "results").glob("*/*.json"))
    path.write_text(path.read_text()[:50])
    second = run(small(), tmp_path)
    assert (second.computed_victims, second.computed_cells) == (0, 1)
    assert numbers(second) == numbers(first)


def test_a_result_measured_on_other_weights_is_noticed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    summary = run(small(), tmp_path)
    store = Store(tmp_path)
    result = next(iter(summary.results.values()))
    store.save_result(result.model_copy(update={"weights": "0" * 64}))
    assert run(small(), tmp_path).computed_cells == 1
    assert "other weights" in caplog.text


def test_rerun_computes_the_selected_cells_or_their_victims_again(tmp_path: Path) -> None:
    class Told(Display):
        def cell_ended(self, result: Result) -> None:
            told.append(result.defense_name)

    told: list[str] = []
    first = run(small(), tmp_path)
    cells = run(small(), tmp_path, only={"defense": {"fine-pruning"}}, options=RunOptions(rerun="cells"), display=Told())
    assert (cells.computed_victims, cells.computed_cells, told) == (0, 2, ["fine-pruning", "fine-pruning"])
    everything = run(small(), tmp_path, options=RunOptions(rerun="all"))
    assert (everything.computed_victims, everything.computed_cells) == (2, 4)
    assert numbers(everything) == numbers(first)


def test_a_store_that_is_damaged_again_and_again_fails_cells_instead_of_training_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Saboteur(Display):
        def victim_ended(self, failed: bool) -> None:
            for file in tmp_path.glob("victims/*/*/weights.safetensors"):
                file.write_bytes(b"overwritten")

    monkeypatch.setattr("gatecrash.running.inputs.Inputs.keep_victim", lambda *_: None)  # nothing is kept in memory
    summary = run(small(), tmp_path, only={"attack": ["none"], "defense": ["none"]}, display=Saboteur())
    (result,) = summary.results.values()
    assert (summary.exit_code, summary.computed_victims) == (1, 4)
    assert result.error == f"its victim was damaged 4 times: something else writes into {tmp_path}"


def test_an_interrupted_run_keeps_what_it_finished(tmp_path: Path) -> None:
    class Impatient(Display):
        def cell_ended(self, result: Any) -> None:
            raise KeyboardInterrupt

    summary = run(small(), tmp_path, display=Impatient())
    assert (summary.exit_code, summary.interrupted, summary.computed_cells) == (130, True, 1)
    rest = run(small(), tmp_path)
    assert (rest.exit_code, rest.computed_victims, rest.computed_cells) == (0, 2 - summary.computed_victims, 3)


def start_cli(file: Path, store: Path, *more: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "gatecrash", "run", str(file), "--store", str(store), "--executor", "serial", *more]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert process.poll() is None, process.stderr and process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("stage", ["victims", "results"])
def test_killed_in_the_middle_and_run_again_finishes_the_rest_only(tmp_path: Path, small_grid: Any, stage: str) -> None:
    file = small_grid(seeds=[0, 1])
    store = tmp_path / "killed"
    pattern = {"victims": "*/*/record.json", "results": "*/*.json"}[stage]
    process = start_cli(file, store)
    wait_for(lambda: len(list((store / stage).glob(pattern))) >= 2, process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    made = len(list((store / "victims").glob("*/*/record.json")))
    finished = len(list((store / "results").glob("*/*.json")))
    assert finished < 8
    rest = run(yaml_grid(file), store)
    assert rest.exit_code == 0
    assert (rest.computed_victims, rest.computed_cells) == (4 - made, 8 - finished)
    assert numbers(rest) == numbers(run(yaml_grid(file), tmp_path / "undisturbed"))


def test_two_drivers_on_one_store_do_not_repeat_each_others_work(tmp_path: Path, small_grid: Any) -> None:
    file = small_grid(seeds=[0, 1])
    store = tmp_path / "shared"
    processes = [start_cli(file, store) for _ in range(2)]
    said = [process.communicate(timeout=240)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    trained = sum(line.startswith("done  victim") for text in said for line in text.splitlines())
    assert trained == 4, said
    computed = sum(int(text.split(" computed (")[0].rsplit(" ", 1)[1]) for text in said)
    assert computed == 8, said
    assert not (store / "damaged").exists()
    assert numbers(run(yaml_grid(file), store)) == numbers(run(yaml_grid(file), tmp_path / "alone"))


def yaml_grid(file: Path) -> Any:
    return parse_grid(yaml.safe_load(file.read_text()))


def test_a_victim_that_was_damaged_once_is_made_again_once_however_many_cells_need_it(tmp_path: Path) -> None:
    pruning = {"fine-pruning": {"epochs": 1, "lr": [0.01, 0.02, 0.03, 0.04, 0.05]}}
    run(small(attacks=["none"], defenses=["none"]), tmp_path)
    for weights in (tmp_path / "victims").glob("*/*/weights.safetensors"):
        weights.write_bytes(b"overwritten")
    summary = run(small(attacks=["none"], defenses=["none", pruning]), tmp_path)
    assert (summary.exit_code, summary.computed_victims, summary.computed_cells) == (0, 1, 5), summary.failures


def test_defended_networks_are_kept_on_request_and_records_say_what_they_were_made_from(
    gatecrash: Any, small_grid: Any, tmp_path: Path
) -> None:
    store = Store(tmp_path / "s")
    assert gatecrash("run", small_grid(seeds=[3]), "--store", store.root, "-q").code == 0
    assert not list(store.root.glob("results/*/*/classifier.safetensors"))
    assert gatecrash("run", small_grid(seeds=[3]), "--store", store.root, "-q", "--keep-models", "--rerun", "cells").code == 0
    kept = {(result.attack.name, result.defense_name) for result in store.results() if result.kept and result.kept.classifier}
    assert kept == {("none", "fine-pruning"), ("badnets", "fine-pruning")}
    for result in store.results():
        record = store.victim_record(result.victim_key)
        assert record is not None
        assert (record.attack, record.dataset, record.seed) == (result.attack, result.dataset, 3)
