"""What runs in Ray's workers: one task, its output kept apart, its progress reported to the driver."""

from __future__ import annotations

import faulthandler
import functools
import os
import socket
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import ray
import ray.exceptions

from gatecrash.errors import one_line
from gatecrash.process.lasting import keep_all_of_now
from gatecrash.running.executors import output, plugin_files
from gatecrash.running.executors.attendant import QUESTIONS
from gatecrash.running.executors.cluster import Versions, cuda_index, disagreement
from gatecrash.running.executors.reports import WorkerLocation
from gatecrash.running.executors.shipping import Parcel, pack, unpack
from gatecrash.running.tasks.protocol import Failure, Finished, Task
from gatecrash.running.witness.wire import Message

LISTEN = 0.25
"""Seconds between a worker's reports of its progress, and between the driver's looks at them."""


@dataclass(frozen=True)
class Job:
    """What all tasks of a run share."""

    reports: Any
    files: plugin_files.PluginFiles
    threads: int
    on_gpu: bool
    limits: Mapping[str, float]
    witnesses: Mapping[str, Any]
    """By node, the driver's first: the actor there that asks classifiers again in new processes."""
    versions: Versions | None
    """What a node must run that joins a cluster later than this job did; None on a Ray of our own."""


def carry_out(job: Job, parcel: Parcel, attempt: int, names: list[str], *shared: Parcel) -> Parcel:
    """Run one task in this worker; gives (Finished, what it printed)."""
    task: Task = unpack(parcel)
    handle, name = tempfile.mkstemp(prefix="gatecrash-output-")
    os.close(handle)
    path = Path(name)
    location = WorkerLocation(ray.get_runtime_context().get_node_id(), socket.gethostname(), os.getpid(), name)
    started = functools.partial(job.reports.start.options(num_returns=0).remote, task.id, attempt, location)
    limit = job.limits.get(task.function)
    try:
        with output.redirected(path):
            started()
            if not plugin_files.host_with.cache_info().currsize:
                plugin_files.host_with(job.files)
                keep_all_of_now()
                started()  # time counts from here: a new worker's imports are not the plugin's
            if limit is not None:
                faulthandler.dump_traceback_later(limit, file=2)
            try:
                finished = _perform(job, task, dict(zip(names, shared, strict=True)))
            finally:
                faulthandler.cancel_dump_traceback_later()
        return pack((finished, output.bounded(path)))
    finally:
        path.unlink(missing_ok=True)


def _perform(job: Job, task: Task, shared: Mapping[str, Parcel]) -> Finished:
    from gatecrash.running.tasks.perform import perform
    from gatecrash.running.witness.asking import RemoteWitness

    fault = job.versions and disagreement(job.versions, _versions(), "the driver")
    if fault:
        return Finished(task.id, failure=Failure("system", f"node {socket.gethostname()} {fault}"))
    host = plugin_files.host_with(job.files)
    for problem in host.problems:
        print(f"plugin {problem.origin}: {problem.message}\n{problem.details}")
    task = replace(task, arguments={**task.arguments, **{name: unpack(parcel) for name, parcel in shared.items()}})
    device = _assigned_device() if job.on_gpu else "cpu"
    try:
        witness = RemoteWitness(functools.partial(_ask, job.witnesses), job.files, job.threads)
        return perform(task, host, job.threads, _Throttled(job.reports), device, witness)
    except KeyboardInterrupt:  # nobody interrupts a worker: the plugin raised it
        return Finished(task.id, failure=Failure("error", "the plugin raised KeyboardInterrupt"))
    finally:
        if job.on_gpu:
            _empty_caches()


def _ask(witnesses: Mapping[str, Any], question: Message) -> Message:
    """Ask on this node; a node that joined later asks on the driver's, which comes first."""
    here = ray.get_runtime_context().get_node_id()
    actor = witnesses.get(here) or next(iter(witnesses.values()))
    try:
        answer: Message = ray.get(actor.ask.options(concurrency_group=QUESTIONS).remote(question))
    except ray.exceptions.RayTaskError as error:
        raise RuntimeError(one_line(error.cause)) from None
    return answer


@functools.cache
def _versions() -> Versions:
    return Versions.here()


class _Throttled:
    """Sends a task's progress to the driver, a few times a second at most."""

    def __init__(self, reports: Any) -> None:
        self._reports, self._last = reports, float("-inf")

    def __call__(self, task_id: str, progress: Mapping[str, Any]) -> None:
        if time.monotonic() - self._last < LISTEN:
            return
        self._last = time.monotonic()
        plain = {name: value for name, value in progress.items() if isinstance(value, str | int | float)}
        self._reports.tell.options(num_returns=0).remote(task_id, plain)


def _assigned_device() -> str:
    """The CUDA device that Ray assigned to this task, by torch's numbering in this process."""
    import torch

    index = cuda_index(str(ray.get_gpu_ids()[0]), os.environ.get("CUDA_VISIBLE_DEVICES"))
    if torch.cuda.is_available():
        torch.cuda.set_device(index)  # for plugins that say "cuda"
    return f"cuda:{index}"


def _empty_caches() -> None:
    """Give the GPU memory that this task leaves behind to its neighbours."""
    import gc

    import torch

    gc.collect()
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.empty_cache()


def take_output(path: str) -> str:
    """What a dead worker's task had printed; removes the file."""
    file = Path(path)
    try:
        return output.bounded(file)
    except OSError:
        return ""
    finally:
        file.unlink(missing_ok=True)
