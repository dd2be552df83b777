"""Ctrl-C that waits until what must not be interrupted is done."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def interrupts_after() -> Iterator[None]:
    """Raise the KeyboardInterrupt of a Ctrl-C at the end: native code that is interrupted while it starts may crash the process.

    Whoever handles the signal is told at once; a handler that leaves the process still does.
    """
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(before):
        yield
        return
    noted: list[KeyboardInterrupt] = []

    def note(number: int, frame: Any) -> None:
        try:
            before(number, frame)
        except KeyboardInterrupt as interrupt:
            noted.append(interrupt)

    signal.signal(signal.SIGINT, note)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGINT) is note:  # else the handler has made way for another
            signal.signal(signal.SIGINT, before)
    if noted:
        raise KeyboardInterrupt
