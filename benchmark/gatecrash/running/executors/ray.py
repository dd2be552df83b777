"""Ray carries the tasks out: on this machine's cores and GPUs, or on a cluster. The only module that imports ray.

One Ray task per Gatecrash task, as many in flight as the cluster can hold. Large artifacts are put into the object store once per key and
read there by every worker without a copy. A worker says when it starts (time limits count from there) and how far it is; its output comes
back with its result, or is fetched from its node when it died. A task whose worker or node dies is submitted once more, then it has failed.

Tasks run in workers of two kinds, told apart by their environment: `features` and `defend` never share a process with `implant` and
`evaluate`, which hold the ground truth. Tasks that run the code of `--plugins` files, and all under `isolate`, do so alone: in a process
that ran nothing before, runs nothing after, and loads no other such file.
"""

from __future__ import annotations

import faulthandler
import functools
import logging
import os
import secrets
import socket
import sys
import tempfile
import time
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import joblib  # type: ignore[import-untyped]
import ray
import ray.exceptions
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from gatecrash.errors import UserError, one_line
from gatecrash.host.host import Host
from gatecrash.running.executors import output, plugin_files
from gatecrash.running.executors.cluster import Machine, ResourceRequest, Versions, cuda_index, disagreement, slots
from gatecrash.running.executors.reports import Reports, WorkerLocation
from gatecrash.running.executors.shipping import Parcel, pack, unpack
from gatecrash.running.tasks.protocol import Artifact, Failure, Finished, Task, TaskReport

if "ray" not in sys.modules:  # Ray reads these when it is imported
    # What it would print about workers is in our own messages and logs.
    os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", ".")
    # `ray start --head` asks for a token where the user has one: join such a cluster with it.
    if {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & os.environ.keys() or Path("~/.ray/auth_token").expanduser().exists():
        os.environ.setdefault("RAY_AUTH_MODE", "token")


log = logging.getLogger("gatecrash")


LISTEN = 0.25
"""Seconds between looks at what the workers report."""


GRACE = 0.5
"""Seconds that a worker which is over its time has to write down where it hangs."""


ATTEMPTS = 2
"""A task that lost its worker is tried once more."""


ROLES = {"implant": "trusted", "evaluate": "trusted", "features": "defend", "defend": "defend"}
"""Ray starts separate workers for separate environments."""


WORKER_ENVIRONMENT = {
    "OMP_WAIT_POLICY": "passive",  # idle OpenMP threads would spin and starve the other workers
    "RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES": "1",  # a live CUDA context does not follow changes: tasks get an explicit cuda:i
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}


class RayExecutor:
    """Runs tasks on Ray. A Ray that this process has joined already is used, and left running by `close`.

    Raises UserError, before anything starts, for a request that this machine or cluster can never satisfy, a cluster that cannot be
    joined, nodes whose Python, Ray or Gatecrash differ from this one's, and nodes that
    objects do not reach.
    """

    def __init__(
        self,
        host: Host,
        request: ResourceRequest,
        *,
        address: str | None,
        limits: Mapping[str, float],
        report: TaskReport,
        logs: Path,
        isolate: bool = False,
    ) -> None:
        """`limits` are seconds by task function; `isolate` gives every task a process of its own."""
        self._limits, self._report, self._logs, self._isolate = dict(limits), report, logs, isolate
        self._owns_ray = not ray.is_initialized()
        self._is_local = self._owns_ray and not address
        if self._owns_ray:
            _join(address) if address else start(request)
        try:
            nodes = _nodes()
            self._request = request.resolve(nodes)
            if not self._is_local:
                _check_nodes(nodes, self._environment("trusted"))
            self._prepare(host)
        except BaseException:
            self.close()
            raise

    def _prepare(self, host: Host) -> None:
        self._node = ray.get_runtime_context().get_node_id()
        here = NodeAffinitySchedulingStrategy(self._node, soft=False)
        self._reports: Any = ray.remote(Reports).options(num_cpus=0, max_restarts=-1, scheduling_strategy=here).remote()
        request = self._request
        versions = None if self._is_local else Versions.here()
        self._common = _Job(self._reports, plugin_files.read(host.paths), request.cpus, bool(request.gpus), self._limits, versions)
        self._jobs: dict[frozenset[str], Any] = {}
        self._shared = _Shared(budget=_store_bytes(self._node) // 4)
        # max_calls=0: GPU workers are reused too, since importing torch and making a CUDA context takes seconds
        carry = {alone: ray.remote(max_calls=int(alone))(_carry) for alone in (False, True)}
        self._remote = {
            (role, alone): carry[alone].options(**self._options(role, alone)) for role in set(ROLES.values()) for alone in carry
        }
        self._running: dict[str, _Running] = {}
        self._drained: Any = None
        self._listened = 0.0
        self._counted = (0, float("-inf"))

    def _options(self, role: str, alone: bool) -> dict[str, Any]:
        request = self._request
        return {"num_cpus": request.cpus, "num_gpus": request.gpus, "max_retries": 0, "runtime_env": self._environment(role, alone)}

    def _environment(self, role: str, alone: bool = False) -> dict[str, Any] | None:
        """The environment of one kind of workers. Trusted workers of a Ray of our own inherit theirs: Ray has them ready before the first
        task comes. Who works alone must not have worked before, hence the environment that no other task asks for."""
        if role == "trusted" and not alone and self._is_local:
            return None
        variables = {**WORKER_ENVIRONMENT, "OMP_NUM_THREADS": str(self._request.cpus), "GATECRASH_ROLE": role}
        return {"env_vars": {**variables, **({"GATECRASH_ALONE": "1"} if alone else {})}}

    def _job(self, files: frozenset[str]) -> Any:
        """What the tasks that run the code of these files are told; the other files do not travel to them."""
        if files not in self._jobs:
            self._jobs[files] = ray.put(replace(self._common, files=plugin_files.among(self._common.files, files)))
        return self._jobs[files]

    @property
    def capacity(self) -> int:
        """How many tasks the nodes that are alive can hold at a time; at least one, so that work waits for nodes to come back."""
        count, when = self._counted
        if time.monotonic() - when > 2.0:
            held = slots(_nodes(), self._request)
            if not held and count:
                log.warning("no node of the cluster can hold a task any more; waiting for one")
            count = held
            self._counted = count, time.monotonic()
        return max(1, min(count, self._request.workers or count))

    def submit(self, task: Task) -> None:
        shared = {name: self._shared.put(value) for name, value in task.arguments.items() if isinstance(value, Artifact)}
        rest = {name: value for name, value in task.arguments.items() if not isinstance(value, Artifact)}
        parcel = pack(replace(task, title="", arguments=rest))  # the title names the attack
        running = _Running(replace(task, arguments={}), parcel, shared)
        self._running[task.id] = running
        self._launch(running)

    def _launch(self, running: _Running) -> None:
        running.attempt += 1
        running.started, running.place = None, None
        files = running.task.files
        remote = self._remote[ROLES[running.task.function], self._isolate or bool(files)]
        running.ref = remote.remote(self._job(files), running.parcel, running.attempt, list(running.shared), *running.shared.values())

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

    def _receive(self, running: _Running) -> Finished | None:
        """What came of a task that ended, or None if it is tried again."""
        try:
            finished, printed = unpack(ray.get(running.ref))
        except ray.exceptions.RayError as error:
            cause = getattr(error, "cause", None)
            if isinstance(cause, Exception) and not isinstance(cause, ray.exceptions.RayError):
                # raised around the plugin: say, what it returned cannot be pickled
                return self._ended(running, Finished(running.task.id, failure=Failure("error", one_line(cause), str(error))), "")
            self._listen(patience=1.0)  # the worker's start report may be on its way
            message = _what_happened(error)
            printed = self._salvage(running)
            if running.attempt < ATTEMPTS:
                log.info("%s: %s; submitted again", running.task.title, message)
                self._launch(running)
                self._report(running.task.id, {"note": f"again: {message}"})
                return None
            failure = Failure("system", f"{message} (in {ATTEMPTS} attempts)", str(error))
            return self._ended(running, Finished(running.task.id, failure=failure), printed)
        return self._ended(running, finished, printed)

    def _overdue(self) -> Finished | None:
        """Stop the first task that has used up its time."""
        for running in self._running.values():
            limit = self._limits.get(running.task.function)
            if limit is None or running.started is None or time.monotonic() - running.started < limit + GRACE:
                continue
            self._stop(running)
            printed = self._salvage(running)
            failure = Failure("timeout", f"took longer than the time limit of {limit:g} s")
            return self._ended(running, Finished(running.task.id, failure=failure), printed)
        return None

    def _ended(self, running: _Running, finished: Finished, printed: str) -> Finished:
        place = running.place
        where = f"attempt {running.attempt}" + (f" in process {place.pid} on {place.host}" if place else "")
        path = output.save_log(self._logs, running.task, where, printed, finished.failure)
        failure = replace(finished.failure, log=path) if finished.failure is not None else None
        return replace(finished, failure=failure, worker={"host": place.host, "pid": place.pid} if place else {})

    def _listen(self, patience: float = 0.0) -> None:
        """Take in what the workers have reported since the last time; wait up to `patience` seconds for it."""
        if self._drained is None:
            if not patience and time.monotonic() - self._listened < LISTEN:
                return
            self._drained = self._reports.drain.remote()
        if not ray.wait([self._drained], timeout=patience)[0]:
            return
        drained, self._drained = self._drained, None
        self._listened = time.monotonic()
        try:
            starts, progress = ray.get(drained)
        except ray.exceptions.RayError:
            return  # it is being restarted
        for task_id, attempt, started, place in starts:
            running = self._running.get(task_id)
            if running is not None and running.attempt == attempt:
                running.started, running.place = started, place
                self._report(task_id, {"started": True})
        for task_id, news in progress.items():
            if task_id in self._running:
                self._report(task_id, news)

    def _salvage(self, running: _Running) -> str:
        """What a task printed before its worker died; its file may lie on another node."""
        place = running.place
        if place is None:
            return ""
        if place.node == self._node:
            return _take(place.output)
        there = NodeAffinitySchedulingStrategy(place.node, soft=False)
        taking = ray.remote(_take).options(num_cpus=0, max_retries=0, scheduling_strategy=there).remote(place.output)
        try:
            return str(ray.get(taking, timeout=15))
        except ray.exceptions.RayError:
            return ""

    def cancel(self, task_id: str) -> None:
        running = self._running.pop(task_id, None)
        if running is not None:
            self._stop(running)

    def _stop(self, running: _Running) -> None:
        with suppress(ray.exceptions.RayError, ValueError):
            ray.cancel(running.ref, force=True)

    def close(self) -> None:
        for task_id in list(getattr(self, "_running", ())):
            self.cancel(task_id)
        if not ray.is_initialized():
            return
        if self._owns_ray:
            ray.shutdown()
        elif hasattr(self, "_reports"):
            ray.kill(self._reports)


@dataclass
class _Running:
    """A task in flight; `parcel` and `shared` are what it takes to submit it again."""

    task: Task
    parcel: Parcel
    shared: Mapping[str, Any]
    attempt: int = 0
    ref: Any = None
    started: float | None = None
    place: WorkerLocation | None = None


class _Shared:
    """Artifacts in the object store, by key: each put once. The least recently used are let go beyond `budget` bytes; Ray keeps what a
    task in flight still needs."""

    def __init__(self, budget: int) -> None:
        self._budget, self._total = budget, 0
        self._refs: OrderedDict[str, tuple[Any, int]] = OrderedDict()

    def put(self, artifact: Artifact) -> Any:
        if artifact.key not in self._refs:
            parcel = pack(artifact.value)
            self._refs[artifact.key] = ray.put(parcel), parcel.size
            self._total += parcel.size
        self._refs.move_to_end(artifact.key)
        ref = self._refs[artifact.key][0]
        while self._total > self._budget and len(self._refs) > 1:
            self._total -= self._refs.popitem(last=False)[1][1]
        return ref


# in the workers


@dataclass(frozen=True)
class _Job:
    """What all tasks of a run share."""

    reports: Any
    files: plugin_files.PluginFiles
    threads: int
    on_gpu: bool
    limits: Mapping[str, float]
    versions: Versions | None
    """What a node must run that joins a cluster later than this job did; None on a Ray of our own."""


def _carry(job: _Job, parcel: Parcel, attempt: int, names: list[str], *shared: Parcel) -> Parcel:
    """Run one task in this worker; gives (Finished, what it printed)."""
    task: Task = unpack(parcel)
    handle, path = tempfile.mkstemp(prefix="gatecrash-output-")
    os.close(handle)
    place = WorkerLocation(ray.get_runtime_context().get_node_id(), socket.gethostname(), os.getpid(), path)
    started = functools.partial(job.reports.start.options(num_returns=0).remote, task.id, attempt, place)
    limit = job.limits.get(task.function)
    try:
        with output.redirected(Path(path)):
            started()
            if not plugin_files.host_with.cache_info().currsize:
                plugin_files.host_with(job.files)
                started()  # time counts from here: a new worker's imports are not the plugin's
            if limit is not None:
                faulthandler.dump_traceback_later(limit, file=2)
            try:
                finished = _perform(job, task, dict(zip(names, shared, strict=True)))
            finally:
                faulthandler.cancel_dump_traceback_later()
        return pack((finished, output.bounded(Path(path))))
    finally:
        Path(path).unlink(missing_ok=True)


def _perform(job: _Job, task: Task, shared: Mapping[str, Parcel]) -> Finished:
    from gatecrash.running.tasks.perform import perform

    fault = job.versions and disagreement(job.versions, _versions(), "the driver")
    if fault:
        return Finished(task.id, failure=Failure("system", f"node {socket.gethostname()} {fault}"))
    host = plugin_files.host_with(job.files)
    for problem in host.problems:
        print(f"plugin {problem.origin}: {problem.message}\n{problem.details}")
    task = replace(task, arguments={**task.arguments, **{name: unpack(parcel) for name, parcel in shared.items()}})
    device = _assigned_device() if job.on_gpu else "cpu"
    try:
        return perform(task, host, job.threads, _Throttled(job.reports), device)
    except KeyboardInterrupt:  # nobody interrupts a worker: the plugin raised it
        return Finished(task.id, failure=Failure("error", "the plugin raised KeyboardInterrupt"))
    finally:
        if job.on_gpu:
            _empty_caches()


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


def _take(path: str) -> str:
    """What a dead worker's task had printed; removes the file."""
    file = Path(path)
    try:
        return output.bounded(file)
    except OSError:
        return ""
    finally:
        file.unlink(missing_ok=True)


# starting and joining


def start(request: ResourceRequest) -> None:
    """A Ray of our own on this machine, quiet, with the driver's fate."""
    here = _this_machine(request)
    request.resolve([here])
    with _inherited(), _quiet():
        ray.init(
            address="local",
            num_cpus=int(here.cpus),
            num_gpus=int(here.gpus),
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )


def _join(address: str) -> None:
    with _quiet():
        try:
            if address != "auto":  # Ray itself would try for minutes
                name, _, port = address.rpartition(":")
                socket.create_connection((name, int(port)), timeout=10).close()
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
        except (OSError, RuntimeError, ValueError, OverflowError, ray.exceptions.RayError) as error:
            raise UserError(
                f"--address {address}: cannot join that cluster ({one_line(error)[:300]}); start one with `ray start --head`, and run "
                f"`ray start --address HOST:PORT` on this machine before joining from here"
            ) from None


def _this_machine(request: ResourceRequest) -> Machine:
    import torch

    gpus = torch.cuda.device_count() if request.gpus != 0 and torch.cuda.is_available() else 0
    return Machine("this machine", "", float(joblib.cpu_count()), float(gpus))


def _store_bytes(node: str) -> int:
    found = next(entry for entry in ray.nodes() if entry["NodeID"] == node)  # type: ignore[no-untyped-call]
    return int(found["Resources"].get("object_store_memory", 2**30))


@contextmanager
def _inherited() -> Iterator[None]:
    """What Ray's processes inherit from this one; the user's own settings win."""
    wanted = {
        **WORKER_ENVIRONMENT,
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
        "RAY_enable_metrics_collection": "0",
        "RAY_task_events_report_interval_ms": "0",
        "RAY_idle_worker_killing_time_threshold_ms": "3600000",  # two kinds of workers for every core: starting one takes seconds
    }
    if "RAY_AUTH_MODE" not in os.environ:  # no token: this run's own, which only its processes know, instead of a file in the home
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
    before = dict(os.environ)
    os.environ.update({name: value for name, value in wanted.items() if name not in before})
    try:
        yield
    finally:
        for name in wanted.keys() - before.keys():
            os.environ.pop(name, None)


@contextmanager
def _quiet() -> Iterator[None]:
    """Ray's notices are not about the user's run."""
    logger = logging.getLogger("ray")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(max(level, logging.ERROR))


def _nodes() -> list[Machine]:
    return [
        Machine(entry["NodeManagerHostname"], entry["NodeID"], entry["Resources"].get("CPU", 0.0), entry["Resources"].get("GPU", 0.0))
        for entry in ray.nodes()  # type: ignore[no-untyped-call]
        if entry["Alive"]
    ]


def _check_nodes(nodes: list[Machine], environment: dict[str, Any] | None) -> None:
    """Every node must run what this process runs (numbers, and what travels between them, depend on it), and objects must get through
    both ways: a node that cannot reach this process would fail every task that it is given."""
    mine = Versions.here()
    parcel = ray.put(bytes(_PARCEL))
    asked = {}
    for node in nodes:
        there = NodeAffinitySchedulingStrategy(node.id, soft=False)
        probe = ray.remote(_probe()).options(num_cpus=0, max_retries=0, scheduling_strategy=there, runtime_env=environment)
        asked[f"{node.name} ({node.id[:8]})"] = probe.remote(parcel)
    for name, ref in asked.items():
        try:
            theirs, _ = ray.get(ref, timeout=120)
        except ray.exceptions.ObjectLostError:
            raise UserError(
                f"node {name} cannot fetch objects from this machine: open Ray's ports between them, or, if only one of the two uses Ray's "
                f"token, set RAY_AUTH_MODE (token or disabled) alike on both"
            ) from None
        except ray.exceptions.RayTaskError as error:
            raise UserError(f"node {name} cannot run Gatecrash: {_last_line(error)}; install gatecrash {mine.gatecrash} there") from None
        except ray.exceptions.RayError as error:
            raise UserError(f"node {name} does not answer: {one_line(error)[:200]}; take it out of the cluster") from None
        fault = disagreement(mine, Versions(**theirs))
        if fault:
            raise UserError(f"node {name} {fault}; install the same there")


_PARCEL = 2**20
"""Bytes of an object that Ray sends through its object store, not inside a message."""


def _probe() -> Any:
    def probe(parcel: bytes) -> tuple[dict[str, str], bytes]:  # local, hence shipped by value: the node may have no gatecrash
        import dataclasses

        from gatecrash.running.executors.cluster import Versions as Theirs

        return dataclasses.asdict(Theirs.here()), bytes(parcel)

    return probe


def _last_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:300] if lines else type(error).__name__


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
