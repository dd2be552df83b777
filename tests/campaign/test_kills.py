"""A driver that is killed at any moment loses nothing that was finished, and the rerun ends with the numbers of an undisturbed run.

Two kills by default; GATECRASH_CAMPAIGN=full makes 45, under both executors.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from gatecrash.records.store import Store
from support.grids import SMALL_GRID

GRID = {**SMALL_GRID, "seeds": [0, 1]}
COST = ("seconds_", "peak_memory_")


class Runs:
    """Runs of one grid by the real command line."""

    def __init__(self, folder: Path) -> None:
        self._grid = folder / "grid.yaml"
        self._grid.write_text(yaml.safe_dump(GRID))

    def start(self, store: Path, executor: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "gatecrash", "run", str(self._grid), "--store", str(store), "--executor", executor]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)

    def whole(self, store: Path, executor: str) -> float:
        """Run to the end; gives the seconds that it took."""
        begin = time.monotonic()
        process = self.start(store, executor)
        said, _ = process.communicate(timeout=300)
        assert process.returncode == 0, said.decode()
        return time.monotonic() - begin


def numbers(store: Path) -> dict[str, dict[str, Any]]:
    """What every finished cell measured, without what it cost."""
    found = {file.stem: Store(store).result(file.stem) for file in store.glob("results/*/*.json")}
    assert None not in found.values()
    dumped = {key: result.measures.model_dump() for key, result in found.items() if result is not None}
    return {key: {name: value for name, value in one.items() if not name.startswith(COST)} for key, one in dumped.items()}


@pytest.mark.ray
@pytest.mark.timeout(3600)
def test_a_killed_driver_loses_nothing_and_changes_no_number(tmp_path: Path, campaign_size: Callable[[int, int], int]) -> None:
    runs, rng, wanted = Runs(tmp_path), random.Random(0), campaign_size(2, 45)
    executors = ("serial", "ray") if wanted > 2 else ("serial",)
    seconds = {executor: runs.whole(tmp_path / f"whole-{executor}", executor) for executor in executors}
    expected = numbers(tmp_path / "whole-serial")
    assert all(numbers(tmp_path / f"whole-{executor}") == expected for executor in executors)

    kills, stores = 0, 0
    while kills < wanted:
        executor, store, finished = executors[stores % len(executors)], tmp_path / f"store-{stores}", set[str]()
        stores += 1
        while len(finished) < len(expected) and kills < wanted:
            process, start = runs.start(store, executor), time.monotonic()
            try:
                process.wait(rng.uniform(0.3, 1.0) * seconds[executor])
            except subprocess.TimeoutExpired:
                os.kill(process.pid, signal.SIGKILL)
                kills += 1
            if process.wait() == 0 and not finished:  # the first run was slower, on a machine that was busy or cold
                seconds[executor] = min(seconds[executor], time.monotonic() - start)
            now = set(numbers(store))
            print(f"{executor}, store {stores}, kill {kills} of {wanted}: {len(now)} of {len(expected)} cells finished", flush=True)
            assert finished <= now
            finished = now
        runs.whole(store, executor)
        assert numbers(store) == expected
