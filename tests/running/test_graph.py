"""What is ready, in which order, and what becomes of the nodes that wait."""

from __future__ import annotations

from dataclasses import dataclass, field

from gatecrash.running.graph import Graph


@dataclass
class Node:
    id: str
    priority: float = 0.0
    waits: set[str] = field(default_factory=set)

    @property
    def kind(self) -> str:
        return f"of priority {self.priority}"


def graph(*nodes: Node) -> Graph[Node]:
    made: Graph[Node] = Graph()
    for node in nodes:
        made.add(node)
    return made


def order(nodes: Graph[Node]) -> list[str]:
    """The ids of the nodes that are ready, in their order."""
    found = []
    while (node := nodes.pop()) is not None:
        found.append(node.id)
    return found


def test_a_larger_priority_goes_first_and_equals_in_the_order_in_which_they_became_ready() -> None:
    assert order(graph(Node("a", 1), Node("b", 2), Node("c", 1), Node("d", 3))) == ["d", "b", "a", "c"]


def test_priorities_that_change_while_nodes_are_ready_are_read_again() -> None:
    priorities = {"short": 1.0, "long": 2.0}

    class Learning(Node):
        kind = property(lambda node: node.id.split()[0])  # type: ignore[assignment]
        priority = property(lambda node: priorities[node.kind], lambda node, value: None)  # type: ignore[assignment]

    nodes = graph(Learning("short a"), Learning("long a"), Learning("short b"), Learning("long b"))
    first = nodes.pop()
    assert first is not None
    assert first.id == "long a"
    priorities["short"] = 3.0
    nodes.read_priorities()
    assert order(nodes) == ["short a", "short b", "long b"]


def test_a_node_is_ready_when_all_that_it_waits_for_are_done() -> None:
    nodes = graph(Node("a"), Node("b"), Node("c", 5, {"a", "b"}))
    assert order(nodes) == ["a", "b"]
    nodes.done("a")
    assert order(nodes) == []
    nodes.done("b")
    assert order(nodes) == ["c"]
    assert [node.id for node in nodes] == ["c"]


def test_a_removed_node_is_never_ready_and_gives_those_that_wait_for_it() -> None:
    nodes = graph(Node("a"), Node("b", 0, {"a"}), Node("c", 0, {"a"}), Node("d"))
    dependents = nodes.remove("a")
    nodes.remove("b")
    assert [node.id for node in dependents] == ["c"]  # b went meanwhile
    assert order(nodes) == ["d"]
    assert ("a" in nodes, "d" in nodes) == (False, True)
    assert len(nodes) == 2


def test_a_node_may_have_to_wait_again() -> None:
    nodes = graph(Node("victim"), Node("cell", 9))
    cell = nodes.pop()
    assert cell is not None
    nodes.wait(cell, {"victim"})
    assert order(nodes) == ["victim"]
    nodes.done("victim")
    assert order(nodes) == ["cell"]
    nodes.wait(cell, ())
    assert order(nodes) == ["cell"], "what it would wait for is there already"
