"""What Gatecrash adds to the work of a grid: planning, scheduling, Ray (run with `make bench`; a plain pytest run skips it).

Each line is a figure and its goal. Times are of the clock: on a machine that does something else too they are upper bounds.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gatecrash.planning.grid import parse_grid
from gatecrash.records.store import Store
from gatecrash.records.summary import Summary
from gatecrash.running.run import ExecutorFactory, ray, run, serial

PLUGIN = """
import os, time
from pydantic import Field
from gatecrash import *

class NoOp(Defense):
    name = "no-op"
    summary = "Does nothing, or sleeps."
    needs = frozenset()
    gives = frozenset()

    class Config(Config):
        number: int = Field(0, description="sets cells apart")
        seconds: float = Field(0.0, description="how long to sleep")
        diary: str = Field("", description="file that gets a line per call")

    def defend(self, evidence):
        if self.config.seconds:
            time.sleep(self.config.seconds)
        if self.config.diary:
            with open(self.config.diary, "a") as diary:
                diary.write(f"{self.config.number}\\n")
        return Outcome()

@hookimpl
def register_defenses(register):
    register(NoOp)
"""


@pytest.fixture(scope="session", autouse=True)
def _installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The plugin as a package with an entry point, on the path of every process: `--plugins` would give each of its tasks a new worker."""
    folder = tmp_path_factory.mktemp("site")
    (folder / "gatecrash_no_op.py").write_text(PLUGIN)
    metadata = folder / "gatecrash_no_op-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: gatecrash-no-op\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[gatecrash]\nno-op = gatecrash_no_op\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        patch.setenv("PYTHONPATH", str(folder), prepend=os.pathsep)
        yield


def fields(cells: int, **options: Any) -> dict[str, Any]:
    """A grid of one victim and so many cells that do nothing."""
    return {
        "name": "no-op",
        "dataset": {"digits": {"limit": 100, "limit_test": 50}},
        "model": {"small-cnn": {"width": 4}},
        "recipe": {"preset": "tiny", "epochs": 5, "batch_size": 16},
        "attacks": ["none"],
        "defenses": ["none", {"no-op": {"number": {"sweep": list(range(cells))}, **options}}],
    }


def timed(cells: range, store: Path, executor: ExecutorFactory) -> tuple[float, Summary]:
    grid = fields(0)
    grid["defenses"] = ["none", {"no-op": {"number": list(cells)}}]
    start = time.perf_counter()
    summary = run(parse_grid(grid), store, executor)
    seconds = time.perf_counter() - start
    assert summary.exit_code == 0, summary.failures[:3]
    return seconds, summary


def say(text: str) -> None:
    print(f"\n{text}", end="", flush=True)


def test_overhead_per_cell_and_warm_rerun_serial(tmp_path: Path) -> None:
    timed(range(10), tmp_path, serial)
    seconds, _ = timed(range(1010), tmp_path, serial)
    say(f"overhead per no-op cell, serial: {seconds:.2f} ms (goal 5)")
    again, summary = timed(range(1010), tmp_path, serial)
    assert summary.computed_cells == 0
    say(f"warm rerun of a finished 1,000-cell grid: {again:.2f} s (goal 5)")


def test_overhead_per_cell_ray(local_ray: None, tmp_path: Path) -> None:
    timed(range(10), tmp_path, ray)
    seconds, _ = timed(range(1010), tmp_path, ray)
    say(f"overhead per no-op cell, Ray: {seconds:.2f} ms (goal 20)")


def test_planning_a_hundred_thousand_cells() -> None:
    """In a process of its own, for its memory."""
    script = f"""
import json, time
from gatecrash.planning.grid import parse_grid
from gatecrash.host.loading import load_plugins
from gatecrash.process.measuring import peak_of_this_process
from gatecrash.planning.planned import plan_grid
host = load_plugins()
grid = {fields(10)!r}
grid["seeds"] = list(range(100))
grid["attacks"] = [{{"badnets": {{"poison_rate": [0.01 * n for n in range(1, 10)]}}}}]
grid["defenses"] = ["none", {{"no-op": {{"number": list(range(99))}}}}]
parsed = parse_grid(grid)
plan_grid(parse_grid({{**grid, "seeds": [0]}}), host)  # decodes the dataset
before = time.perf_counter()
plan = plan_grid(parsed, host).plan
print(json.dumps([len(plan.cells), time.perf_counter() - before, peak_of_this_process() / 2**10]))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    cells, seconds, gigabytes = json.loads(done.stdout)
    assert cells == 100_000
    say(f"planning {cells:,} cells: {seconds:.2f} s (goal 5), {gigabytes:.2f} GiB with torch and plugins (goal 1)")


def test_quickstart_ray_against_serial(tmp_path: Path) -> None:
    """The real command, from start to end, in turns."""

    def seconds(name: str, *options: str) -> float:
        start = time.perf_counter()
        command = [sys.executable, "-m", "gatecrash", "run", "quickstart", "-q", "--store", str(tmp_path / name), *options]
        subprocess.run(command, check=True)
        return time.perf_counter() - start

    rounds = [
        (
            seconds(f"ray-{number}", "--executor", "ray", "--workers", "2"),
            seconds(f"serial-{number}", "--executor", "serial", "--cpus-per-task", "2"),
        )
        for number in range(3)
    ]
    ratio = statistics.median(one / other for one, other in rounds)
    ours, theirs = (statistics.median(column) for column in zip(*rounds, strict=True))
    say(f"quickstart, Ray with 2 workers x 1 thread / serial with 2 threads: {ratio:.2f} ({ours:.1f} s / {theirs:.1f} s; goal 1)")


@pytest.fixture
def cluster() -> Iterator[Any]:
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_idle_worker_killing_time_threshold_ms", "3600000")
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
        yield cluster
        cluster.shutdown()


def test_a_cluster_of_four_nodes_that_loses_one(cluster: Any, tmp_path: Path) -> None:
    cells, length, slots = 2000, 0.2, 8
    nodes = [cluster.add_node(num_cpus=2) for _ in range(3)]
    grid, diary, store = tmp_path / "grid.yaml", tmp_path / "diary", Store(tmp_path / "store")
    grid.write_text(json.dumps(fields(cells, seconds=length, diary=str(diary))))
    command = [sys.executable, "-m", "gatecrash", "run", str(grid), "--store", str(store.root)]
    start = time.perf_counter()
    process = subprocess.Popen([*command, "-q", "--executor", "ray", "--address", cluster.address], env=dict(os.environ))
    first = None
    while process.poll() is None:
        done = len(diary.read_text().split()) if diary.exists() else 0
        if done and first is None:
            first = time.perf_counter()
        if done > cells / 2 and nodes:
            cluster.remove_node(nodes.pop(), allow_graceful=False)
            nodes.clear()
        time.sleep(0.2)
    end = time.perf_counter()
    assert process.returncode == 0
    assert first is not None
    results = Counter(result.status for result in store.results())
    calls = Counter(diary.read_text().split())
    ideal = cells / 2 * length / slots + cells / 2 * length / (slots - 2)
    say(
        f"4 nodes x 2 CPUs, one killed in the middle, {cells:,} cells of {length} s: {dict(results)}, {sum(calls.values()) - cells} run "
        f"twice; {end - first:.0f} s from the first cell ({end - start:.0f} s with start-up), ideal {ideal:.0f} s on {slots} cores, "
        f"here are {os.cpu_count()}"
    )
    assert results == {"ok": cells + 1}
    assert len(calls) == cells
