"""Where a Ray of our own is started, and what is said where none can be started or joined."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from gatecrash.errors import UserError
from gatecrash.process.sockets import LONGEST_SOCKET
from gatecrash.running.executors import watcher
from gatecrash.running.executors.own_ray import Watcher, folder_of_ray, inherited

RAY = [sys.executable, "-m", "gatecrash", "run"]


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A port that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_a_folder_that_is_short_enough_is_left_to_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.setenv("TMPDIR", "/tmp")
    assert folder_of_ray() is None


def test_a_folder_too_long_for_a_socket_is_replaced_by_a_short_one(monkeypatch: pytest.MonkeyPatch) -> None:
    socket_of = "/ray/session_2026-11-26_16-32-44_060333_1234567/sockets/plasma_store"
    longest = "/" + "x" * (LONGEST_SOCKET - len(socket_of) - 1)
    monkeypatch.setenv("RAY_TMPDIR", longest)
    assert folder_of_ray() is None
    for too_long in (longest + "x", "/tmp/" + "x" * 90, "/tmp/" + "é" * 30):
        monkeypatch.setenv("RAY_TMPDIR", too_long)
        assert folder_of_ray() == "/tmp/ray"


def test_no_short_folder_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_TMPDIR", "/tmp/" + "x" * 90)
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(UserError, match=r"path of at most \d+ bytes; name one by RAY_TMPDIR, or use --executor serial"):
        folder_of_ray()


@pytest.mark.ray
@pytest.mark.timeout(300)
def test_a_grid_runs_below_a_long_temporary_folder(small_grid: Callable[..., Path], tmp_path: Path) -> None:
    folder = tmp_path / ("x" * 90)
    folder.mkdir()
    grid = small_grid(attacks=["none"], defenses=["none"])
    options = ["--store", str(tmp_path / "s"), "--executor", "ray", "-q"]
    done = subprocess.run(
        [*RAY, str(grid), *options], env={**os.environ, "TMPDIR": str(folder)}, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.ray
@pytest.mark.timeout(300)
def test_a_port_that_is_not_rays_is_one_line(small_grid: Callable[..., Path], tmp_path: Path, silent_port: int) -> None:
    address = f"127.0.0.1:{silent_port}"
    options = ["--store", str(tmp_path / "s"), "--executor", "ray", "-q", "--address", address]
    done = subprocess.run([*RAY, str(small_grid()), *options], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: --address {address}: cannot join that cluster (no answer as of Ray); start one with")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("address", ["", "somewhere", "host:", "host:port", "host:123456", "a b:1"])
def test_an_address_of_no_form_is_refused_before_anything_starts(gatecrash: Any, small_grid: Any, tmp_path: Path, address: str) -> None:
    called = gatecrash("run", small_grid(), "--store", tmp_path / "s", "--executor", "ray", "--address", address)
    assert called.code == 2
    assert called.err == f"error: --address {address!r}: write auto or HOST:PORT, as `ray start --head` prints it\n"
    assert not (tmp_path / "s").exists()


def test_ray_starts_its_helpers_again_after_a_ray_of_our_own() -> None:
    from ray._private.node import Node

    from gatecrash.running.executors.ray_session import _HELPERS, _without_helpers

    starts = [getattr(Node, name) for name in _HELPERS]  # this Ray has all of them
    with _without_helpers():
        assert all(getattr(Node, name)(None) is None for name in _HELPERS)
    assert [getattr(Node, name) for name in _HELPERS] == starts


def test_the_watcher_ends_what_carries_its_mark_and_nothing_else() -> None:
    with inherited("this one"):
        ours = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    assert watcher.MARK not in os.environ
    other = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        guard = Watcher("this one")
        time.sleep(0.5)
        assert ours.poll() is None
        guard.close()
        assert ours.wait(20) == -9
        assert psutil.pid_exists(other.pid)
        assert other.poll() is None
    finally:
        for process in (ours, other):
            process.kill()
            process.communicate()


def test_the_watcher_ends_a_process_that_renamed_itself_as_rays_agents_do() -> None:
    rename = """
        import ray
        ray._raylet.setproctitle("ray::Agent")
        print("renamed", flush=True)
        input()
    """
    with inherited("an agent"):
        agent = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(rename)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=dict(os.environ)
        )
    try:
        assert agent.stdout is not None
        assert agent.stdout.readline() == "renamed\n"
        Watcher("an agent").close()
        assert agent.wait(20) == -9
    finally:
        agent.kill()
        agent.communicate()


def test_the_watcher_sees_a_killed_driver_although_a_process_that_it_forked_lives_on() -> None:
    drive = """
        import os, subprocess, sys, time
        from gatecrash.running.executors.own_ray import Watcher, inherited
        with inherited("a fork"):
            ours = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(100)"], env=dict(os.environ))
        guard = Watcher("a fork")
        forked = os.fork()
        if forked:
            print(ours.pid, forked, flush=True)
        time.sleep(100)
    """
    driver = subprocess.Popen([sys.executable, "-c", textwrap.dedent(drive)], stdout=subprocess.PIPE, text=True)
    assert driver.stdout is not None
    ours, forked = (psutil.Process(int(pid)) for pid in driver.stdout.readline().split())
    try:
        driver.kill()
        ours.wait(20)
        assert forked.is_running()
    finally:
        for process in (ours, forked):
            with suppress(psutil.NoSuchProcess):
                process.kill()
        driver.communicate()
