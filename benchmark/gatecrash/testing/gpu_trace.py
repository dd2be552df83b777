"""Where a program waited for the device, and which of these waits come back in every training step."""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from gatecrash.testing.gpu_rules import GpuFault

APART = 3
"""Steps of up to three backward passes (a perturbed weight, an inner attack) are seen as steps."""
STEPS = 5
"""In so many steps one after the other, a wait at the same line is one of every step."""

_NOT_THE_CAUSE = (str(Path(torch.__file__).parent), *(str(Path(__file__).with_name(name)) for name in ("simulated_gpu.py", "gpu_trace.py")))


@dataclass(frozen=True)
class CodeLine:
    """A line of code, by its file, number and function."""

    file: str
    line: int
    function: str

    def __str__(self) -> str:
        return f"{Path(self.file).name}:{self.line} in {self.function}"


@dataclass(frozen=True)
class Wait:
    """One wait: what for, caused by which line, after how many backward passes."""

    reason: str
    line: CodeLine
    step: int


class Trace:
    """The waits of a program, and its backward passes, by which its steps are told apart."""

    def __init__(self) -> None:
        self.waits: list[Wait] = []
        self.faults: list[GpuFault] = []
        """What was refused, whether or not the program went on."""
        self.backwards = 0

    def add(self, reason: str) -> None:
        self.waits.append(Wait(reason, code_line(), self.backwards))

    def counting(self, backward: Callable[..., Any]) -> Callable[..., Any]:
        """The same function, whose calls are counted."""

        def counted(*args: Any, **kwargs: Any) -> Any:
            self.backwards += 1
            return backward(*args, **kwargs)

        return counted

    def in_every_step(self) -> list[Wait]:
        """One wait of each line that waited in at least five training steps in a row."""
        by_line: dict[CodeLine, list[Wait]] = defaultdict(list)
        for wait in self.waits:
            by_line[wait.line].append(wait)
        return [waits[-1] for waits in by_line.values() if _longest_row({wait.step for wait in waits}) >= STEPS]


def _longest_row(steps: set[int]) -> int:
    longest, length, last = 0, 0, -APART - 1
    for step in sorted(steps):
        length = length + 1 if step - last <= APART else 1
        longest, last = max(longest, length), step
    return longest


def code_line() -> CodeLine:
    """The innermost line outside torch and the simulation."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code.co_filename.startswith(_NOT_THE_CAUSE):
        frame = frame.f_back
    if frame is None:
        return CodeLine("?", 0, "?")
    return CodeLine(frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_name)
