"""Tools in turns, each in a process of its own: neither sees what the other imports, or how it sets the memory allocator.

Time is that of the processor, in a process with one thread, and the least of several turns is what counts: other work on the machine can
only make a turn slower, and it hits all tools alike.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from types import TracebackType

import torch

from peers.tools import Tool

Figures = Mapping[str, float]
"""What came out, by name."""


class Clock:
    """Counts the processor's seconds inside `with clock:`; what lies outside (data in a tool's own form, its judgement) does not count."""

    seconds = 0.0

    def __enter__(self) -> None:
        self._start = time.process_time()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.seconds += time.process_time() - self._start


@dataclass(frozen=True)
class Side:
    """One tool in a comparison. `work` is sent to another process, so it is a function of a module, or a `partial` of one."""

    name: str
    work: Callable[[Clock], Figures]
    tool: Tool | None = None
    """What it needs besides Gatecrash's own environment."""


def available(sides: Sequence[Side]) -> tuple[list[Side], list[str]]:
    """Those whose tool is here, and why the others are not."""
    missing = {side.name: side.tool.missing() for side in sides if side.tool}
    return [side for side in sides if not missing.get(side.name)], [reason for reason in missing.values() if reason]


@dataclass(frozen=True)
class Turns:
    """What a side took, turn by turn, and what came out in the last one."""

    name: str
    seconds: tuple[float, ...]
    figures: Figures

    @property
    def least(self) -> float:
        return min(self.seconds)


def turn(side: Side) -> tuple[float, Figures]:
    """One turn in this process, with one thread."""
    torch.set_num_threads(1)
    clock = Clock()
    with side.tool.importable() if side.tool else nullcontext():
        figures = side.work(clock)
    return clock.seconds, figures


Runner = Callable[[Side], tuple[float, Figures]]


@contextmanager
def own_processes(sides: Sequence[Side]) -> Iterator[Runner]:
    """Runs the turns of each side in one process, which goes on living between them."""
    with ExitStack() as stack:
        started = multiprocessing.get_context("spawn")
        pools = {side.name: stack.enter_context(ProcessPoolExecutor(1, started)) for side in sides}
        yield lambda side: pools[side.name].submit(turn, side).result()


def in_turns(sides: Sequence[Side], rounds: int, run: Runner) -> tuple[Turns, ...]:
    """All sides once per round, one at a time."""
    taken = [[run(side) for side in sides] for _ in range(rounds)]
    return tuple(
        Turns(side.name, tuple(seconds for seconds, _ in turns), turns[-1][1])
        for side, turns in zip(sides, zip(*taken, strict=True), strict=True)
    )
