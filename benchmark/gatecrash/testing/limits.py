"""What a check may cost: time, memory, and lines printed to the terminal."""

from __future__ import annotations

import faulthandler
import gc
import io
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from types import FrameType

import psutil
import torch

from gatecrash.process.measuring import Meter

SECONDS = 120.0
"""How long one check may take."""
GRACE = 10.0
"""Seconds after which a command ends a check that did not stop when it was interrupted (compiled code that never returns)."""
KEPT_MB = 512
"""MiB by which a plugin's first run may enlarge the process for good; the libraries that it imports are part of it."""
TAIL = 10
"""Lines of what a plugin printed that a failure shows."""


class TimeUp(BaseException):
    """A check has used its time. No `Exception`, so that a plugin's own `except Exception` does not swallow it."""


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raises TimeUp in the block after that many seconds, where the system has timers and this is the main thread.

    An alarm that was set before (pytest-timeout's) goes on afterwards.
    """
    if not hasattr(signal, "setitimer") or threading.current_thread() is not threading.main_thread():
        yield
        return

    def ring(_number: int, _frame: FrameType | None) -> None:
        raise TimeUp(f"no end within {seconds:g} s")

    began, handler = time.monotonic(), signal.signal(signal.SIGALRM, ring)
    left, interval = signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
        if left:
            signal.setitimer(signal.ITIMER_REAL, max(left - (time.monotonic() - began), 1e-3), interval)


@contextmanager
def hard_stop(seconds: float) -> Iterator[None]:
    """Ends the process with the traceback of every thread on the terminal, and exit code 1, if the block takes longer.

    For a command; in a test session, pytest-timeout does the same.
    """
    faulthandler.dump_traceback_later(seconds, exit=True, file=sys.__stderr__ or sys.stderr)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()


class Printed(io.TextIOBase):
    """A terminal that remembers the last lines only, however many there were."""

    def __init__(self) -> None:
        super().__init__()
        self._text, self.lines = "", 0

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        self.lines += text.count("\n")
        self._text = "\n".join((self._text + text)[-(1 << 16) :].split("\n")[-TAIL - 1 :])
        return len(text)

    @property
    def tail(self) -> tuple[str, ...]:
        """The last lines, after one that says how many came before them."""
        last = [line for line in self._text.splitlines() if line.strip()][-TAIL:]
        before = self.lines - len(last)
        return (*((f"({before:,} lines before)",) if before > 0 else ()), *last)


@contextmanager
def captured() -> Iterator[Printed]:
    """What is printed in the block, to either stream, instead of the terminal."""
    printed = Printed()
    with redirect_stdout(printed), redirect_stderr(printed):
        yield printed


@dataclass
class Growth:
    """By how many MiB the process was larger after a block (`kept`) and meanwhile (`peak`) than before it."""

    kept: float = 0.0
    peak: float = 0.0


@contextmanager
def measured() -> Iterator[Growth]:
    """The growth of this process over the block, known when it has ended."""
    growth, process = Growth(), psutil.Process()
    gc.collect()
    before = process.memory_info().rss / 2**20
    with Meter(torch.device("cpu")) as meter:
        yield growth
    gc.collect()
    growth.kept = process.memory_info().rss / 2**20 - before
    growth.peak = max(meter.peak_mb - before, growth.kept)
