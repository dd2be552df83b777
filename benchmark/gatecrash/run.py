"""run(grid, store, executor) -> Summary: dependencies, resume, locks and hooks. The Python API.

    from gatecrash.run import run
    summary = run("quickstart", store="gatecrash-store")

What a task does is in `tasks`; how it is carried out is the executor's business; what is already known is in the store.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from gatecrash.config import Config
from gatecrash.dataset import Prepared, Progress, prepare
from gatecrash.errors import UserError
from gatecrash.executors.base import Executor, Report
from gatecrash.grid import Grid, load_grid, resolve
from gatecrash.host import Host, load_plugins
from gatecrash.plan import Cell, Plan, Victim, make_plan
from gatecrash.results import Result
from gatecrash.store import Store, default_store

log = logging.getLogger("gatecrash")

Rerun = Literal["cells", "all"]
"""What to compute although it is in the store: the selected cells, or their victims too."""


class RunOptions(Config):
    """How to carry a grid out; none of it is part of a key."""

    device: str | None = None
    """`cpu`, `cuda`, `cuda:1`; by default CUDA where there is one."""
    threads: int = 1
    """CPU threads per task: `--cpus-per-task`."""
    gpus_per_task: float | None = None
    """Share of a GPU that a task gets under Ray; by default a whole one where there are GPUs."""
    workers: int | None = None
    """Tasks at a time under Ray, at most; by default as many as fit."""
    address: str | None = None
    """Ray cluster to join: `auto` or `HOST:PORT`; by default Ray is started on this machine."""
    victim_time_limit: float | None = None
    """Seconds after which a victim that is still training fails, under Ray."""
    cell_time_limit: float | None = None
    """Seconds after which a defense, or its evaluation, fails, under Ray."""
    isolate: bool = False
    """A process of its own for every task under Ray, not only for those that run the code of `--plugins` files."""
    rerun: Rerun | None = None


@dataclass
class Summary:
    """What a run did. `results` are those of the plan's cells that exist now, by key."""

    plan: Plan
    results: dict[str, Result] = field(default_factory=dict)
    computed_victims: int = 0
    computed_cells: int = 0
    failures: list[str] = field(default_factory=list)
    """One line per failed victim or cell."""
    seconds: float = 0.0
    interrupted: bool = False

    @property
    def exit_code(self) -> int:
        """0: all cells ok or not applicable; 1: some failed; 130: interrupted."""
        if self.interrupted:
            return 130
        ended = [self.results[key].status for key in self.plan.cells if key in self.results]
        complete = len(ended) == len(self.plan.cells) and all(status in {"ok", "not-applicable"} for status in ended)
        return 0 if complete else 1


class View:
    """What a person sees of a run; this one shows nothing. See `gatecrash.progress` for the live ones."""

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


@dataclass(frozen=True)
class Prepare:
    """A grid that has been checked whole: nothing in it can be wrong any more, as far as can be known before running."""

    plan: Plan
    prepared: Prepared
    host: Host


def plan_grid(
    grid: Grid,
    host: Host,
    *,
    only: Mapping[str, Collection[str]] | None = None,
    seeds: Iterable[int] | None = None,
    progress: Progress | None = None,
) -> Prepare:
    """Resolve the grid, decode its dataset unless that is cached, and plan. Raises UserError; writes nothing but the dataset cache."""
    resolved = resolve(grid, host)
    prepared = prepare(resolved.dataset.instance, progress=progress)
    return Prepare(make_plan(resolved, prepared, host, only=only, seeds=seeds), prepared, host)


ExecutorFactory = Callable[[Host, RunOptions, Report, Path], Executor]
"""`factory(host, options, report, folder for logs)`."""


def serial(host: Host, options: RunOptions, report: Report, logs: Path) -> Executor:
    """The executor that runs one task at a time in this process."""
    from gatecrash.executors.serial import SerialExecutor

    return SerialExecutor(host, threads=options.threads, report=report)


def ray(host: Host, options: RunOptions, report: Report, logs: Path) -> Executor:
    """The executor that distributes tasks over this machine's cores and GPUs, or over a cluster."""
    from gatecrash.executors.cluster import Request
    from gatecrash.executors.ray import RayExecutor

    wanted = {"cpu": 0.0, "cuda": options.gpus_per_task or 1.0}
    gpus = wanted.get(options.device or "", options.gpus_per_task)
    limits = {"implant": options.victim_time_limit} | dict.fromkeys(("features", "defend", "evaluate"), options.cell_time_limit)
    return RayExecutor(
        host,
        Request(options.threads, gpus, options.workers),
        address=options.address,
        limits={function: limit for function, limit in limits.items() if limit is not None},
        isolate=options.isolate,
        report=report,
        logs=logs,
    )


def run(
    grid: str | Path | Grid,
    store: str | Path | Store | None = None,
    executor: ExecutorFactory = serial,
    *,
    plugins: Sequence[str | Path] = (),
    only: Mapping[str, Collection[str]] | None = None,
    seeds: Iterable[int] | None = None,
    options: RunOptions | None = None,
    view: View | None = None,
) -> Summary:
    """Compute what is missing of the grid. Raises UserError for a wrong request, before anything is written."""
    host = load_plugins(plugins)
    parsed = grid if isinstance(grid, Grid) else load_grid(str(grid))
    prepare = plan_grid(parsed, host, only=only, seeds=seeds)
    opened = store if isinstance(store, Store) else Store(Path(store) if store is not None else default_store())
    return run_plan(prepare, opened.open(), executor, options or RunOptions(), view or View())


def run_plan(prepare: Prepare, store: Store, executor: ExecutorFactory, options: RunOptions, view: View) -> Summary:
    """Carry a plan out against an opened store."""
    from gatecrash.scheduler import Scheduler

    started = time.perf_counter()
    summary = Summary(prepare.plan)
    scheduler = Scheduler(prepare, store, options, summary, view, Observers(prepare.host))
    notify = scheduler.observers
    notify("run_started", plan=prepare.plan)
    try:
        if scheduler.find_work():
            worker = executor(prepare.host, options, view.report, store.root / "logs")
            try:
                scheduler.work_off(worker)
            except KeyboardInterrupt:
                summary.interrupted = True
            finally:
                worker.close()
                scheduler.release()
    finally:
        summary.seconds = time.perf_counter() - started
        view.close()
        notify("run_finished", summary=summary)
    return summary


@dataclass(frozen=True)
class Observers:
    """Calls the observation hooks; what they raise is logged and ignored."""

    host: Host

    def __call__(self, hook: str, **arguments: Plan | Victim | Cell | Result | Summary | str | None) -> None:
        for name, function, wanted in self.host.observers(hook):
            try:
                function(**{key: arguments[key] for key in wanted})
            except Exception:
                log.exception("observer %s of plugin %s failed and is ignored", hook, name)


def parse_only(filters: Iterable[str]) -> dict[str, set[str]]:
    """`attack=a,b` and `defense=c` as a mapping; raises UserError for any other form."""
    only: dict[str, set[str]] = {}
    for text in filters:
        kind, separator, names = text.partition("=")
        chosen = {name.strip() for name in names.split(",") if name.strip()}
        if not separator or not chosen:
            raise UserError(f"--only {text}: write attack=NAME,NAME or defense=NAME")
        only.setdefault(kind.strip(), set()).update(chosen)
    return only
