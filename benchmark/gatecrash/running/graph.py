"""What waits for what: nodes, the nodes that each still needs, and those that are ready, by priority."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterable, Iterator
from typing import Generic, Protocol, TypeVar


class Waiting(Protocol):
    """A node of the graph. A larger `priority` goes first; among equals, the one that became ready first."""

    id: str
    priority: float
    waits: set[str]
    """Ids of the nodes that it still needs."""


N = TypeVar("N", bound=Waiting)


class Graph(Generic[N]):
    """The nodes that are not finished. A node that is done frees its dependents; one that is removed leaves them to the caller."""

    def __init__(self) -> None:
        self._nodes: dict[str, N] = {}
        self._dependents: dict[str, list[str]] = {}
        self._ready: list[tuple[float, int, str]] = []
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
        heapq.heappush(self._ready, (-node.priority, next(self._counter), node.id))

    def pop(self) -> N | None:
        """The ready node that goes first, or None."""
        while self._ready:
            node = self._nodes.get(heapq.heappop(self._ready)[2])
            if node is not None:  # else it was finished or removed while it was ready
                return node
        return None

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
