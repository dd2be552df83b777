"""What a person sees of a run: one live view on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import Any, TextIO

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from gatecrash.plan import Plan
from gatecrash.results import Result
from gatecrash.run import View


STOPPING = "stopping; finished work is kept (Ctrl-C again leaves at once)"


class PlainView(View):
    """One line per finished task, for logs and pipes."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._total = self._ended = 0

    def run_started(self, plan: Plan, victims: int, cells: int) -> None:
        self._total = cells
        known = len(plan.cells) - cells
        self._say(f"{plan.grid}: {victims} victims to train, {cells} cells to compute, {known} already in the store")

    def task_ended(self, task_id: str, title: str, failure: str | None, seconds: float) -> None:
        if task_id.startswith("implant") or failure:
            self._say(f"{'FAILED' if failure else 'done'}  {title}  {seconds:.1f} s{f'  {failure}' if failure else ''}")

    def cell_ended(self, result: Result) -> None:
        self._ended += 1
        self._say(f"[{self._ended}/{self._total}] {result.attack.name} × {result.defense_name} (seed {result.seed}): {_outcome(result)}")

    def interrupted(self) -> None:
        self._say(STOPPING)

    def _say(self, text: str) -> None:
        print(text, file=self._stream, flush=True)


class LiveView(View):
    """Victims and cells done, and what each worker does now."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True)
        self._bars = Progress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.fields[note]}"),
            console=self._console,
        )  # fmt: skip
        self._victims = self._bars.add_task("victims", total=0, note="")
        self._cells = self._bars.add_task("cells", total=0, note="")
        self._failed = {self._victims: 0, self._cells: 0}
        self._tasks: dict[str, tuple[str, float, Mapping[str, Any]]] = {}
        self._live = Live(get_renderable=self._render, console=self._console, refresh_per_second=4, transient=True)

    def run_started(self, plan: Plan, victims: int, cells: int) -> None:
        self._bars.update(self._victims, total=victims)
        self._bars.update(self._cells, total=cells)
        if cells:
            self._live.start()

    def task_started(self, task_id: str, title: str) -> None:
        self._tasks[task_id] = (title, time.perf_counter(), {})

    def report(self, task_id: str, progress: Mapping[str, Any]) -> None:
        if task_id in self._tasks:
            title, started, known = self._tasks[task_id]
            self._tasks[task_id] = (title, started, {**known, **progress})

    def task_ended(self, task_id: str, title: str, failure: str | None, seconds: float) -> None:
        self._tasks.pop(task_id, None)
        if failure:
            self._console.print(f"[red]failed[/red] {title}: {failure}", markup=True, highlight=False)

    def victim_ended(self, failed: bool) -> None:
        self._advance(self._victims, failed)

    def cell_ended(self, result: Result) -> None:
        self._advance(self._cells, result.status in {"failed", "victim-failed"})

    def interrupted(self) -> None:
        self._live.stop()
        self._console.print(STOPPING)

    def close(self) -> None:
        self._live.stop()

    def _advance(self, bar: Any, failed: bool) -> None:
        self._failed[bar] += failed
        note = f"{self._failed[bar]} failed" if self._failed[bar] else ""
        self._bars.update(bar, advance=1, note=note)

    def _render(self) -> Group:
        table = Table.grid(padding=(0, 2))
        for title, started, progress in list(self._tasks.values()):
            table.add_row("  " + title, _doing(progress), f"{time.perf_counter() - started:.0f} s")
        return Group(self._bars, table)


def choose_view(quiet: bool) -> View:
    """Live on a terminal, plain lines elsewhere, nothing when quiet."""
    if quiet:
        return View()
    return LiveView() if sys.stderr.isatty() else PlainView()


def _doing(progress: Mapping[str, Any]) -> str:
    parts = []
    if "epoch" in progress:
        parts.append(f"epoch {progress['epoch']}/{progress.get('epochs', '?')}")
    if progress.get("loss") is not None:
        parts.append(f"loss {progress['loss']:.3f}")
    if progress.get("images_per_second"):
        parts.append(f"{progress['images_per_second']:,.0f} images/s")
    if progress.get("seconds_left") is not None:
        parts.append(f"{progress['seconds_left']:.0f} s left")
    if "note" in progress and not parts:
        parts.append(str(progress["note"]))
    return "  ".join(parts)


def _outcome(result: Result) -> str:
    if result.status != "ok":
        return f"{result.status}: {result.error}"
    acc, asr = result.measures.get("acc"), result.measures.get("asr")
    return f"ACC {acc:.2%}" + (f"  ASR {asr:.2%}" if asr is not None else "")
