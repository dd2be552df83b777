"""gatecrash run."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from gatecrash.cli.options import (
    FiniteNumber,
    check_device,
    overrides_option,
    parse_only,
    parse_overrides,
    parse_seeds,
    plugins_option,
    store_option,
    warn_of_problems,
)
from gatecrash.errors import counted

if TYPE_CHECKING:
    from gatecrash.records.plan import Plan
    from gatecrash.records.store import Store
    from gatecrash.records.summary import Summary
    from gatecrash.running.display import Display
    from gatecrash.running.options import Rerun


@click.command("run")
@click.argument("grid")
@store_option
@click.option(
    "--executor",
    type=click.Choice(["ray", "serial"]),
    default="ray",
    envvar="GATECRASH_EXECUTOR",
    show_default=True,
    help="Ray, or one task at a time in this process.",
)
@click.option("--cpus-per-task", type=click.IntRange(1, 1024), default=1, show_default=True, help="CPU threads of each task.")
@click.option(
    "--gpus-per-task", type=FiniteNumber(), default=None, help="Share of a GPU, 0 to 1; 0.25 packs four tasks on one.  [default: 1]"
)
@click.option("--workers", type=click.IntRange(1, 100_000), default=None, help="Tasks at a time, at most.  [default: as many as fit]")
@click.option("--address", default=None, metavar="auto|HOST:PORT", help="Join this Ray cluster instead of using this machine alone.")
@click.option("--victim-time-limit", type=FiniteNumber(), default=None, metavar="SECONDS", help="Stop training a victim after this time.")
@click.option("--cell-time-limit", type=FiniteNumber(), default=None, metavar="SECONDS", help="Stop a defense after this time.")
@click.option(
    "--isolate", is_flag=True, help="A process of its own for every task; tasks of --plugins files have one anyway. Costs seconds each."
)
@click.option("--device", default=None, metavar="NAME", help="cpu, cuda or cuda:N.  [default: CUDA where there is one]")
@click.option("--only", multiple=True, metavar="KIND=NAME,...", help="Only attack=NAME,NAME or 'defense=NAME(OPTION=VALUE)'. Repeatable.")
@click.option("--seeds", default=None, metavar="N,N,...", help="Seeds to run instead of the grid's.")
@overrides_option
@click.option("--dry-run", is_flag=True, help="Say what there is to do, and do nothing.")
@click.option("--keep-models", is_flag=True, help="Keep each defended network beside its result (gatecrash.load_cell reads it).")
@click.option(
    "--rerun", type=click.Choice(["cells", "all"]), default=None, help="Compute again what is in the store: the cells, or victims too."
)
@plugins_option
@click.option("-q", "--quiet", is_flag=True, help="Show no progress, only what failed.")
def command(
    grid: str,
    store: Path | None,
    executor: Literal["serial", "ray"],
    cpus_per_task: int,
    gpus_per_task: float | None,
    workers: int | None,
    address: str | None,
    victim_time_limit: float | None,
    cell_time_limit: float | None,
    isolate: bool,
    device: str | None,
    only: tuple[str, ...],
    seeds: str | None,
    overrides: tuple[str, ...],
    dry_run: bool,
    keep_models: bool,
    rerun: Rerun | None,
    plugin_paths: tuple[Path, ...],
    quiet: bool,
) -> int:
    """Run GRID, a shipped grid's name (see `gatecrash list grids`) or a YAML file.

    Only what is not in the store yet is computed. Exit code: 0 all cells ok or not applicable, 1 some failed, 2 the request was wrong or
    the store could not be used, 130 interrupted (what was finished is kept).
    """
    from gatecrash.host.loading import load_plugins
    from gatecrash.planning.grid import load_grid
    from gatecrash.planning.planned import plan_grid
    from gatecrash.records.store import Store, default_store
    from gatecrash.running.options import RunOptions
    from gatecrash.running.progress import choose_display
    from gatecrash.running.run import executor_factory, run

    chosen = parse_only(only)
    seed_list = parse_seeds(seeds)
    parsed = load_grid(grid, parse_overrides(overrides))
    options = RunOptions(
        device=device if address else check_device(device),  # a cluster's GPUs are not this machine's
        threads=cpus_per_task,
        gpus_per_task=gpus_per_task,
        workers=workers,
        address=address,
        victim_time_limit=victim_time_limit,
        cell_time_limit=cell_time_limit,
        isolate=isolate,
        keep_models=keep_models,
        rerun=rerun,
    )
    opened = Store(store or default_store())
    display = choose_display(quiet)
    if dry_run:
        executor_factory(executor, options)
        opened.check()
        host = load_plugins(plugin_paths)
        warn_of_problems(host)
        planned = plan_grid(parsed, host, only=chosen, seeds=seed_list, progress=display.decoding)
        display.planned(planned.dataset_line, planned.plan.notes)
        _say_what_is_to_do(planned.plan, opened)
        return 0
    with _interruptible(display):
        summary = run(parsed, opened, executor, plugins=plugin_paths, only=chosen, seeds=seed_list, options=options, display=display)
    for line in summary.failures:
        click.echo(f"failed: {line}", err=True)
    if not quiet:
        _say_what_was_done(summary, opened.root)
    return summary.exit_code


@contextmanager
def _interruptible(display: Display) -> Iterator[None]:
    """The first Ctrl-C stops the run in order, the second leaves at once and takes Ray's processes along."""

    def leave(_number: int, _frame: Any) -> None:
        _kill_descendants()
        os._exit(130)

    def stop(_number: int, _frame: Any) -> None:
        signal.signal(signal.SIGINT, leave)
        display.interrupted()
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _say_what_is_to_do(plan: Plan, store: Store) -> None:
    known = sum(store.has_victim(key) for key in plan.victims)
    finished = 0
    for key in plan.cells:
        result = store.result(key) if store.root.exists() else None
        finished += result is not None and result.status in {"ok", "not-applicable"}
    victims, cells = counted(len(plan.victims), "victim"), counted(len(plan.cells), "cell")
    click.echo(f"{plan.grid}: {victims} ({known:,} in the store), {cells} ({finished:,} in the store)")
    for cell in plan.cells.values():
        click.echo(f"  {cell.title}")


def _say_what_was_done(summary: Summary, root: Path) -> None:
    total = len(summary.plan.cells)
    there = sum(key in summary.results for key in summary.plan.cells)
    state = "interrupted; run again to go on" if summary.interrupted else f"{total - summary.computed_cells:,} were already there"
    click.echo(
        f"{summary.plan.grid}: {there:,} of {counted(total, 'cell')}, {summary.computed_cells:,} computed "
        f"({counted(summary.computed_victims, 'victim')} trained) in {summary.seconds:.1f} s; {state}. Store: {root}",
        err=True,
    )


def _kill_descendants() -> None:
    """Ray's processes notice only after a while that nobody waits for them; they are ours, unless a cluster was joined."""
    import psutil

    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
