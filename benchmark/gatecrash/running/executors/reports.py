"""What workers say while they work, until the driver asks. Imports nothing large: this runs in a process of its own."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class WorkerLocation:
    """Where a task runs, and the file on that node which holds its output."""

    node: str
    host: str
    pid: int
    output: str


Drained = tuple[list[tuple[str, int, float, WorkerLocation]], dict[str, dict[str, Any]]]
"""(task id, attempt, when, where) of each start, and the last progress of each task."""


class Reports:
    """An actor on the driver's node: collects what workers say until the driver asks."""

    def __init__(self) -> None:
        self._starts: list[tuple[str, int, float, WorkerLocation]] = []
        self._progress: dict[str, dict[str, Any]] = {}

    def start(self, task_id: str, attempt: int, location: WorkerLocation) -> None:
        self._starts.append((task_id, attempt, time.monotonic(), location))  # the driver's clock: it runs on this machine

    def tell(self, task_id: str, progress: dict[str, Any]) -> None:
        self._progress.setdefault(task_id, {}).update(progress)

    def drain(self) -> Drained:
        drained = self._starts, self._progress
        self._starts, self._progress = [], {}
        return drained
