"""What a Ray of our own is started with: a folder for its sockets, an environment, and a watcher that ends it when this process is killed.
Imports no Ray."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from gatecrash.errors import UserError
from gatecrash.process import sockets
from gatecrash.running.executors import watcher

WORKER_ENVIRONMENT = {
    "OMP_WAIT_POLICY": "passive",  # idle OpenMP threads would spin and starve the other workers
    "RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES": "1",  # a live CUDA context does not follow changes: tasks get an explicit cuda:i
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}

_SOCKET = "ray/session_2000-01-01_00-00-00_000000_0000000/sockets/plasma_store"
"""What Ray appends to its folder for the longest of its sockets."""


def folder_of_ray() -> str | None:
    """Ray's folder for sockets and logs, where its usual one, below $TMPDIR, is too long a path for a socket; None where it is not.

    Raises UserError where there is no short one.
    """
    usual = os.environ.get("RAY_TMPDIR") or (os.environ.get("TMPDIR") if sys.platform.startswith("linux") else None) or "/tmp"
    if sockets.fits(usual, _SOCKET):
        return None
    short = sockets.short_folder()
    if short is not None:
        return f"{short}/ray"
    longest = sockets.LONGEST_SOCKET - len(_SOCKET) - 1
    raise UserError(
        f"Ray's sockets need a temporary folder with a path of at most {longest} bytes; name one by RAY_TMPDIR, or use --executor serial"
    )


@contextmanager
def inherited(mark: str) -> Iterator[None]:
    """What Ray's processes inherit from this one; the user's own settings win."""
    wanted = {
        **WORKER_ENVIRONMENT,
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
        "RAY_enable_metrics_collection": "0",
        "RAY_task_events_report_interval_ms": "0",
        "SPT_NOENV": "1",  # Ray's agents rename themselves, by default over their environment: the watcher could not tell them
        "RAY_idle_worker_killing_time_threshold_ms": "3600000",  # two kinds of workers for every core: starting one takes seconds
    }
    if "RAY_AUTH_MODE" not in os.environ:  # no token: this run's own, which only its processes know, instead of a file in the home
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
    before = dict(os.environ)
    os.environ.update({name: value for name, value in wanted.items() if name not in before} | {watcher.MARK: mark})
    try:
        yield
    finally:
        for name in (wanted.keys() | {watcher.MARK}) - before.keys():
            os.environ.pop(name, None)
        if watcher.MARK in before:  # this process is itself a worker of another run
            os.environ[watcher.MARK] = before[watcher.MARK]


class Watcher:
    """The process that ends what has this mark when this process is killed. There is none where none can be started."""

    def __init__(self, mark: str) -> None:
        command = [sys.executable, "-P", str(Path(watcher.__file__)), mark, str(os.getpid())]
        self._process: subprocess.Popen[bytes] | None = None
        with suppress(OSError):
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
            )

    def close(self) -> None:
        """Ray has been shut down: what is left of it ends now; idempotent."""
        if self._process is not None and self._process.stdin is not None:
            with suppress(OSError), self._process.stdin as to_watcher:
                to_watcher.write(b"shut down")
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(3 * watcher.PATIENCE)
            self._process = None
