"""A driver of cells that do nothing, for bench_scale: `python no_op_driver.py FOLDER CELLS [ADDRESS SECONDS]`.

Everything on the driver's side is real: planning, scheduling, the store, Ray, the parcels. The workers carry tasks out as ever, but they
load no plugins, so that they import no torch, and only sleep for so many seconds; what a real cell gave stands for what comes of theirs.
Without an address every task ends at once, in this process.

Prints READY, waits for a line, prints JSON.
"""

from __future__ import annotations

import functools
import json
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
from pydantic import Field

from gatecrash import Config, Defense, Outcome, hookimpl
from gatecrash.host.host import Host
from gatecrash.host.loading import load_plugins
from gatecrash.planning.grid import parse_grid
from gatecrash.planning.planned import PlannedGrid, plan_grid
from gatecrash.records.store import Store
from gatecrash.running.display import Display
from gatecrash.running.options import RunOptions
from gatecrash.running.run import ExecutorFactory, run_plan, serial
from gatecrash.running.tasks.protocol import Artifact, Executor, Finished, Task

WARM_UP = 20
"""Cells that are not counted: their workers are new."""


class NoOp(Defense):
    name = "no-op"
    summary = "Does nothing."
    needs = frozenset()
    gives = frozenset()

    class Config(Config):
        number: int = Field(0, description="sets cells apart")

    def defend(self, evidence: Any) -> Outcome:
        return Outcome()


@hookimpl
def register_defenses(register: Callable[[type[Defense]], None]) -> None:
    register(NoOp)


def planned(host: Host, cells: int) -> PlannedGrid:
    """One victim, and so many cells besides the one without defense."""
    grid = {
        "name": "no-op",
        "dataset": {"digits": {"limit": 100, "limit_test": 50}},
        "model": {"small-cnn": {"width": 4}},
        "recipe": {"preset": "tiny", "epochs": 5, "batch_size": 16},
        "attacks": ["none"],
        "defenses": ["none", {"no-op": {"number": {"sweep": list(range(cells))}}}],
    }
    return plan_grid(parse_grid(grid), host)


class Noting:
    """Keeps what tasks gave, by function."""

    def __init__(self, inner: Executor, values: dict[str, Any]) -> None:
        self._inner, self._values = inner, values

    @property
    def capacity(self) -> int:
        return self._inner.capacity

    def submit(self, task: Task) -> None:
        self._inner.submit(task)

    def next_finished(self, timeout: float) -> Finished | None:
        finished = self._inner.next_finished(timeout)
        if finished is not None and finished.failure is None:
            self._values[finished.id.partition(":")[0]] = finished.value
        return finished

    def cancel(self, task_id: str) -> None:
        self._inner.cancel(task_id)

    def close(self) -> None:
        self._inner.close()


class Filling(Noting):
    """Gives what is kept as the value of every task, of whose arguments only the shared ones travel: the others would import torch."""

    def submit(self, task: Task) -> None:
        shared = {name: value for name, value in task.arguments.items() if isinstance(value, Artifact)}
        self._inner.submit(replace(task, arguments=shared))

    def next_finished(self, timeout: float) -> Finished | None:
        finished = self._inner.next_finished(timeout)
        return replace(finished, value=self._values[finished.id.partition(":")[0]]) if finished else None


class Instant:
    """Ends every task at once."""

    capacity = 8

    def __init__(self) -> None:
        self._tasks: list[Task] = []

    def submit(self, task: Task) -> None:
        self._tasks.append(task)

    def next_finished(self, timeout: float) -> Finished | None:
        return Finished(self._tasks.pop().id) if self._tasks else None

    def cancel(self, task_id: str) -> None: ...

    def close(self) -> None: ...


def on_ray(address: str, seconds: float) -> ExecutorFactory:
    """The real executor on that cluster, with workers that sleep."""
    import ray

    from gatecrash.running.executors import ray_driver
    from gatecrash.running.executors.reports import Reports

    def carry_no_op(*arguments: Any) -> Any:  # travels by value
        from gatecrash.running.executors import ray_worker
        from gatecrash.running.tasks.protocol import Finished

        def perform(job: object, task: Task, shared: object) -> Finished:
            time.sleep(seconds)
            return Finished(task.id)

        ray_worker.plugin_files.host_with = functools.cache(lambda files: None)  # type: ignore[assignment]
        ray_worker._perform = perform
        assert "torch" not in sys.modules
        return ray_worker.carry_out(*arguments)

    ray.init(address=address, log_to_driver=False, logging_level="ERROR")
    ray_driver.carry_out = carry_no_op
    ray_driver.Attendant = Reports  # type: ignore[assignment,misc]  # without the process that asks classifiers again
    return ray_driver.RayExecutor


def main(folder: Path, cells: int, address: str | None, seconds: float) -> None:
    host, store = load_plugins(), Store(folder)
    host.add(sys.modules[__name__], "bench")
    store.open()
    values: dict[str, Any] = {}

    def work(wanted: int, factory: ExecutorFactory, wrapper: type[Noting]) -> None:
        options = RunOptions(device="cpu", address=address if factory is not serial else None)
        summary = run_plan(planned(host, wanted), store, lambda *given: wrapper(factory(*given), values), options, Display())
        assert summary.exit_code == 0, summary.failures[:3]

    def instant(*_: object) -> Executor:
        return Instant()

    factory = on_ray(address, seconds) if address else instant
    work(1, serial, Noting)
    work(WARM_UP, factory, Filling)
    print("READY", flush=True)
    sys.stdin.readline()
    memory, clock, cpu = psutil.Process().memory_full_info().uss, time.perf_counter(), time.process_time()
    work(WARM_UP + cells, factory, Filling)
    figures = {"seconds": time.perf_counter() - clock, "cpu": time.process_time() - cpu}
    print(json.dumps({**figures, "mib": (psutil.Process().memory_full_info().uss - memory) / 2**20}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), *([sys.argv[3], float(sys.argv[4])] if len(sys.argv) > 3 else [None, 0.0]))
