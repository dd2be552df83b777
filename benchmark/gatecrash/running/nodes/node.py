"""A node of the graph of tasks."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

from gatecrash.host.host import Host
from gatecrash.host.kinds import PluginKind
from gatecrash.records.plan import Plan, Victim
from gatecrash.records.result import Status
from gatecrash.records.store import Store
from gatecrash.running.expected import Expected
from gatecrash.running.graph import Graph
from gatecrash.running.inputs import Inputs
from gatecrash.running.ledger import Ledger
from gatecrash.running.options import Rerun
from gatecrash.running.tasks.protocol import Failure, Task, TaskFunction


@dataclass(frozen=True)
class Work:
    """What the nodes of one run share."""

    plan: Plan
    host: Host
    store: Store
    rerun: Rerun | None
    graph: Graph[Node]
    inputs: Inputs
    ledger: Ledger
    expected: Expected


class Node(ABC):
    """One task to come: the nodes it waits for, how it is made, what happens when it ends."""

    function: ClassVar[TaskFunction]

    def __init__(self, work: Work, victim: Victim, key: str, waits: set[str]) -> None:
        self.work, self.victim, self.key, self.waits = work, victim, key, waits
        self.id = f"{self.function}:{key}"
        self.kind: str = self.function
        """As in `Waiting`: nodes of one kind have one priority."""
        self.started = 0.0

    @property
    @abstractmethod
    def priority(self) -> float:
        """Seconds that the run is expected to last if this is the last node to start: its own, and those of what waits for it."""

    @property
    @abstractmethod
    def title(self) -> str:
        """What it is called in messages about its end."""

    @property
    def claims(self) -> bool:
        """Whether it takes the claim on its key in the store before it starts, so that another driver does not compute the same."""
        return True

    @abstractmethod
    def settled_elsewhere(self) -> bool:
        """Whether another driver has finished it since this one planned; if so, it is done."""

    @abstractmethod
    def task(self) -> Task | None:
        """Its task with all inputs; None where a stored victim turned out damaged: the node then waits for it, or has failed."""

    @abstractmethod
    def succeed(self, value: Any) -> None:
        """Its task gave this value."""

    @abstractmethod
    def fail(self, failure: Failure) -> None:
        """Its task gave no value."""

    @abstractmethod
    def lose(self, status: Status, failure: Failure) -> None:
        """What it waits for will not come; the cells that depend on it end with this status."""

    def make_task(self, title: str, arguments: dict[str, Any], plugins: Iterable[tuple[PluginKind, str]], stored: object = None) -> Task:
        """A task that runs the code of these plugins, and of those that the descriptions `stored` (JSON values) name."""
        files = self.work.host.files_of(list(plugins), json.dumps(stored) if stored is not None else "")
        return Task(self.id, self.function, title, {"ground": self.work.inputs.ground, **arguments}, files)
