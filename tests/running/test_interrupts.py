"""Ctrl-C while something starts that must not be interrupted."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gatecrash.running.interrupts import interrupts_after
from gatecrash.running.run import run, serial
from support.small_runs import small


@pytest.fixture(autouse=True)
def _heeded() -> Iterator[None]:
    """A shell ignores Ctrl-C for what it starts in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def ctrl_c() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def test_ctrl_c_takes_effect_at_the_end() -> None:
    done = []

    @interrupts_after()
    def start() -> None:
        ctrl_c()
        done.append("what must not be interrupted")

    with pytest.raises(KeyboardInterrupt):
        start()
    assert done
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_without_ctrl_c_nothing_happens_and_an_error_is_raised_at_once() -> None:
    with interrupts_after():
        pass
    with pytest.raises(ValueError, match="broken"), interrupts_after():
        raise ValueError("broken")
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_handler_is_told_at_once_and_one_that_it_installs_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []

    def first(_number: int, _frame: Any) -> None:
        told.append("first")
        signal.signal(signal.SIGINT, lambda _number, _frame: told.append("second"))
        raise KeyboardInterrupt

    @interrupts_after()
    def start() -> None:
        ctrl_c()
        assert told == ["first"]
        ctrl_c()
        assert told == ["first", "second"]

    before = signal.signal(signal.SIGINT, first)
    try:
        with pytest.raises(KeyboardInterrupt):
            start()
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_run_that_is_interrupted_while_its_executor_starts_ends_in_order(tmp_path: Path) -> None:
    closed = []

    class Starting:
        """An executor during whose start Ctrl-C is pressed."""

        def __init__(self, *arguments: Any) -> None:
            ctrl_c()
            self._serial = serial(*arguments)

        def close(self) -> None:
            closed.append(self)

    summary = run(small(), tmp_path, Starting)  # type: ignore[arg-type]
    assert (summary.exit_code, summary.interrupted, summary.computed_victims) == (130, True, 0)
    assert len(closed) == 1
