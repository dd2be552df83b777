"""Features of a victim's training set, for all defenses that need them."""

from __future__ import annotations

from typing import ClassVar

from gatecrash.records.plan import Victim
from gatecrash.records.result import Status
from gatecrash.running.nodes.implant import ImplantNode, victim_for, withholds_data
from gatecrash.running.nodes.node import Node, Work
from gatecrash.running.tasks.features import Features
from gatecrash.running.tasks.protocol import Failure, Task, TaskFunction


class FeaturesNode(Node):
    """One pass of a victim's training set through it. Kept in memory, never stored: hence no claim."""

    function: ClassVar[TaskFunction] = "features"

    def __init__(self, work: Work, victim: Victim) -> None:
        super().__init__(work, victim, victim.key, ImplantNode.needed(work, victim.key))

    @property
    def priority(self) -> float:
        """The longest defense may wait for it."""
        return self.work.expected.longest_defense()

    @staticmethod
    def needed(work: Work, victim: Victim, user: str) -> str:
        """The id of the node that makes them, added if need be; `user` is the id of the node that they are for."""
        work.inputs.features.need(victim.key, user)
        node_id = f"features:{victim.key}"
        return node_id if node_id in work.graph else work.graph.add(FeaturesNode(work, victim))

    @property
    def title(self) -> str:
        return f"features of {self.victim.title} (seed {self.victim.seed})"

    @property
    def claims(self) -> bool:
        return False

    def settled_elsewhere(self) -> bool:
        return False

    def task(self) -> Task | None:
        stored = victim_for(self, self.key)
        if stored is None or withholds_data(self, stored):
            return None
        defender_input = self.work.inputs.defender_input(self.victim, stored.value, with_training_data=True)
        model = self.work.plan.model.name
        return self.make_task(self.title, {"defender_input": defender_input}, [("model", model)], defender_input.value.spec)

    def succeed(self, value: Features) -> None:
        self.work.inputs.features.put(self.key, value)
        self.work.graph.done(self.id)

    def fail(self, failure: Failure) -> None:
        """What becomes of the features becomes of the cells that need them."""
        self.lose("not-applicable" if failure.kind == "not-applicable" else "failed", failure)

    def lose(self, status: Status, failure: Failure) -> None:
        for dependent in self.work.graph.remove(self.id):
            dependent.lose(status, failure)
