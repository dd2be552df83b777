"""What the driver and an executor say to each other. An executor only carries tasks out: it knows nothing of grids, stores or keys."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

TaskFunction = Literal["prepare", "implant", "features", "defend", "evaluate"]

TaskReport = Callable[[str, Mapping[str, Any]], None]
"""`report(task id, progress)`: called while a task runs."""


@dataclass(frozen=True)
class Artifact:
    """A large immutable value that several tasks share; executors move it once per key."""

    key: str
    value: Any


@dataclass(frozen=True)
class Task:
    """One call of its function with its arguments; `Artifact`s among them are unwrapped on arrival."""

    id: str
    function: TaskFunction
    title: str
    arguments: Mapping[str, Any]
    files: frozenset[str] = frozenset()
    """sha256 of the `--plugins` files whose code it runs."""


@dataclass(frozen=True)
class Failure:
    """Why a task has no value.

    kind `error`: the plugin or Gatecrash raised; `not-applicable`: the method does not apply; `system`: the worker died; `timeout`.
    """

    kind: Literal["error", "not-applicable", "system", "timeout"]
    message: str
    details: str = ""
    log: str | None = None


@dataclass(frozen=True)
class Finished:
    """A task's end: a value, or a failure."""

    id: str
    value: Any = None
    failure: Failure | None = None


class Executor(Protocol):
    """Carries tasks out. Used by one thread."""

    @property
    def capacity(self) -> int:
        """How many tasks may be submitted and unfinished at a time."""

    def submit(self, task: Task) -> None:
        """Accept a task; returns at once."""

    def next_finished(self, timeout: float) -> Finished | None:
        """The next finished task, or None when none finished within `timeout` seconds."""

    def cancel(self, task_id: str) -> None:
        """Stop a task as soon as possible; it will not be reported."""

    def close(self) -> None:
        """Stop everything and give resources back. Idempotent."""
