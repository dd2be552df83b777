"""A run computes what is missing, loses nothing, and one bad cell does not stop it."""

from __future__ import annotations

import json
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
from PIL import Image
from torchvision.transforms.functional import pil_to_tensor

from gatecrash.planning.grid import parse_grid
from gatecrash.records.store import Store
from gatecrash.records.summary import Summary
from gatecrash.running.display import Display
from gatecrash.running.options import RunOptions
from gatecrash.running.run import run
from gatecrash.running.tasks import perform
from gatecrash.running.tasks.features import features
from support.grids import SMALL_GRID

COUNTING = """
    import gatecrash

    class Bad(gatecrash.Defense):
        name, summary = "bad", "fails as it is told"
        needs, gives = frozenset({gatecrash.Need.MODEL, gatecrash.Need.CLEAN_DATA}), frozenset({gatecrash.Give.CLASSIFIER})

        class Config(gatecrash.Config):
            how: str = gatecrash_field("raise")

        def defend(self, evidence):
            import torch
            how = self.config.how
            if how == "raise":
                raise ValueError("out of luck")
            if how == "exit":
                raise SystemExit(7)
            if how == "not-applicable":
                raise gatecrash.NotApplicable("no BatchNorm here")
            if how == "nothing":
                return gatecrash.Outcome()
            network = evidence.network
            if how == "nan":
                for parameter in network.parameters():
                    parameter.data.fill_(float("nan"))
            if how == "undeclared":
                evidence.training_data
            return gatecrash.Outcome(classifier=network)

    @gatecrash.hookimpl
    def register_defenses(register):
        register(Bad)
""".replace('gatecrash_field("raise")', '__import__("pydantic").Field("raise", description="what goes wrong")')

FAILING_ATTACK = """
    import gatecrash

    class Doomed(gatecrash.Attack):
        name, summary = "doomed", "cannot be trained"

        def poison(self, train, ctx):
            raise RuntimeError("no such luck")

    class Diverging(gatecrash.Attack):
        name, summary = "diverging", "trains to NaN"

        def poison(self, train, ctx):
            return gatecrash.Poisoned.untouched(train)

        def implant(self, train, ctx):
            poisoned = self.poison(train, ctx)
            ctx.train(poisoned, loss=lambda network, images, labels, rows: network(images).sum() * float("nan"))

    class Lying(gatecrash.Attack):
        name, summary = "lying", "changes rows that it calls clean"

        def poison(self, train, ctx):
            import torch
            return gatecrash.Poisoned(255 - train.images, train.labels, torch.zeros(len(train), dtype=torch.uint8))

    @gatecrash.hookimpl
    def register_attacks(register):
        for attack in (Doomed, Diverging, Lying):
            register(attack)
"""


def grid(**fields: Any) -> Any:
    return parse_grid({**SMALL_GRID, **fields})


def numbers(summary: Summary) -> dict[str, Any]:
    """The measures of each cell, without what depends on the clock."""
    return {
        summary.plan.cells[key].title: {
            name: value for name, value in result.measures.model_dump().items() if not name.startswith(("seconds", "peak_memory"))
        }
        for key, result in summary.results.items()
    }


def test_a_grid_runs_and_a_second_run_computes_nothing(tmp_path: Path) -> None:
    first = run(grid(), tmp_path)
    assert (first.exit_code, first.computed_victims, first.computed_cells) == (0, 2, 4)
    second = run(grid(), tmp_path)
    assert (second.exit_code, second.computed_victims, second.computed_cells) == (0, 0, 0)
    assert numbers(second) == numbers(first)


def test_the_same_spec_gives_the_same_numbers_in_another_store_and_order(tmp_path: Path) -> None:
    first = run(grid(), tmp_path / "a")
    other = run(grid(attacks=["badnets", {"badnets": {"size": 2}}], defenses=list(reversed(SMALL_GRID["defenses"]))), tmp_path / "b")
    assert {title: values for title, values in numbers(other).items() if title in numbers(first)}.keys() == numbers(first).keys()
    kept = {key: result for key, result in other.results.items() if key in first.results}
    other.results = kept
    assert numbers(other) == numbers(first)


def test_one_more_defense_costs_that_defense_only(tmp_path: Path) -> None:
    run(grid(defenses=["none"]), tmp_path)
    summary = run(grid(), tmp_path)
    assert (summary.computed_victims, summary.computed_cells) == (0, 2)


CLUSTERING: list[Any] = [
    "none",
    {"activation-clustering": {"decision": ["relative-size", "silhouette"], "reduction": ["pca", "ica"], "retrain": False}},
]
"""Four defenses that look at the same features."""


def test_features_are_computed_once_per_victim(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []

    def counted(ground: Any, view: Any, report: Any) -> Any:
        made.append(len(view.training))
        return features(ground, view, report)

    monkeypatch.setattr(perform, "features", counted)
    summary = run(grid(defenses=CLUSTERING), tmp_path)
    assert (summary.exit_code, summary.computed_cells, len(made)) == (0, 10, 2)
    assert run(grid(defenses=CLUSTERING), tmp_path).computed_cells == 0
    assert len(made) == 2


def test_features_that_fail_fail_the_cells_that_need_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(ground: Any, view: Any, report: Any) -> Any:
        raise ValueError("out of features")

    monkeypatch.setattr(perform, "features", failing)
    summary = run(grid(defenses=[*CLUSTERING, "fine-pruning"]), tmp_path)
    assert summary.exit_code == 1
    errors = {(result.defense_name, result.error) for result in summary.results.values()}
    assert errors == {("none", None), ("fine-pruning", None), ("activation-clustering", "ValueError: out of features")}
    monkeypatch.undo()
    again = run(grid(defenses=[*CLUSTERING, "fine-pruning"]), tmp_path)
    assert (again.exit_code, again.computed_cells) == (0, 8)


def test_a_record_says_what_ran_where(tmp_path: Path) -> None:
    summary = run(grid(), tmp_path)
    (result,) = (r for r in summary.results.values() if r.attack.name == "badnets" and r.defense_name == "fine-pruning")
    assert result.measures.poison_share == pytest.approx(0.05, abs=0.01)
    assert result.measures.asr_before is not None
    assert result.provenance.gatecrash_version
    assert result.provenance.threads == 1
    assert result.provenance.plugins == {
        "badnets": "gatecrash_plugins.attacks.badnets",
        "fine-pruning": "gatecrash_plugins.defenses.fine_pruning",
    }
    assert result.attack.config["size"] == 3, "defaults are written out"
    record = Store(tmp_path).victim_record(result.victim_key)
    assert record is not None
    assert record.weights == result.weights


@pytest.mark.parametrize(
    ("how", "status", "said"),
    [
        ("raise", "failed", "ValueError: out of luck"),
        ("exit", "failed", "SystemExit: 7"),
        ("not-applicable", "not-applicable", "no BatchNorm here"),
        ("nothing", "failed", "declares a classifier but its outcome has none"),
        ("nan", "failed", "NaN"),
        ("undeclared", "failed", "evidence.training_data was read, but Need.TRAINING_DATA is not in the defense's `needs`"),
    ],
)
def test_one_bad_cell_is_recorded_and_the_grid_goes_on(tmp_path: Path, write: Any, how: str, status: str, said: str) -> None:
    file = write("bad.py", COUNTING)
    summary = run(grid(attacks=["none"], defenses=[{"bad": {"how": how}}, {"fine-pruning": {"epochs": 1}}]), tmp_path / "s", plugins=[file])
    ended = {result.defense_name: result for result in summary.results.values()}
    assert (ended["bad"].status, ended["none"].status, ended["fine-pruning"].status) == (status, "ok", "ok")
    assert said in (ended["bad"].error or "")
    assert summary.exit_code == (0 if status == "not-applicable" else 1)
    again = run(grid(attacks=["none"], defenses=[{"bad": {"how": how}}]), tmp_path / "s", plugins=[file])
    assert again.computed_cells == (0 if status == "not-applicable" else 1), "what failed is tried again, what cannot apply is not"


@pytest.mark.parametrize(
    ("attack", "said"),
    [("doomed", "no such luck"), ("diverging", "nan"), ("lying", "have role CLEAN but were changed")],
)
def test_a_failed_victim_marks_its_cells_once_and_the_others_go_on(tmp_path: Path, write: Any, attack: str, said: str) -> None:
    summary = run(grid(attacks=[attack, "badnets"]), tmp_path / "s", plugins=[write("doomed.py", FAILING_ATTACK)])
    ended = {(result.attack.name, result.defense_name): result for result in summary.results.values()}
    assert {status.status for (name, _), status in ended.items() if name == attack} == {"victim-failed"}
    assert said.lower() in (ended[attack, "fine-pruning"].error or "").lower()
    assert {status.status for (name, _), status in ended.items() if name != attack} == {"ok"}
    assert summary.exit_code == 1
    assert len(summary.failures) == 1


def test_a_damaged_victim_is_made_again_with_the_same_numbers(tmp_path: Path) -> None:
    first = run(grid(defenses=["none"]), tmp_path)
    for weights in (tmp_path / "victims").glob("*/*/weights.safetensors"):
        weights.write_bytes(weights.read_bytes()[:100])
    second = run(grid(), tmp_path)
    assert (second.exit_code, second.computed_victims) == (0, 2)
    assert numbers(first).items() <= numbers(second).items()
    assert numbers(run(grid(), tmp_path / "undisturbed")) == numbers(second)


def test_a_damaged_result_is_computed_again(tmp_path: Path) -> None:
    first = run(grid(), tmp_path)
    path = next((tmp_path / "results").glob("*/*.json"))
    path.write_text(path.read_text()[:50])
    second = run(grid(), tmp_path)
    assert (second.computed_victims, second.computed_cells) == (0, 1)
    assert numbers(second) == numbers(first)


def test_a_result_measured_on_other_weights_is_noticed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    summary = run(grid(), tmp_path)
    store = Store(tmp_path)
    result = next(iter(summary.results.values()))
    store.save_result(result.model_copy(update={"weights": "0" * 64}))
    assert run(grid(), tmp_path).computed_cells == 1
    assert "other weights" in caplog.text


def test_rerun_computes_the_selected_cells_or_their_victims_again(tmp_path: Path) -> None:
    first = run(grid(), tmp_path)
    cells = run(grid(), tmp_path, only={"defense": {"fine-pruning"}}, options=RunOptions(rerun="cells"))
    assert (cells.computed_victims, cells.computed_cells) == (0, 2)
    everything = run(grid(), tmp_path, options=RunOptions(rerun="all"))
    assert (everything.computed_victims, everything.computed_cells) == (2, 4)
    assert numbers(everything) == numbers(first)


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
    summary = run(grid(attacks=["none"]), tmp_path / "s", plugins=[write("observer.py", OBSERVER.format(path=str(path)))])
    assert summary.exit_code == 0
    lines = path.read_text().splitlines()
    assert lines[:2] == ["none,none,ok", "none,fine-pruning,ok"]
    assert lines[2] == "[('run_started', 2), ('victim_finished', 'none', None), ('run_finished', 0)]"
    assert "an observer may break" in caplog.text


def test_an_interrupted_run_keeps_what_it_finished(tmp_path: Path) -> None:
    class Impatient(Display):
        def cell_ended(self, result: Any) -> None:
            raise KeyboardInterrupt

    summary = run(grid(), tmp_path, view=Impatient())
    assert (summary.exit_code, summary.interrupted, summary.computed_cells) == (130, True, 1)
    rest = run(grid(), tmp_path)
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


def test_results_are_json_without_nan(tmp_path: Path) -> None:
    run(grid(), tmp_path)
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
    summary = run(grid(attacks=["none"], defenses=["drawing"]), store, plugins=[file])
    (result,) = (result for result in summary.results.values() if result.defense_name == "drawing")
    assert result.error is None
    assert pil_to_tensor(Image.open(store / result.figures["../mask"])).tolist() == [[[7, 7]] * 3]
    assert pil_to_tensor(Image.open(store / result.figures["first"])).float().std() > 0
    assert sorted(store.rglob("*.png")) == sorted(store / path for path in result.figures.values())
    again = run(grid(attacks=["none"], defenses=["drawing"]), store, plugins=[file])
    assert again.computed_cells == 0
    assert again.results == summary.results
