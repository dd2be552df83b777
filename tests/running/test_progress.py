"""What a person sees of a run."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from gatecrash.running.pace import Pace
from gatecrash.running.progress import LiveDisplay, PlainDisplay
from gatecrash.running.run import run


class FixedConsole:
    """A terminal of 100 columns whose last frame can be read."""

    def __init__(self) -> None:
        self.stream = io.StringIO()
        self.console = Console(file=self.stream, force_terminal=True, width=100, height=40, color_system=None)

    def frame(self, display: LiveDisplay) -> str:
        with self.console.capture() as captured:
            self.console.print(display._render())
        return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", captured.get())


@pytest.fixture
def terminal() -> FixedConsole:
    return FixedConsole()


def test_the_live_display_shows_what_each_worker_does(terminal: FixedConsole) -> None:
    display = LiveDisplay(terminal.console)
    display._pace = Pace(2, 6)
    display._bars.update(display._victims, total=2)
    display._bars.update(display._cells, total=6)
    display.task_started("implant:a", "train badnets (seed 0)")
    display.task_started("defend:b", "blend × anp (seed 1)")
    display.report("implant:a", {"epoch": 3, "epochs": 20, "loss": 0.25, "images_per_second": 1500.0, "seconds_left": 130.0})
    display.report("defend:b", {"note": "pruning [step 3]"})
    display.victim_ended(failed=True)
    frame = terminal.frame(display)
    assert re.search(r"victims .* 1/2 +1 running, 1 failed", frame)
    assert re.search(r"cells .* 0/6 +1 running", frame)
    assert re.search(r"train badnets \(seed 0\) +epoch 3/20  loss 0.250  1,500 images/s  2 min left", frame)
    assert re.search(r"blend × anp \(seed 1\) +pruning \[step 3\]", frame)
    assert re.search(r"^  1,500 images/s *$", frame, re.MULTILINE)


def test_failures_stay_on_the_screen_with_brackets_intact(terminal: FixedConsole) -> None:
    display = LiveDisplay(terminal.console)
    display.task_started("defend:b", "blend × anp (seed 1)")
    display.task_ended("defend:b", "blend × anp (seed 1)", "labels must be [200]; got [3]", 1.0)
    assert "failed blend × anp (seed 1): labels must be [200]; got [3]" in terminal.stream.getvalue()


def test_time_left_is_the_work_left_over_the_tasks_at_a_time() -> None:
    pace = Pace(victims=2, cells=10)
    assert pace.seconds_left({}) is None
    pace.ended("implant:a", 40.0)
    assert pace.seconds_left({"implant:b": 0.0}) == 2 * 40 + 10 * 10  # a defense is guessed at a quarter of a training
    pace.ended("defend:c", 20.0)
    pace.ended("evaluate:c", 1.0)
    pace.victims, pace.cells = 1, 9
    assert pace.seconds_left({"implant:b": 10.0, "defend:d": 25.0}) == (30 + 8 * 20) / 2


def test_plain_lines_tell_of_every_cell(small_grid: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stream = io.StringIO()
    grid = small_grid(attacks=["none"], recipe={"preset": "tiny", "epochs": 6, "batch_size": 16})
    run(grid, tmp_path / "store", display=PlainDisplay(stream))
    lines = stream.getvalue().splitlines()
    assert lines[0] == "small: 1 victim to train, 2 cells to compute, 0 already in the store"
    assert re.fullmatch(r"done  victim none \(seed 0\)  [\d.]+ s", lines[1])
    assert re.fullmatch(r"\[1/2\] none × none \(seed 0\): ACC [\d.]+%", lines[2])
    assert re.fullmatch(r"\[2/2\] none × fine-pruning \(seed 0\): ACC [\d.]+%", lines[3])


def test_a_run_through_the_live_display_leaves_the_terminal_as_it_was(
    terminal: FixedConsole, small_grid: Callable[..., Path], tmp_path: Path
) -> None:
    grid = small_grid(attacks=["none"], recipe={"preset": "tiny", "epochs": 6, "batch_size": 16})
    summary: Any = run(grid, tmp_path / "store", display=LiveDisplay(terminal.console))
    assert summary.exit_code == 0
    drawn = terminal.stream.getvalue()
    assert drawn.count("\x1b[?25l") == drawn.count("\x1b[?25h") == 1  # the cursor is hidden, and shown again
