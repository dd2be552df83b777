"""The command line's displays of a run: a live one on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TextIO

from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from gatecrash.errors import counted
from gatecrash.records.plan import Plan
from gatecrash.records.result import Result
from gatecrash.running.display import Display
from gatecrash.running.pace import Pace

STOPPING = "stopping; finished work is kept (Ctrl-C again leaves at once)"


ROWS = 16
"""Workers shown at a time."""


class QuietDisplay(Display):
    """Warnings on standard error, and nothing else: plugins that cannot be used, notes on the plan."""

    def plugin_failed(self, origin: str, message: str) -> None:
        print(f"warning: plugin {origin}: {message} (see `gatecrash plugins`)", file=sys.stderr, flush=True)

    def planned(self, dataset: str, notes: Sequence[str]) -> None:
        for note in notes:
            print(f"warning: {note}", file=sys.stderr, flush=True)


class TerminalDisplay(QuietDisplay):
    """Also tells how far the decoding of a dataset is, and what is in it."""

    _told = 0.0

    def planned(self, dataset: str, notes: Sequence[str]) -> None:
        print(dataset, file=sys.stderr, flush=True)
        super().planned(dataset, notes)

    def decoding(self, done: int, total: int) -> None:
        if total and (done == total or (sys.stderr.isatty() and time.monotonic() - self._told > 0.5)):
            self._told = time.monotonic()
            print(f"\rdecoding images {done:,}/{total:,}", end="\n" if done == total else "", file=sys.stderr, flush=True)


class PlainDisplay(TerminalDisplay):
    """One line per finished task, for logs and pipes."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._total = self._ended = 0
        self._plan: Plan | None = None

    def run_started(self, plan: Plan, victims: int, cells: int) -> None:
        self._total = cells
        self._plan = plan
        known = len(plan.cells) - cells
        self._say(
            f"{plan.grid}: {counted(victims, 'victim')} to train, {counted(cells, 'cell')} to compute, {known:,} already in the store"
        )

    def task_ended(self, task_id: str, title: str, failure: str | None, seconds: float) -> None:
        if task_id.startswith(("implant", "prepare")) or failure:
            self._say(f"{'FAILED' if failure else 'done'}  {title}  {seconds:.1f} s{f'  {failure}' if failure else ''}")

    def cell_ended(self, result: Result) -> None:
        self._ended += 1
        self._say(f"[{self._ended}/{self._total}] {self._title(result)}: {_outcome(result)}")

    def interrupted(self) -> None:
        self._say(STOPPING)

    def _title(self, result: Result) -> str:
        """As in the dry run: variants of one method are told apart."""
        cell = self._plan.cells.get(result.key) if self._plan is not None else None
        return cell.title if cell is not None else f"{result.attack.name} × {result.defense_name} (seed {result.seed})"

    def _say(self, text: str) -> None:
        print(text, file=self._stream, flush=True)


@dataclass
class _Task:
    """A task that is under way."""

    title: str
    started: float
    news: dict[str, Any] = field(default_factory=dict)


class LiveDisplay(TerminalDisplay):
    """Victims and cells done, running and failed; what each worker does now; speed and time left of the whole run."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True)
        self._bars = Progress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[note]}"), TimeElapsedColumn(),
            console=self._console,
        )  # fmt: skip
        self._victims = self._bars.add_task("victims", total=0, note="")
        self._cells = self._bars.add_task("cells", total=0, note="")
        self._failed = Counter[int]()
        self._tasks: dict[str, _Task] = {}
        self._pace = Pace()
        self._live = Live(get_renderable=self._render, console=self._console, refresh_per_second=4, transient=True)

    def run_started(self, plan: Plan, victims: int, cells: int) -> None:
        self._bars.update(self._victims, total=victims)
        self._bars.update(self._cells, total=cells)
        self._pace = Pace(victims, cells)
        if cells:
            self._live.start()

    def task_started(self, task_id: str, title: str) -> None:
        self._tasks[task_id] = _Task(title, time.monotonic())

    def report(self, task_id: str, progress: Mapping[str, Any]) -> None:
        task = self._tasks.get(task_id)
        if task is None:
            return
        if progress.get("started"):  # a worker took it on: what came before was waiting for one
            self._tasks[task_id] = _Task(task.title, time.monotonic())
        else:
            task.news.update(progress)

    def task_ended(self, task_id: str, title: str, failure: str | None, seconds: float) -> None:
        task = self._tasks.pop(task_id, None)
        if task is not None:
            self._pace.ended(task_id, time.monotonic() - task.started)
        if failure:
            self._console.print(f"[red]failed[/red] {escape(title)}: {escape(failure)}", highlight=False)

    def victim_ended(self, failed: bool) -> None:
        self._pace.victims -= 1
        self._advance(self._victims, failed)

    def cell_ended(self, result: Result) -> None:
        self._pace.cells -= 1
        self._advance(self._cells, result.status in {"failed", "victim-failed"})

    def interrupted(self) -> None:
        self._live.stop()
        self._console.print(STOPPING)

    def close(self) -> None:
        self._live.stop()

    def _advance(self, bar: Any, failed: bool) -> None:
        self._failed[bar] += failed
        self._bars.update(bar, advance=1)

    def _render(self) -> Group:
        tasks = dict(self._tasks)
        victims = sum(task_id.startswith(("implant:", "prepare:")) for task_id in tasks)
        for bar, running in ((self._victims, victims), (self._cells, len(tasks) - victims)):
            failed = self._failed[bar]
            self._bars.update(bar, note=f"{running} running" + (f", {failed} failed" if failed else ""))
        table = Table.grid(padding=(0, 2))
        now = time.monotonic()
        for task in list(tasks.values())[:ROWS]:
            table.add_row(Text(f"  {task.title}"), Text(_doing(task.news)), Text(_duration(now - task.started)))
        if len(tasks) > ROWS:
            table.add_row(f"  and {len(tasks) - ROWS} more")
        return Group(self._bars, Text(f"  {self._summary(tasks)}"), table)

    def _summary(self, tasks: Mapping[str, _Task]) -> str:
        speed = sum(task.news.get("images_per_second") or 0.0 for task in tasks.values())
        left = self._pace.seconds_left({task_id: time.monotonic() - task.started for task_id, task in tasks.items()})
        parts = [f"{speed:,.0f} images/s"] if speed else []
        parts += [f"about {_duration(left)} left"] if left is not None else []
        return ", ".join(parts)


def choose_display(quiet: bool) -> Display:
    """Live on a terminal, plain lines elsewhere, warnings only when quiet."""
    if quiet:
        return QuietDisplay()
    return LiveDisplay() if sys.stderr.isatty() else PlainDisplay()


def _doing(news: Mapping[str, Any]) -> str:
    parts = []
    if "epoch" in news:
        parts.append(f"epoch {news['epoch']}/{news.get('epochs', '?')}")
    if news.get("loss") is not None:
        parts.append(f"loss {news['loss']:.3f}")
    if news.get("images_per_second"):
        parts.append(f"{news['images_per_second']:,.0f} images/s")
    if news.get("seconds_left") is not None:
        parts.append(f"{_duration(news['seconds_left'])} left")
    if "note" in news and not parts:
        parts.append(str(news["note"]))
    return "  ".join(parts)


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def _outcome(result: Result) -> str:
    if result.status != "ok":
        return f"{result.status}: {result.error}"
    acc, asr = result.measures.acc, result.measures.asr
    return f"ACC {acc:.1%}" + (f"  ASR {asr:.1%}" if asr is not None else "")
