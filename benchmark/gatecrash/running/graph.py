"""What waits for what: nodes, the nodes that each still needs, and those that are ready, kind by kind."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Generic, Protocol, TypeVar


class Waiting(Protocol):
    """A node of the graph."""

    id: str
    kind: str
    """Nodes of one kind have one priority; of those, the one that became ready first goes first."""
    waits: set[str]
    """Ids of the nodes that it still needs."""

    @property
    def priority(self) -> float:
        """The kind with the largest goes first; among equals, the one whose first node became ready first."""


N = TypeVar("N", bound=Waiting)


class Graph(Generic[N]):
    """The nodes that are not finished. A node that is done frees its dependents; one that is removed leaves them to the caller."""

    def __init__(self) -> None:
        self._nodes: dict[str, N] = {}
        self._dependents: dict[str, list[str]] = {}
        self._ready: dict[str, deque[tuple[int, str]]] = {}
        self._priorities: dict[str, float] = {}
        """Of the kinds that are ready, as they were when a node came or priorities were read again."""
        self._counter = itertools.count()

    def __len__(self) -> int:
        return len(self._nodes)

    def __iter__(self) -> Iterator[N]:
        return iter(self._nodes.values())

    def __contains__(self, node_id: str) -> bool:
        return node_id in self._nodes

    def add(self, node: N) -> str:
        """Add a node, ready if it waits for nothing; returns its id."""
        self._nodes[node.id] = node
        self.wait(node, node.waits)
        return node.id

    def wait(self, node: N, needed: Iterable[str]) -> None:
        """Let a node that is not ready wait for these; for none of them: it is ready."""
        node.waits = set(needed)
        for other in node.waits:
            self._dependents.setdefault(other, []).append(node.id)
        if not node.waits:
            self.push(node)

    def push(self, node: N) -> None:
        """The node is ready, or ready again."""
        self._ready.setdefault(node.kind, deque()).append((next(self._counter), node.id))
        self._priorities[node.kind] = node.priority

    def pop(self) -> N | None:
        """The ready node that goes first, or None."""
        while self._ready:
            kind = max(self._ready, key=lambda kind: (self._priorities[kind], -self._ready[kind][0][0]))
            node = self._nodes.get(self._ready[kind].popleft()[1])
            if not self._ready[kind]:
                del self._ready[kind]
            if node is not None:  # else it was finished or removed while it was ready
                return node
        return None

    def read_priorities(self) -> None:
        """They have changed."""
        for kind, waiting in self._ready.items():
            node = next((self._nodes[node_id] for _, node_id in waiting if node_id in self._nodes), None)
            if node is not None:
                self._priorities[kind] = node.priority

    def done(self, node_id: str) -> None:
        """Nothing waits for this node any more."""
        for dependent in self.remove(node_id):
            dependent.waits.discard(node_id)
            if not dependent.waits:
                self.push(dependent)

    def remove(self, node_id: str) -> Iterator[N]:
        """Take the node away; gives those that wait for it, each unless it was removed meanwhile."""
        self._nodes.pop(node_id, None)
        dependents = self._dependents.pop(node_id, [])
        return (self._nodes[dependent] for dependent in dependents if dependent in self._nodes)
