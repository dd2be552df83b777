"""Training a victim, and what its attack prepares for several of them; and how a node gets what is stored."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

from gatecrash.records.plan import Victim
from gatecrash.records.preparation import StoredPreparation
from gatecrash.records.result import Status
from gatecrash.records.victim import StoredVictim, VictimRecord
from gatecrash.running.nodes.node import Node, Work
from gatecrash.running.tasks.protocol import Artifact, Failure, Task, TaskFunction

MENDED = 3
"""How often a run makes a victim or a preparation again that was damaged in the store meanwhile."""


class PrepareNode(Node):
    """One call of `Attack.prepare`. It goes before all trainings, since several may wait for it."""

    function: ClassVar[TaskFunction] = "prepare"

    def __init__(self, work: Work, victim: Victim, key: str) -> None:
        needs = ImplantNode.needed(work, victim.benign) if victim.needs_benign else set()
        super().__init__(work, victim, key, needs)
        self.kind = f"{self.function} {victim.attack.name}"

    @property
    def priority(self) -> float:
        expected = self.work.expected
        return expected.longest_defense() + expected.longest_victim() + 2 * expected.victim(self.victim)

    @staticmethod
    def needed(work: Work, victim: Victim) -> set[str]:
        """The id of the node that prepares this victim's attack, added if need be; nothing where that is stored, or there is nothing."""
        key = victim.preparation
        if key is None or (f"prepare:{key}" not in work.graph and work.ledger.has_preparation(key)):
            return set()
        return {f"prepare:{key}" if f"prepare:{key}" in work.graph else work.graph.add(PrepareNode(work, victim, key))}

    @property
    def title(self) -> str:
        return f"preparation of {self.victim.attack.name} (seed {self.victim.seed})"

    def settled_elsewhere(self) -> bool:
        if not self.work.ledger.has_preparation(self.key):
            return False
        self.work.graph.done(self.id)
        return True

    def task(self) -> Task | None:
        return _attack_task(self, f"prepare {self.victim.attack.name} (seed {self.victim.seed})", {})

    def succeed(self, value: StoredPreparation) -> None:
        self.work.ledger.prepared(self.key, value)
        self.work.graph.done(self.id)

    def fail(self, failure: Failure) -> None:
        self.work.ledger.preparation_failed(self.key, self.title, failure)
        self.lose("victim-failed", replace(failure, message=f"what its attack prepares failed: {failure.message}"))

    def lose(self, status: Status, failure: Failure) -> None:
        for dependent in self.work.graph.remove(self.id):
            dependent.lose(status, failure)


class ImplantNode(Node):
    """The training of one victim. It goes before its defenses; the benign victim, which others wait for, before the others."""

    function: ClassVar[TaskFunction] = "implant"

    def __init__(self, work: Work, key: str) -> None:
        victim = work.plan.victims[key]
        needs = PrepareNode.needed(work, victim) | (ImplantNode.needed(work, victim.benign) if victim.needs_benign else set())
        super().__init__(work, victim, key, needs)
        self.kind = f"{self.function} {victim.attack.name}"

    @property
    def priority(self) -> float:
        expected = self.work.expected
        waiting = expected.longest_victim() if self.victim.benign is None else 0.0
        return expected.longest_defense() + waiting + expected.victim(self.victim)

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
        victim, prepared = self.victim, None
        if victim.preparation is not None:
            prepared = _preparation_for(self, victim.preparation)
            if prepared is None:
                return None
        return _attack_task(self, f"train {victim.title} (seed {victim.seed})", {"prepared": prepared})

    def succeed(self, value: StoredVictim) -> None:
        self.work.inputs.keep_victim(self.key, value)
        if self.work.expected.trained(self.victim, value.record.seconds):
            self.work.graph.read_priorities()
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
    whose = "its victim" if key == node.victim.key else "its benign victim"
    if _mend(node, key, whose, f"implant:{key}" in work.graph):
        work.graph.wait(node, ImplantNode.needed(work, key))
    return None


def _preparation_for(node: ImplantNode, key: str) -> Artifact | None:
    """What the node's attack has prepared; a damaged one is made again first, as a victim is."""
    work = node.work
    stored = work.store.preparation(key)
    if stored is not None:
        return Artifact(f"preparation:{key}", stored)
    if _mend(node, key, "what its attack prepared", f"prepare:{key}" in work.graph):
        work.graph.wait(node, PrepareNode.needed(work, node.victim))
    return None


def _mend(node: Node, key: str, what: str, under_way: bool) -> bool:
    """Count that the key's content turned out damaged, unless it is being made again; whether the node shall wait for it. It fails where
    that has happened too often."""
    work = node.work
    work.ledger.damaged[key] += not under_way
    if work.ledger.damaged[key] > MENDED:
        message = f"{what} was damaged {MENDED + 1} times: something else writes into {work.store.root}"
        node.fail(Failure("system", message))
        return False
    if node.claims:
        work.store.release(node.key)
    return True


def _attack_task(node: Node, title: str, arguments: dict[str, Any]) -> Task | None:
    """A task that runs the attack's code; None where it has to wait for the benign victim."""
    victim, work, benign = node.victim, node.work, None
    if victim.needs_benign and victim.benign is not None:
        benign = victim_for(node, victim.benign)
        if benign is None:
            return None
    given = {"attack": victim.attack, "seed": victim.seed, "data": work.inputs.train_part(), "benign": benign}
    given["datasets"] = work.inputs.datasets([victim.attack])
    plugins = [*work.host.named_by("attack", victim.attack.name, victim.attack.config), ("model", work.plan.model.name)]
    return node.make_task(title, given | arguments, plugins)


def withholds_data(node: Node, stored: Artifact) -> bool:
    """Whether there is no training set of this victim that a defender could hold; if so, the node has ended as not applicable."""
    record: VictimRecord = stored.value.record
    if record.hands_out_data:
        return False
    node.fail(Failure("not-applicable", "the attack controls training and hands out no training data"))
    return True
