"""A grid on a Ray cluster that was there before: several nodes on this machine, joined by the real command line."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gatecrash.records.store import Store
from support.ray_nodes import ENVIRONMENT, Nodes, install_plugin

pytestmark = [pytest.mark.ray, pytest.mark.timeout(300)]

PLUGIN = """
import os, time
from pydantic import Field
from gatecrash import *

class Slow(Defense):
    name = "slow"
    summary = "Says on which node it starts, and takes a moment."
    needs = frozenset({Need.MODEL})
    gives = frozenset({Give.CLASSIFIER})

    class Config(Config):
        number: int = Field(0, description="sets cells apart")
        diary: str = Field("", description="file that gets one line per start")

    def defend(self, evidence):
        import ray
        with open(self.config.diary, "a") as diary:
            diary.write(f"{self.config.number} {ray.get_runtime_context().get_node_id()}\\n")
        time.sleep(3)
        return Outcome(classifier=evidence.network)

@hookimpl
def register_defenses(register):
    register(Slow)
"""
CELLS = 10


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    """Every node has the plugin installed, as pip would leave it."""
    packages = tmp_path_factory.mktemp("packages")
    install_plugin(packages, "slow_plugin", PLUGIN)
    nodes = Nodes(packages)
    yield nodes
    nodes.close()


@pytest.fixture
def start(cluster: Nodes, small_grid: Callable[..., Path], tmp_path: Path) -> Callable[..., Any]:
    """Start `gatecrash run --address` on a grid of slow cells."""
    diary = tmp_path / "diary"
    slow = [{"slow": {"number": number, "diary": str(diary)}} for number in range(CELLS)]
    grid = small_grid(name="slow", attacks=["none"], defenses=["none", *slow])

    def starter(*arguments: str, code: str = "from gatecrash.cli import main; main()", **environment: str) -> subprocess.Popen[str]:
        options = ["--executor", "ray", "--address", cluster.address, "--store", str(tmp_path / "store"), *arguments]
        command = [sys.executable, "-c", code, "run", str(grid), *options]
        return subprocess.Popen(
            command, env={**cluster.environment, **environment}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    return starter


def test_a_node_that_dies_in_the_middle_costs_no_result(start: Callable[..., Any], cluster: Nodes, tmp_path: Path) -> None:
    process = start()
    try:
        # the node comes after the driver, which would else be free to join through the one that dies
        while not list((tmp_path / "store").glob("victims/*/*/record.json")):
            assert process.poll() is None, process.communicate()[0]
            time.sleep(0.1)
        doomed, diary = cluster.add(), tmp_path / "diary"
        while not (diary.exists() and doomed in diary.read_text()):
            assert process.poll() is None, process.communicate()[0]
            time.sleep(0.1)
        cluster.kill_last()
        output, _ = process.communicate(timeout=200)
    finally:
        process.kill()
    assert process.returncode == 0, output
    results = list(Store(tmp_path / "store").results())
    assert [result.status for result in results] == ["ok"] * (1 + CELLS)
    starts = [int(line.split()[0]) for line in diary.read_text().splitlines()]
    assert set(starts) == set(range(CELLS))
    assert len(starts) <= CELLS + 1  # only the cell that was on the node was started again
    assert len(re.findall(r"^\[\d+/11\]", output, re.MULTILINE)) == 1 + CELLS


def test_nodes_with_another_gatecrash_are_refused_before_anything_starts(start: Callable[..., Any], tmp_path: Path) -> None:
    other = "import gatecrash.versions; gatecrash.versions.VERSION = '99.0'; from gatecrash.cli import main; main()"
    process = start(code=other)
    output, _ = process.communicate(timeout=100)
    assert process.returncode == 2
    assert re.search(r"error: node .* has gatecrash .*, this machine 99\.0; install the same there", output)
    assert not (tmp_path / "diary").exists()


def test_nodes_that_objects_do_not_reach_are_refused_before_anything_starts(
    start: Callable[..., Any], cluster: Nodes, tmp_path: Path
) -> None:
    cluster.add()
    try:
        process = start(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN="a" * 64)
        output, _ = process.communicate(timeout=100)
    finally:
        cluster.kill_last()
    assert process.returncode == 2
    assert re.search(
        r"error: node .* cannot fetch objects from this machine: .* set RAY_AUTH_MODE \(token or disabled\) alike on both", output
    )
    assert not (tmp_path / "diary").exists()


def test_a_node_with_another_gatecrash_that_joins_later_fails_its_cells(start: Callable[..., Any], tmp_path: Path) -> None:
    # stands for a node that joins after the check: the driver passes the check and then asks for another version
    other = "\n".join(
        [
            "import gatecrash.versions; gatecrash.versions.VERSION = '99.0'",
            "from gatecrash.running.executors import ray_session",
            "ray_session._check_nodes = lambda nodes, environment: None",
            "from gatecrash.cli import main; main()",
        ]
    )
    process = start(code=other)
    output, _ = process.communicate(timeout=100)
    assert process.returncode == 1
    assert re.search(r"node .* has gatecrash .*, the driver 99\.0", output)
    assert not (tmp_path / "diary").exists()


def test_an_address_without_a_cluster_is_one_line(small_grid: Callable[..., Path], tmp_path: Path) -> None:
    command = [sys.executable, "-m", "gatecrash", "run", str(small_grid()), "--store", str(tmp_path / "store")]
    done = subprocess.run(
        [*command, "--executor", "ray", "--address", "127.0.0.1:1"], capture_output=True, text=True, check=False, env=ENVIRONMENT
    )
    assert done.returncode == 2
    assert "error: --address 127.0.0.1:1: cannot join that cluster" in done.stderr
    assert len(done.stderr.splitlines()) <= 3
