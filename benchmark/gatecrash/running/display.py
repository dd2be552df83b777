"""What a person sees of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gatecrash.records.plan import Plan
from gatecrash.records.result import Result


class Display:
    """What a person sees of a run; this one shows nothing. See `gatecrash.running.progress` for those of the command line."""

    def plugin_failed(self, origin: str, message: str) -> None:
        """A plugin cannot be used; the run goes on without it."""

    def decoding(self, done: int, total: int) -> None:
        """A dataset that is not in the cache is being decoded: `done` of `total` images."""

    def planned(self, dataset: str, notes: Sequence[str]) -> None:
        """The grid is planned: its dataset in one line, and what a reader of the numbers should know."""

    def run_started(self, plan: Plan, victims: int, cells: int) -> None:
        """`victims` and `cells` are how many are to be computed."""

    def task_started(self, task_id: str, title: str) -> None: ...

    def report(self, task_id: str, progress: Mapping[str, Any]) -> None: ...

    def task_ended(self, task_id: str, title: str, failure: str | None, seconds: float) -> None: ...

    def victim_ended(self, failed: bool) -> None: ...

    def cell_ended(self, result: Result) -> None: ...

    def interrupted(self) -> None:
        """Ctrl-C was pressed; what follows is cancelling and cleaning up."""

    def close(self) -> None: ...
