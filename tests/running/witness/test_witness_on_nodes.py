"""On a Ray cluster of several nodes a classifier is asked again on the node that scored it."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest

from gatecrash.records.result import Result
from gatecrash.records.store import Store
from support.ray_nodes import Nodes, install_plugin

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(400)]

PLUGIN = """
import os, time
from pydantic import Field
from gatecrash import *

REMEMBERED = []

class Telling(Classifier):
    '''Notes on which node it is scored, and waits for its turn; its copy, which may open no file, says on which node it is asked.'''

    def __init__(self, inner, number, folder):
        super().__init__()
        self.inner, self.number, self.folder, self.num_classes = inner, number, folder, inner.num_classes

    def config(self):
        return {"inner": self.inner, "number": self.number, "folder": self.folder}

    def forward(self, images):
        node = os.environ["RAY_RAYLET_PID"]
        try:
            with open(f"{self.folder}/diary", "a") as diary:
                diary.write(f"{self.number} {node}\\n")
        except PermissionError:
            raise ValueError(f"asked below {node}") from None
        while not os.path.exists(f"{self.folder}/{self.number}"):
            time.sleep(0.1)
        return self.inner(images)

class Forgetful(Classifier):
    '''Honest in the process that made it only.'''

    def __init__(self, inner):
        super().__init__()
        self.inner, self.num_classes = inner, inner.num_classes

    def config(self):
        return {"inner": self.inner}

    def forward(self, images):
        REMEMBERED.append(len(images))
        return self.inner(images).roll(int(len(REMEMBERED) < 3), dims=1)

class Tells(Defense):
    name, summary = "tells", "for tests of witnesses"
    needs, gives = frozenset({Need.MODEL}), frozenset({Give.CLASSIFIER})

    class Config(Config):
        number: int = Field(0, description="sets cells apart")
        folder: str = Field(description="of the diary, and of a file for each cell whose turn it is")

    def defend(self, evidence):
        return Outcome(classifier=Telling(evidence.network, self.config.number, self.config.folder))

class Forgets(Defense):
    name, summary = "forgets", "a cheat"
    needs, gives = frozenset({Need.MODEL}), frozenset({Give.CLASSIFIER})

    def defend(self, evidence):
        return Outcome(classifier=Forgetful(evidence.network))

@hookimpl
def register_defenses(register):
    register(Tells)
    register(Forgets)
"""
CELLS = 6

# Ray names the nodes in any order: here this machine is the last
DRIVER = """
from gatecrash.running.executors import ray_driver
import ray
nodes = ray_driver.alive_nodes
ray_driver.alive_nodes = lambda: sorted(nodes(), key=lambda node: node.id == ray.get_runtime_context().get_node_id())
from gatecrash.cli import main
main()
"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    packages = tmp_path_factory.mktemp("packages")
    install_plugin(packages, "telling_plugin", PLUGIN)
    nodes = Nodes(packages)
    yield nodes
    nodes.close()


class Run:
    """A run on the cluster; `Telling` notes in `folder` where it is scored, and waits there for its turn."""

    def __init__(self, cluster: Nodes, grid: Path, folder: Path) -> None:
        self.folder, self.store = folder, folder / "store"
        command = [sys.executable, "-c", DRIVER, "run", str(grid), "--executor", "ray", "--address", cluster.address]
        self.process = subprocess.Popen(
            [*command, "--store", str(self.store)], env=cluster.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    def scored(self) -> dict[str, str]:
        """By cell: the node that scored it last."""
        diary = self.folder / "diary"
        return dict(line.split() for line in diary.read_text().splitlines()) if diary.exists() else {}

    def wait(self, until: Callable[[], bool]) -> None:
        while not until():
            assert self.process.poll() is None, self.process.communicate()[0]
            time.sleep(0.1)

    def nodes(self) -> set[str]:
        return set(self.scored().values())

    def let_go(self, cells: Iterable[str]) -> None:
        for cell in cells:
            (self.folder / cell).touch()

    def results(self) -> list[Result]:
        return list(Store(self.store).results())

    def asked(self) -> dict[str, str]:
        """By cell: the node that was asked again."""
        told = {str(result.defense[0].config["number"]): result.error or "" for result in self.results() if _name(result) == "tells"}
        return {cell: error.rpartition("asked below ")[2] for cell, error in told.items()}


def test_each_node_asks_its_own_witness_and_one_that_joins_later_the_drivers(
    cluster: Nodes, small_grid: Callable[..., Path], tmp_path: Path
) -> None:
    cluster.add()
    tells = [{"tells": {"number": number, "folder": str(tmp_path)}} for number in range(CELLS)]
    run = Run(cluster, small_grid(attacks=["none"], defenses=["none", "fine-pruning", "forgets", *tells]), tmp_path)
    try:
        run.wait(lambda: len(run.nodes()) == 2)
        first = run.scored()
        run.let_go(first)
        run.wait(lambda: first.keys() <= run.asked().keys())
        cluster.kill_last()
        cluster.add()
        run.wait(lambda: len(run.nodes()) == 3)
        run.let_go(map(str, range(CELLS)))
        said, _ = run.process.communicate(timeout=200)
    finally:
        run.process.kill()
    assert run.process.returncode == 1, said  # cells failed, as they should
    asked, others = run.asked(), set(run.scored()) - set(first)
    assert {cell: asked[cell] for cell in first} == first
    (driver,) = {asked[cell] for cell in others}
    assert driver in first.values()

    ended = {_name(result): result for result in run.results()}
    assert (ended["none"].status, ended["fine-pruning"].status) == ("ok", "ok")
    assert "in a new process" in (ended["forgets"].error or "")


def _name(result: Result) -> str:
    return result.defense[0].name if result.defense else "none"
