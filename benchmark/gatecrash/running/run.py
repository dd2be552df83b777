"""run(grid, store, executor) -> Summary: dependencies, resume, locks and hooks. The Python API.

    from gatecrash.run import run
    summary = run("quickstart", store="gatecrash-store")

What a task does is in `tasks`; how it is carried out is the executor's business; what is already known is in the store.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path

from gatecrash.errors import UserError
from gatecrash.host.host import Host
from gatecrash.host.loading import load_plugins
from gatecrash.planning.grid import Grid, load_grid
from gatecrash.planning.planned import PlannedGrid, plan_grid
from gatecrash.records.store import Store, default_store
from gatecrash.records.summary import Summary
from gatecrash.running.display import Display
from gatecrash.running.observers import Observers
from gatecrash.running.options import RunOptions
from gatecrash.running.tasks.protocol import Executor, TaskReport

ExecutorFactory = Callable[[Host, RunOptions, TaskReport, Path], Executor]
"""`factory(host, options, report, folder for logs)`."""


def serial(host: Host, options: RunOptions, report: TaskReport, logs: Path) -> Executor:
    """The executor that runs one task at a time in this process."""
    from gatecrash.running.executors.serial import SerialExecutor

    return SerialExecutor(host, threads=options.threads, report=report)


def ray(host: Host, options: RunOptions, report: TaskReport, logs: Path) -> Executor:
    """The executor that distributes tasks over this machine's cores and GPUs, or over a cluster."""
    from gatecrash.running.executors.cluster import ResourceRequest
    from gatecrash.running.executors.ray import RayExecutor

    wanted = {"cpu": 0.0, "cuda": options.gpus_per_task or 1.0}
    gpus = wanted.get(options.device or "", options.gpus_per_task)
    limits = {"implant": options.victim_time_limit} | dict.fromkeys(("features", "defend", "evaluate"), options.cell_time_limit)
    return RayExecutor(
        host,
        ResourceRequest(options.threads, gpus, options.workers),
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
    view: Display | None = None,
) -> Summary:
    """Compute what is missing of the grid. Raises UserError for a wrong request, before anything is written."""
    host = load_plugins(plugins)
    parsed = grid if isinstance(grid, Grid) else load_grid(str(grid))
    prepare = plan_grid(parsed, host, only=only, seeds=seeds)
    opened = store if isinstance(store, Store) else Store(Path(store) if store is not None else default_store())
    return run_plan(prepare, opened.open(), executor, options or RunOptions(), view or Display())


def run_plan(prepare: PlannedGrid, store: Store, executor: ExecutorFactory, options: RunOptions, view: Display) -> Summary:
    """Carry a plan out against an opened store."""
    from gatecrash.running.scheduler import Scheduler

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
