"""run(grid, store, executor) -> Summary: what `gatecrash run` does, for Python.

    from gatecrash import run
    summary = run("quickstart", store="gatecrash-store", executor="ray")

What a task does is in `tasks`; how it is carried out is the executor's business; what is already known is in the store.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal

from gatecrash.errors import UserError
from gatecrash.host.host import Host
from gatecrash.host.loading import load_plugins
from gatecrash.planning.grid import Grid, load_grid
from gatecrash.planning.planned import PlannedGrid, plan_grid
from gatecrash.records.runs import Run, save_run
from gatecrash.records.store import Store, default_store
from gatecrash.records.summary import Summary
from gatecrash.running.display import Display
from gatecrash.running.interrupts import interrupts_after
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
    from gatecrash.running.executors.ray_driver import RayExecutor

    return RayExecutor(host, options, report, logs)


EXECUTORS: Mapping[str, ExecutorFactory] = {"serial": serial, "ray": ray}


def run(
    grid: str | Path | Grid,
    store: str | Path | Store | None = None,
    executor: Literal["serial", "ray"] | ExecutorFactory = "serial",
    *,
    plugins: Sequence[str | Path] = (),
    only: Mapping[str, Collection[str]] | None = None,
    seeds: Iterable[int] | None = None,
    options: RunOptions | None = None,
    display: Display | None = None,
) -> Summary:
    """Compute what is missing of the grid, a shipped grid's name, a YAML file or a `Grid`.

    `store` is a folder, by default $GATECRASH_STORE, else ./gatecrash-store. `plugins` are files and folders besides what is installed.
    `only` is {"attack": names, "defense": names}; `seeds` replace the grid's; `display` is told how far the run is. Raises UserError for a
    wrong request, before anything is written. A cell that fails does not raise: it is in `Summary.failures`, and its result says why.
    """
    options, display = options or RunOptions(), display or Display()
    factory = executor_factory(executor, options)
    opened = store if isinstance(store, Store) else Store(Path(store) if store is not None else default_store())
    opened.check()
    host = load_plugins(plugins)
    for problem in host.problems:
        display.plugin_failed(problem.origin, problem.message)
    parsed = grid if isinstance(grid, Grid) else load_grid(str(grid))
    planned = plan_grid(parsed, host, only=only, seeds=seeds, progress=display.decoding)
    display.planned(planned.dataset_line, planned.plan.notes)
    opened.open()
    save_run(opened.root, Run.of(planned.plan, partial=bool(only) or seeds is not None))
    return run_plan(planned, opened, factory, options, display)


def executor_factory(executor: str | ExecutorFactory, options: RunOptions) -> ExecutorFactory:
    """The executor that is asked for. Raises UserError for an unknown name, and for options that it cannot follow."""
    factory = EXECUTORS.get(executor) if isinstance(executor, str) else executor
    if factory is None:
        raise UserError(f"no executor {executor!r}; use {' or '.join(EXECUTORS)}, or a function that makes one")
    if factory is serial:
        options.check_serial()
    elif factory is ray:
        options.check_ray()
    return factory


def run_plan(planned: PlannedGrid, store: Store, executor: ExecutorFactory, options: RunOptions, display: Display) -> Summary:
    """Carry a plan out against an opened store."""
    from gatecrash.running.ledger import Ledger
    from gatecrash.running.scheduler import Scheduler

    started = time.perf_counter()
    ledger = Ledger(planned, store, options, display)
    summary, notify = ledger.summary, ledger.observers
    scheduler = Scheduler(planned, ledger)
    notify("run_started", plan=planned.plan)
    try:
        if scheduler.find_work():
            worker: Executor | None = None
            try:
                with interrupts_after():
                    worker = executor(planned.host, options, display.report, store.root / "logs")
                scheduler.work_off(worker)
                store.check_kept(summary.results)
            except KeyboardInterrupt:
                summary.interrupted = True
            finally:
                if worker is not None:
                    worker.close()
                scheduler.release()
    finally:
        summary.seconds = time.perf_counter() - started
        display.close()
        notify("run_finished", summary=summary)
    return summary
