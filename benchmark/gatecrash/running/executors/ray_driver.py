"""Ray carries the tasks out: on this machine's cores and GPUs, or on a cluster. This is the driver's side.

One Ray task per Gatecrash task, as many in flight as the cluster can hold. Large artifacts are put into the object store once per key and
each worker copies what it needs. A worker says when it starts (time limits count from there) and how far it is; its output comes
back with its result, or is fetched from its node when it died. A task whose worker or node dies is submitted once more, then it has failed.

Tasks run in workers of two kinds, told apart by their environment: `features` and `defend` never share a process with `prepare`,
`implant` and `evaluate`, which hold the ground truth. Tasks that run the code of `--plugins` files, and all under `isolate`, do so alone:
in a process that ran nothing before, runs nothing after, and loads no other such file.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gatecrash.errors import one_line
from gatecrash.host.host import Host
from gatecrash.running.executors import output, plugin_files
from gatecrash.running.executors.attendant import AT_A_TIME, QUESTIONS, Attendant
from gatecrash.running.executors.cluster import ResourceRequest, Versions, slots
from gatecrash.running.executors.ray_session import RaySession, alive_nodes
from gatecrash.running.executors.ray_worker import LISTEN, Job, carry_out, take_output
from gatecrash.running.executors.reports import Drained, WorkerLocation
from gatecrash.running.executors.shipping import Parcel, SharedArtifacts, pack, unpack
from gatecrash.running.options import RunOptions
from gatecrash.running.tasks.protocol import Artifact, Failure, Finished, Task, TaskFunction, TaskReport

# isort: split
import ray  # after ray_session, which sets what it reads
import ray.exceptions
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

log = logging.getLogger("gatecrash")

GRACE = 0.5
"""Seconds that a worker which is over its time has to write down where it hangs."""

ATTEMPTS = 2
"""A task that lost its worker is tried once more."""

ROLES: Mapping[TaskFunction, str] = {
    **dict.fromkeys(("prepare", "implant", "evaluate"), "trusted"),
    **dict.fromkeys(("features", "defend"), "defend"),
}
"""Ray starts separate workers for separate environments."""


@dataclass
class RunningTask:
    """A task in flight; `parcel` and `shared` are what it takes to submit it again."""

    task: Task
    parcel: Parcel
    shared: Mapping[str, Any]
    attempt: int = 0
    ref: Any = None
    started: float | None = None
    location: WorkerLocation | None = None


class RayExecutor:
    """Runs tasks on Ray. Raises what `RaySession` raises."""

    def __init__(self, host: Host, options: RunOptions, report: TaskReport, logs: Path) -> None:
        self._limits, self._report, self._logs, self._isolate = _limits(options), report, logs, options.isolate
        self._running: dict[str, RunningTask] = {}
        self._counted = (0, float("-inf"))
        self._session = RaySession(_request(options), options.address)
        try:
            # the driver's node first, without which there is no run: nodes that join later ask there
            nodes = sorted(alive_nodes(), key=lambda node: node.id != self._session.node)
            attendants = {node.id: _attendant(node.id) for node in nodes}
            self._listener = Listener(attendants[self._session.node])
            self._workers = Workers(self._session, attendants, tuple(host.files), self._limits)
            self._shared = SharedArtifacts(ray.put, self._session.store_bytes() // 4, by_file=self._session.is_local)
        except BaseException:
            self._session.close()
            raise

    @property
    def capacity(self) -> int:
        """How many tasks the nodes that are alive can hold at a time; at least one, so that work waits for nodes to come back."""
        count, when = self._counted
        request = self._session.request
        if time.monotonic() - when > 2.0:
            held = slots(alive_nodes(), request)
            if not held and count:
                log.warning("no node of the cluster can hold a task any more; waiting for one")
            count = held
            self._counted = count, time.monotonic()
        return max(1, min(count, request.workers or count))

    def submit(self, task: Task) -> None:
        shared = {name: self._shared.put(value) for name, value in task.arguments.items() if isinstance(value, Artifact)}
        rest = {name: value for name, value in task.arguments.items() if not isinstance(value, Artifact)}
        parcel = pack(replace(task, title="", arguments=rest))  # the title names the attack
        running = RunningTask(replace(task, arguments={}), parcel, shared)
        self._running[task.id] = running
        self._launch(running)

    def _launch(self, running: RunningTask) -> None:
        running.attempt += 1
        running.started, running.location = None, None
        running.ref = self._workers.launch(running, alone=self._isolate or bool(running.task.files))

    def next_finished(self, timeout: float) -> Finished | None:
        end = time.monotonic() + timeout
        while self._running:
            by_ref = {running.ref: running for running in self._running.values()}
            left = end - time.monotonic()
            ready, _ = ray.wait(list(by_ref), num_returns=1, timeout=max(0.0, min(left, LISTEN)))
            self._listen()
            finished = self._receive(by_ref[ready[0]]) if ready else self._overdue()
            if finished is not None:
                del self._running[finished.id]
                return finished
            if not ready and left <= 0:
                return None
        return None

    def _receive(self, running: RunningTask) -> Finished | None:
        """What came of a task that ended, or None if it is tried again."""
        try:
            finished, printed = unpack(ray.get(running.ref))
        except ray.exceptions.RayError as error:
            cause = getattr(error, "cause", None)
            if isinstance(cause, Exception) and not isinstance(cause, ray.exceptions.RayError):
                # raised around the plugin: say, what it returned cannot be pickled
                return self._failed(running, Failure("error", one_line(cause), str(error)), "")
            self._listen(patience=1.0)  # the worker's start report may be on its way
            message = _what_happened(error)
            printed = self._salvage(running)
            if running.attempt < ATTEMPTS:
                log.info("%s: %s; submitted again", running.task.title, message)
                self._launch(running)
                self._report(running.task.id, {"note": f"again: {message}"})
                return None
            return self._failed(running, Failure("system", f"{message} (in {ATTEMPTS} attempts)", str(error)), printed)
        return self._ended(running, finished, printed)

    def _overdue(self) -> Finished | None:
        """Stop the first task that has used up its time."""
        for running in self._running.values():
            limit = self._limits.get(running.task.function)
            if limit is None or running.started is None or time.monotonic() - running.started < limit + GRACE:
                continue
            _stop(running)
            return self._failed(running, Failure("timeout", f"took longer than the time limit of {limit:g} s"), self._salvage(running))
        return None

    def _failed(self, running: RunningTask, failure: Failure, printed: str) -> Finished:
        return self._ended(running, Finished(running.task.id, failure=failure), printed)

    def _ended(self, running: RunningTask, finished: Finished, printed: str) -> Finished:
        location = running.location
        where = f"attempt {running.attempt}" + (f" in process {location.pid} on {location.host}" if location else "")
        path = output.save_log(self._logs, running.task, where, printed, finished.failure)
        return replace(finished, failure=replace(finished.failure, log=path)) if finished.failure is not None else finished

    def _listen(self, patience: float = 0.0) -> None:
        """Take in what the workers have reported since the last time; wait up to `patience` seconds for it."""
        starts, news = self._listener.listen(patience)
        for task_id, attempt, started, location in starts:
            running = self._running.get(task_id)
            if running is not None and running.attempt == attempt:
                running.started, running.location = started, location
                self._report(task_id, {"started": True})
        for task_id, progress in news.items():
            if task_id in self._running:
                self._report(task_id, progress)

    def _salvage(self, running: RunningTask) -> str:
        """What a task printed before its worker died; its file may lie on another node."""
        location = running.location
        if location is None:
            return ""
        if location.node == self._session.node:
            return take_output(location.output)
        there = NodeAffinitySchedulingStrategy(location.node, soft=False)
        taking = ray.remote(take_output).options(num_cpus=0, max_retries=0, scheduling_strategy=there).remote(location.output)
        try:
            return str(ray.get(taking, timeout=15))
        except ray.exceptions.RayError:
            return ""

    def cancel(self, task_id: str) -> None:
        running = self._running.pop(task_id, None)
        if running is not None:
            _stop(running)

    def close(self) -> None:
        for task_id in list(self._running):
            self.cancel(task_id)
        if not self._session.close():
            self._listener.close()


class Workers:
    """Submits tasks to workers of the kind that each task needs."""

    def __init__(
        self, session: RaySession, attendants: Mapping[str, Any], files: plugin_files.PluginFiles, limits: Mapping[str, float]
    ) -> None:
        request = session.request
        versions = None if session.is_local else Versions.here()
        self._common = Job(attendants[session.node], files, request.cpus, bool(request.gpus), limits, attendants, versions)
        self._jobs: dict[frozenset[str], Any] = {}
        resources = {"num_cpus": request.cpus, "num_gpus": request.gpus, "max_retries": 0}
        # max_calls=0: GPU workers are reused too, since importing torch and making a CUDA context takes seconds
        carry = {alone: ray.remote(max_calls=int(alone))(carry_out) for alone in (False, True)}
        self._remote = {
            (role, alone): carry[alone].options(**resources, runtime_env=session.environment(role, alone))
            for role in set(ROLES.values())
            for alone in carry
        }

    def launch(self, running: RunningTask, *, alone: bool) -> Any:
        """Submit the task; `alone`: to a process that runs nothing else. Returns Ray's reference to what comes of it."""
        remote, job = self._remote[ROLES[running.task.function], alone], self._job(running.task.files)
        return remote.remote(job, running.parcel, running.attempt, list(running.shared), *running.shared.values())

    def _job(self, files: frozenset[str]) -> Any:
        """What the tasks that run the code of these files are told; the other files do not travel to them."""
        if files not in self._jobs:
            self._jobs[files] = ray.put(replace(self._common, files=plugin_files.among(self._common.files, files)))
        return self._jobs[files]


class Listener:
    """Asks the actor that collects the workers' reports, a few times a second."""

    def __init__(self, reports: Any) -> None:
        self.reports = reports
        self._asked: Any = None
        self._heard = 0.0

    def listen(self, patience: float) -> Drained:
        """What was reported since the last time; waits up to `patience` seconds for it."""
        if self._asked is None:
            if not patience and time.monotonic() - self._heard < LISTEN:
                return [], {}
            self._asked = self.reports.drain.remote()
        if not ray.wait([self._asked], timeout=patience)[0]:
            return [], {}
        answer, self._asked = self._asked, None
        self._heard = time.monotonic()
        try:
            drained: Drained = ray.get(answer)
        except ray.exceptions.RayError:
            return [], {}  # it is being restarted
        return drained

    def close(self) -> None:
        if ray.is_initialized():
            ray.kill(self.reports)


def _attendant(node: str) -> Any:
    """The actor on this node that takes reports and asks witnesses."""
    there = NodeAffinitySchedulingStrategy(node, soft=False)
    groups: dict[str, Any] = {"concurrency_groups": {QUESTIONS: AT_A_TIME}}  # which Ray's own types do not know
    return ray.remote(**groups)(Attendant).options(num_cpus=0, max_restarts=-1, scheduling_strategy=there).remote()


def _request(options: RunOptions) -> ResourceRequest:
    wanted = {"cpu": 0.0, "cuda": options.gpus_per_task or 1.0}
    return ResourceRequest(options.threads, wanted.get(options.device or "", options.gpus_per_task), options.workers)


def _limits(options: RunOptions) -> dict[str, float]:
    """Seconds by task function, where there is a limit."""
    limits = dict.fromkeys(("prepare", "implant"), options.victim_time_limit)
    limits |= dict.fromkeys(("features", "defend", "evaluate"), options.cell_time_limit)
    return {function: limit for function, limit in limits.items() if limit is not None}


def _stop(running: RunningTask) -> None:
    with suppress(ray.exceptions.RayError, ValueError):
        ray.cancel(running.ref, force=True)


_LOST = {
    ray.exceptions.WorkerCrashedError: "its worker process died",
    ray.exceptions.OutOfMemoryError: "its worker was killed because the node ran out of memory; use fewer --workers",
    ray.exceptions.NodeDiedError: "its node died",
    ray.exceptions.ObjectLostError: "its data or its result was lost with a node",
}


def _what_happened(error: Exception) -> str:
    """A lost worker in one sentence."""
    for kind, sentence in _LOST.items():
        if isinstance(error, kind):
            return sentence
    return one_line(error)[:300]
