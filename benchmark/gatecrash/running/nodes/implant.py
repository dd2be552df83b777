"""Training a victim; and how a node gets a stored one."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

from gatecrash.records.result import Status
from gatecrash.records.victim import StoredVictim
from gatecrash.running.nodes.node import Node, Work
from gatecrash.running.tasks.protocol import Artifact, Failure, Task, TaskFunction

MENDED = 3
"""How often a run makes a victim again that was damaged in the store meanwhile."""


class ImplantNode(Node):
    """The training of one victim. It goes before its defenses; the benign victim, which others wait for, before the others."""

    function: ClassVar[TaskFunction] = "implant"

    def __init__(self, work: Work, key: str) -> None:
        victim = work.plan.victims[key]
        needs = ImplantNode.needed(work, victim.benign) if victim.needs_benign else set()
        super().__init__(work, victim, key, victim.cost * (2 if victim.benign is None else 1), needs)

    @staticmethod
    def needed(work: Work, key: str | None) -> set[str]:
        """The id of the node that makes this victim, added if need be; nothing where the victim is stored, or is none."""
        if key is None:
            return set()
        node_id = f"implant:{key}"
        if node_id not in work.graph:
            if work.ledger.has_victim(key):
                return set()
            work.graph.add(ImplantNode(work, key))
        return {node_id}

    @property
    def title(self) -> str:
        return f"victim {self.victim.title} (seed {self.victim.seed})"

    def settled_elsewhere(self) -> bool:
        if not self.work.ledger.has_victim(self.key):
            return False
        self.work.ledger.display.victim_ended(failed=False)
        self.work.graph.done(self.id)
        return True

    def task(self) -> Task | None:
        victim, benign = self.victim, None
        if victim.needs_benign and victim.benign is not None:
            benign = victim_for(self, victim.benign)
            if benign is None:
                return None
        arguments = {"attack": victim.attack, "seed": victim.seed, "data": self.work.inputs.train_part(), "benign": benign}
        plugins = self.work.host.named_by("attack", victim.attack.name, victim.attack.config)
        plugins.append(("model", self.work.plan.model.name))
        return self.make_task(f"train {victim.title} (seed {victim.seed})", arguments, plugins)

    def succeed(self, value: StoredVictim) -> None:
        self.work.inputs.keep_victim(self.key, value)
        self.work.ledger.victim_made(self.victim, value)
        self.work.graph.done(self.id)

    def fail(self, failure: Failure) -> None:
        self.work.ledger.victim_failed(self.victim, self.title, failure)
        self._lose_dependents("victim-failed", failure)

    def lose(self, status: Status, failure: Failure) -> None:
        self.work.ledger.display.victim_ended(failed=True)
        self._lose_dependents(status, failure)

    def _lose_dependents(self, status: Status, failure: Failure) -> None:
        """What waits for another's victim waits for the benign one, and must not call that one's failure its own."""
        benign = replace(failure, message=f"its benign victim failed: {failure.message}")
        for dependent in self.work.graph.remove(self.id):
            dependent.lose(status, failure if dependent.victim.key == self.key else benign)


def victim_for(node: Node, key: str) -> Artifact | None:
    """The stored victim as an input of this node. A damaged one is made again first: the node then waits for it, or fails where that has
    happened too often."""
    work = node.work
    victim = work.inputs.victim(key)
    if victim is not None:
        return victim
    if f"implant:{key}" not in work.graph:
        work.ledger.damaged[key] += 1
    if work.ledger.damaged[key] > MENDED:
        whose = "its victim" if key == node.victim.key else "its benign victim"
        message = f"{whose} was damaged {MENDED + 1} times: something else writes into {work.store.root}"
        node.fail(Failure("system", message))
        return None
    work.graph.wait(node, ImplantNode.needed(work, key))
    if node.claims:
        work.store.release(node.key)
    return None
