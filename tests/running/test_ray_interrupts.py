"""Ctrl-C and sudden death of the driver, with the real command line on its own Ray."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from gatecrash.records.store import Store
from gatecrash.running.run import run

pytestmark = [pytest.mark.ray, pytest.mark.timeout(300), pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs /proc")]

PLUGIN = """
import os, time
from pydantic import Field
from gatecrash import *

class Sleepy(Defense):
    name = "sleepy"
    summary = "Sleeps, then leaves the victim as it is."
    needs = frozenset({Need.MODEL})
    gives = frozenset({Give.CLASSIFIER})

    class Config(Config):
        number: int = Field(0, description="sets cells apart")
        seconds: float = Field(0.0, description="how long to sleep, unless GATECRASH_TEST_AWAKE is set")

    def defend(self, evidence):
        if "GATECRASH_TEST_AWAKE" not in os.environ:
            time.sleep(self.config.seconds)
        return Outcome(classifier=evidence.network)

@hookimpl
def register_defenses(register):
    register(Sleepy)
"""
SHORT, LONG = 3, 4
"""Cells that are done at once, and cells that will not be done when the interrupt comes."""


class Command:
    """`gatecrash run` in a process of its own, with everything that it starts."""

    def __init__(self, grid: Path, plugin: Path, store: Path) -> None:
        self.mark, self.store = uuid.uuid4().hex, Store(store)
        command = [sys.executable, "-m", "gatecrash", "run", str(grid), "--plugins", str(plugin), "--store", str(store), "--workers", "1"]
        environment = {**os.environ, "GATECRASH_EXECUTOR": "ray", "GATECRASH_TEST_MARK": self.mark}
        self.process = subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
        )

    def ctrl_c(self) -> None:
        """What a terminal does: interrupt everything in the foreground, Ray's processes too."""
        os.killpg(self.process.pid, signal.SIGINT)

    def finished(self) -> dict[str, int]:
        """Cells that are in the store, with the time they were written."""
        return {path.stem: path.stat().st_mtime_ns for path in self.store.root.glob("results/*/*.json")}

    def wait_for(self, cells: int) -> dict[str, int]:
        while len(self.finished()) < cells:
            assert self.process.poll() is None, self.process.communicate()[0]
            time.sleep(0.1)
        return self.finished()

    def descendants(self) -> list[int]:
        """Processes that carry this command's mark in their environment."""
        found = []
        for entry in Path("/proc").iterdir():
            with suppress(OSError):
                if entry.name.isdigit() and f"GATECRASH_TEST_MARK={self.mark}".encode() in (entry / "environ").read_bytes():
                    found.append(int(entry.name))
        return found

    def survivors(self, patience: float = 120.0) -> list[int]:
        end = time.monotonic() + patience
        while self.descendants() and time.monotonic() < end:
            time.sleep(0.2)
        return self.descendants()


@pytest.fixture
def command(small_grid: Callable[..., Path], write: Callable[[str, str], Path], tmp_path: Path) -> Iterator[Command]:
    sleepy = [{"sleepy": {"number": number}} for number in range(SHORT)]
    sleepy += [{"sleepy": {"number": number, "seconds": 600.0}} for number in range(LONG)]
    grid = small_grid(name="sleepy", attacks=["none"], defenses=["none", *sleepy])
    command = Command(grid, write("sleepy_plugin.py", PLUGIN), tmp_path / "store")
    yield command
    for pid in command.descendants():
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    command.process.communicate()


def test_ctrl_c_keeps_what_is_finished_and_leaves_nothing_running(command: Command) -> None:
    kept = command.wait_for(1 + SHORT)
    command.ctrl_c()
    output, _ = command.process.communicate(timeout=60)
    assert command.process.returncode == 130
    assert "stopping; finished work is kept" in output
    assert "interrupted; run again to go on" in output
    assert "Traceback" not in output
    assert command.finished() == kept
    assert not list(command.store.root.glob("locks/*"))
    assert command.survivors() == []


def test_ctrl_c_while_ray_starts_ends_it_in_order(command: Command) -> None:
    assert command.process.stdout is not None
    assert any("cells to compute" in line for line in iter(command.process.stdout.readline, ""))
    time.sleep(1.0)  # in the middle of Ray's start
    command.ctrl_c()
    output, _ = command.process.communicate(timeout=100)
    assert command.process.returncode == 130
    assert "interrupted; run again to go on" in output
    assert len(output.splitlines()) == 2, output
    assert command.survivors() == []


def test_a_second_ctrl_c_leaves_at_once(command: Command) -> None:
    kept = command.wait_for(1 + SHORT)
    command.ctrl_c()
    while "stopping" not in (command.process.stdout.readline() if command.process.stdout else ""):
        pass
    command.ctrl_c()
    assert command.process.wait(timeout=5) == 130
    assert command.finished() == kept
    assert command.survivors() == []


def test_a_killed_driver_takes_ray_along_and_the_next_run_goes_on_where_it_was(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = command.wait_for(1 + SHORT)
    command.process.kill()
    command.process.wait()
    assert command.survivors(patience=30.0) == [], "Ray's own agents would live on for a minute"
    monkeypatch.setenv("GATECRASH_TEST_AWAKE", "1")
    summary = run(tmp_path / "sleepy.yaml", command.store, plugins=[tmp_path / "sleepy_plugin.py"])
    assert summary.exit_code == 0
    assert (summary.computed_victims, summary.computed_cells) == (0, LONG)
    assert {key: written for key, written in command.finished().items() if key in kept} == kept
