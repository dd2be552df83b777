"""How far one driver goes: nodes, cells, and two drivers on one cluster (run with `make bench`; a plain pytest run skips it).

The nodes are Ray nodes of one CPU each on this machine, so they share its cores with the driver: on two cores more nodes than two can only
show what nodes cost. The driver's CPU seconds per cell say how many cells a second it can feed wherever the nodes stand.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bench_growth import exponent
from tabulate import tabulate

from support.ray_nodes import ENVIRONMENT, Nodes

NODES = [1, 2, 4, 8]
CELLS_ON_NODES = 300
CELLS = [1_000, 10_000, 100_000]
SHARED = 100
"""Cells of each of two drivers."""
SLEEP = 0.1
"""Seconds of each of their tasks, two per cell: the nodes are the limit, not this machine's cores."""

Figures = dict[str, float]


class Driver:
    """A driver in a process of its own, ready to start."""

    def __init__(self, folder: Path, cells: int, address: str | None = None, seconds: float = 0.0) -> None:
        script = str(Path(__file__).with_name("no_op_driver.py"))
        given = [address, str(seconds)] if address else []
        command = [sys.executable, script, str(folder), str(cells), *given]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=ENVIRONMENT)
        self.store = folder

    def wait_until_ready(self) -> None:
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "READY\n"

    def start(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write("go\n")
        self._process.stdin.flush()

    def figures(self) -> Figures:
        said, _ = self._process.communicate()
        assert self._process.returncode == 0
        found: Figures = json.loads(said.splitlines()[-1])
        return found


def measured(folder: Path, cells: int, address: str | None = None) -> Figures:
    driver = Driver(folder, cells, address)
    driver.wait_until_ready()
    driver.start()
    return driver.figures()


@contextmanager
def cluster(nodes: int, folder: Path) -> Iterator[str]:
    started = Nodes(folder)
    try:
        for _ in range(nodes - 1):
            started.add()
        yield started.address
    finally:
        started.close()


def row(what: str, sizes: list[int], found: list[Figures], cells: list[int]) -> list[str]:
    """Figures against sizes, and how cells a second, driver's CPU and memory grow with them."""
    seconds, cpu, memory = (np.array([one[name] for one in found]) for name in ("seconds", "cpu", "mib"))
    rates = np.array(cells) / seconds

    def listed(values: Any, form: str) -> str:
        return ", ".join(format(value, form) for value in values)

    grows = [exponent(sizes, list(values)) for values in (rates, cpu)]
    return [
        what,
        listed(sizes, ","),
        listed(rates, ".0f"),
        f"{grows[0]:.2f}",
        listed(cpu / cells * 1000, ".1f"),
        f"{grows[1]:.2f}",
        listed(memory, ",.0f"),
    ]


def show(rows: list[list[str]]) -> None:
    header = [
        "grows",
        "sizes",
        "cells/s",
        "exponent",
        "driver's CPU ms per cell",
        "exponent of its CPU",
        "its growth, MiB",
    ]
    print("\n\n" + tabulate(rows, header, tablefmt="github", disable_numparse=True), flush=True)


def test_nodes(tmp_path: Path) -> None:
    found = []
    for nodes in NODES:
        with cluster(nodes, tmp_path) as address:
            found.append(measured(tmp_path / f"{nodes}", CELLS_ON_NODES, address))
    show([row("nodes", NODES, found, [CELLS_ON_NODES] * len(NODES))])


def test_cells(tmp_path: Path) -> None:
    """Without Ray: what a driver plans, schedules, stores and remembers."""
    found = [measured(tmp_path / f"{cells}", cells) for cells in CELLS]
    show([row("cells", CELLS, found, CELLS)])


def test_two_drivers_share_a_cluster(tmp_path: Path) -> None:
    with cluster(4, tmp_path) as address:
        drivers = [Driver(tmp_path / name, SHARED, address, SLEEP) for name in ("one", "other")]
        for driver in drivers:
            driver.wait_until_ready()
        before = [len(ended(driver.store)) for driver in drivers]
        for driver in drivers:
            driver.start()
        figures = [driver.figures() for driver in drivers]
    times = [ended(driver.store)[count:] for driver, count in zip(drivers, before, strict=True)]
    start, end = max(one[0] for one in times), min(one[-1] for one in times)
    shares = [sum(start <= when <= end for when in one) for one in times]
    print(
        f"\n\ntwo drivers on 4 nodes, {SHARED} cells of {2 * SLEEP:g} s each: {shares[0]} and {shares[1]} cells while both were at work "
        f"({end - start:.0f} s); each ended after {figures[0]['seconds']:.0f} and {figures[1]['seconds']:.0f} s, "
        f"ideal {2 * SHARED * 2 * SLEEP / 4:.0f} s"
    )


def ended(store: Path) -> list[float]:
    """When each cell of the store was written, in order."""
    return sorted(path.stat().st_mtime for path in store.glob("results/*/*.json"))


@pytest.fixture(autouse=True)
def _no_time_limit(request: pytest.FixtureRequest) -> None:
    request.node.add_marker(pytest.mark.timeout(0))
