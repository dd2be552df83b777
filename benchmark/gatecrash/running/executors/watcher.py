"""Ends what is left of a Ray of our own when its driver is killed: Ray's agents would live on for a minute.

Run as a file, by the driver, in a process that a terminal's Ctrl-C does not reach. Ray's processes are told by a mark in their environment.
"""

from __future__ import annotations

import os
import select
import sys
import time
from contextlib import suppress

MARK = "GATECRASH_RAY"
"""The environment variable that all processes of one Ray have in common."""

PATIENCE = 2.0
"""Seconds that they have to end by themselves."""

QUIET = 3.0
"""Seconds without any after which none is still to come from a Ray that was not shut down: one that just starts has no environment yet."""

LIMIT = 60.0
"""Seconds after which it gives up, for one that not even the kernel can end."""


def watch(mark: str, driver: int) -> None:
    """Wait for the end of the driver, a process id, then see to it that all processes with this mark end."""
    in_order = _shut_down(driver)
    import psutil  # not before: most of the time this process only waits

    def left() -> list[psutil.Process]:
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error, OSError):
                if process.environ().get(MARK) == mark:
                    found.append(process)
        return found

    start = time.monotonic()
    while left() and time.monotonic() < start + PATIENCE:
        time.sleep(0.2)
    seen = time.monotonic() if not in_order else float("-inf")
    while ((processes := left()) or time.monotonic() < seen + QUIET) and time.monotonic() < start + LIMIT:
        for process in processes:
            with suppress(psutil.Error):
                process.kill()
            seen = time.monotonic()
        time.sleep(0.2)


def _shut_down(driver: int) -> bool:
    """Wait until the driver says, by standard input, that it has shut Ray down (True), or is no more (False).

    The end of standard input alone would not tell: a process that the driver forked may keep it open."""
    while True:
        if select.select([sys.stdin], [], [], 1.0)[0]:
            return bool(os.read(sys.stdin.fileno(), 16))
        if os.getppid() != driver:
            return False


if __name__ == "__main__":
    watch(sys.argv[1], int(sys.argv[2]))
