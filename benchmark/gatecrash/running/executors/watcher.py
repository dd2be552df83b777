"""Ends what is left of a Ray of our own when its driver is killed: Ray's agents would live on for a minute.

Run as a file, in a process that a terminal's Ctrl-C does not reach. It waits for the end of its standard input, which comes when the driver
closes it (after a word that Ray has been shut down in order) or dies, however it dies. Ray's processes are told by a mark in their
environment.
"""

from __future__ import annotations

import sys
import time
from contextlib import suppress

MARK = "GATECRASH_RAY"
"""The environment variable that all processes of one Ray have in common."""

PATIENCE = 2.0
"""Seconds that they have to end by themselves."""

QUIET = 3.0
"""Seconds without any after which none is still to come from a Ray that was not shut down: one that just starts has no environment yet."""


def watch(mark: str) -> None:
    """Wait for the driver's end, then see to it that all processes with this mark end."""
    in_order = bool(sys.stdin.buffer.read())
    import psutil  # not before: most of the time this process only waits

    def left() -> list[psutil.Process]:
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error, OSError):
                if process.environ().get(MARK) == mark:
                    found.append(process)
        return found

    end = time.monotonic() + PATIENCE
    while left() and time.monotonic() < end:
        time.sleep(0.2)
    seen = time.monotonic() if not in_order else float("-inf")
    while (processes := left()) or time.monotonic() - seen < QUIET:
        for process in processes:
            with suppress(psutil.Error):
                process.kill()
            seen = time.monotonic()
        time.sleep(0.2)


if __name__ == "__main__":
    watch(sys.argv[1])
