"""A Ray to run on: one of our own on this machine, or a cluster that is joined and checked.

To be imported before `ray`, for it sets what Ray reads when it is imported.
"""

from __future__ import annotations

import logging
import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import joblib  # type: ignore[import-untyped]

if "ray" not in sys.modules:
    # What it would print about workers is in our own messages and logs.
    os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", ".")
    # `ray start --head` asks for a token where the user has one: join such a cluster with it.
    if {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & os.environ.keys() or Path("~/.ray/auth_token").expanduser().exists():
        os.environ.setdefault("RAY_AUTH_MODE", "token")

import ray
import ray.exceptions
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from gatecrash.errors import UserError, one_line
from gatecrash.running.executors import ray_probe
from gatecrash.running.executors.cluster import Machine, ResourceRequest, Versions, disagreement
from gatecrash.running.executors.own_ray import WORKER_ENVIRONMENT, Watcher, folder_of_ray, inherited

_watcher: Watcher | None = None
"""Of the Ray of our own: a process has one Ray at most."""

_PARCEL = 2**20
"""Bytes of an object that Ray sends through its object store, not inside a message."""


class RaySession:
    """The Ray that this process works on. One that it has joined already is used, and left running by `close`.

    Raises UserError, before anything starts, for a request that this machine or cluster can never satisfy, a cluster that cannot be
    joined, nodes whose Python, Ray or Gatecrash differ from this one's, and nodes that objects do not reach.
    """

    def __init__(self, request: ResourceRequest, address: str | None) -> None:
        self._owns_ray = not ray.is_initialized()
        self.is_local = self._owns_ray and not address
        """Whether this is a Ray of our own: all workers are processes of this machine, with this process's code."""
        if self._owns_ray:
            _join(address) if address else start(request)
        try:
            nodes = alive_nodes()
            self.request = request.resolve(nodes)
            if not self.is_local:
                _check_nodes(nodes, self.environment("trusted"))
            self.node: str = ray.get_runtime_context().get_node_id()
            """Ray's id of this machine."""
        except BaseException:
            self.close()
            raise

    def environment(self, role: str, alone: bool = False) -> dict[str, Any] | None:
        """The environment of one kind of workers. Trusted workers of a Ray of our own inherit theirs: Ray has them ready before the first
        task comes. A task that is `alone` needs a worker that has not run any other, hence an environment that no other task asks for."""
        if role == "trusted" and not alone and self.is_local:
            return None
        variables = {**WORKER_ENVIRONMENT, "OMP_NUM_THREADS": str(self.request.cpus), "GATECRASH_ROLE": role}
        return {"env_vars": {**variables, **({"GATECRASH_ALONE": "1"} if alone else {})}}

    def store_bytes(self) -> int:
        """Size of this machine's object store."""
        found = next(entry for entry in ray.nodes() if entry["NodeID"] == self.node)  # type: ignore[no-untyped-call]
        return int(found["Resources"].get("object_store_memory", 2**30))

    def close(self) -> bool:
        """End a Ray of our own; whether it was."""
        if self._owns_ray and ray.is_initialized():
            ray.shutdown()
        if self._owns_ray and _watcher is not None:
            _watcher.close()
        return self._owns_ray


def start(request: ResourceRequest) -> None:
    """Start a Ray of our own on this machine; it ends with the driver. Raises UserError where it cannot be started."""
    global _watcher
    here = _this_machine(request)
    request.resolve([here])
    folder, mark = folder_of_ray(), secrets.token_hex(16)
    _watcher = Watcher(mark)
    try:
        with inherited(mark), _quiet(), _without_helpers():
            ray.init(
                address="local",
                num_cpus=int(here.cpus),
                num_gpus=int(here.gpus),
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
                _temp_dir=folder,
            )
    except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        _watcher.close()
        raise UserError(f"Ray cannot be started ({one_line(error)[:300]}); mend that, or use --executor serial") from None


def _join(address: str) -> None:
    """Raises UserError, within 20 seconds, where there is no cluster at the address or it cannot be joined."""
    answer = _probed(address)
    with _quiet():
        try:
            if answer == "joined":
                ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
                return
        except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
            answer = one_line(error)
    raise UserError(
        f"--address {address}: cannot join that cluster ({answer[:300]}); start one with `ray start --head`, and run "
        f"`ray start --address HOST:PORT` on this machine before joining from here"
    )


def _probed(address: str) -> str:
    """What `ray_probe` says."""
    command = [sys.executable, "-P", ray_probe.__file__, address]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False)
    lines = done.stdout.decode(errors="replace").splitlines()
    return lines[-1] if lines else "no answer as of Ray"


def _this_machine(request: ResourceRequest) -> Machine:
    import torch

    gpus = torch.cuda.device_count() if request.gpus != 0 and torch.cuda.is_available() else 0
    return Machine("this machine", "", float(joblib.cpu_count()), float(gpus))


_HELPERS = ("start_api_server", "start_monitor", "start_log_monitor")
"""Methods of Ray's node that start its dashboard, which `ray.init` would wait for although it has no pages, and what scales a cluster and
prints logs: nobody asks them on a Ray of our own. Not public: a Ray without them starts what it likes."""


@contextmanager
def _without_helpers() -> Iterator[None]:
    try:
        from ray._private.node import Node
    except ImportError:  # another Ray: it starts what it likes
        yield
        return
    starts = {name: getattr(Node, name) for name in _HELPERS if hasattr(Node, name)}
    for name in starts:
        setattr(Node, name, lambda *_, **__: None)
    try:
        yield
    finally:
        for name, start_helper in starts.items():
            setattr(Node, name, start_helper)


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


def alive_nodes() -> list[Machine]:
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


def _probe() -> Any:
    def probe(parcel: bytes) -> tuple[dict[str, str], bytes]:  # local, hence shipped by value: the node may have no gatecrash
        import dataclasses

        from gatecrash.running.executors.cluster import Versions as Theirs

        return dataclasses.asdict(Theirs.here()), bytes(parcel)

    return probe


def _last_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:300] if lines else type(error).__name__
