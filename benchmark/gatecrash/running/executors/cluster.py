"""What tasks ask for, what nodes have, and whether the nodes of a cluster agree. Arithmetic only; knows no Ray."""

from __future__ import annotations

import hashlib
import importlib.metadata
import platform
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

from gatecrash.errors import UserError
from gatecrash.versions import VERSION


@dataclass(frozen=True)
class Machine:
    """A machine of the cluster."""

    name: str
    id: str
    cpus: float
    gpus: float


@dataclass(frozen=True)
class ResourceRequest:
    """`--cpus-per-task`, `--gpus-per-task` (None: one where there are GPUs) and `--workers` (None: as many as fit)."""

    cpus: int = 1
    gpus: float | None = None
    workers: int | None = None

    def resolve(self, nodes: Sequence[Machine]) -> ResourceRequest:
        """The request with its defaults filled in. Raises UserError if these nodes can never satisfy it."""
        most = max((node.gpus for node in nodes), default=0.0)
        request = replace(self, gpus=(1.0 if most else 0.0)) if self.gpus is None else self
        held = slots(nodes, request)
        if not held and request.gpus and not most:
            raise UserError(f"--gpus-per-task {request.gpus:g}: there is no GPU here that torch can use; leave it out, or use 0")
        if not held:
            cores = max((node.cpus for node in nodes if node.gpus or not request.gpus), default=0.0)
            raise UserError(f"--cpus-per-task {request.cpus}: the largest machine has {cores:g} CPUs; ask for at most that")
        if request.workers and request.workers > held:
            raise UserError(f"--workers {request.workers}: only {held} tasks of this size fit at a time; ask for at most that")
        return request


def slots(nodes: Sequence[Machine], request: ResourceRequest) -> int:
    """How many tasks fit onto the nodes at a time."""
    return sum(_slots(node, request) for node in nodes)


def _slots(node: Machine, request: ResourceRequest) -> int:
    by_cpu = int(node.cpus // request.cpus)
    if not request.gpus:
        return by_cpu
    return min(by_cpu, int(node.gpus) * int(1 / request.gpus + 1e-9))  # a task's share lies on one GPU


def cuda_index(assigned: str, visible: str | None) -> int:
    """Torch's number of the GPU that Ray calls `assigned`, in a process that sees `CUDA_VISIBLE_DEVICES=visible`."""
    return visible.split(",").index(assigned) if visible else int(assigned)


@dataclass(frozen=True)
class Versions:
    """What must be the same on every node."""

    python: str
    ray: str
    torch: str
    gatecrash: str
    files: str
    """Digest of the installed sources: two checkouts of one version may differ."""

    @classmethod
    def here(cls) -> Versions:
        import gatecrash_plugins

        digest = hashlib.sha256()
        for root in (Path(__file__).parents[2], Path(gatecrash_plugins.__path__[0])):
            for file in sorted(root.rglob("*.py")):
                digest.update(f"{file.relative_to(root)}\n".encode())
                digest.update(file.read_bytes())
        python = ".".join(platform.python_version_tuple()[:2])
        version = importlib.metadata.version
        return cls(python, version("ray"), version("torch"), VERSION, digest.hexdigest())


def disagreement(mine: Versions, theirs: Versions, me: str = "this machine") -> str | None:
    """What a node has that `me` has not, in a few words."""
    for field in fields(Versions):
        here, there = getattr(mine, field.name), getattr(theirs, field.name)
        if here != there:
            if field.name == "files":
                return f"has a gatecrash {theirs.gatecrash} with other source files than {me}"
            return f"has {field.name} {there}, {me} {here}"
    return None
