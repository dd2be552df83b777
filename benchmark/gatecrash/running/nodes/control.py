"""The benign victim after the same defense, to which cells with `retune` are compared."""

from __future__ import annotations

from dataclasses import replace

from gatecrash.records.plan import Cell
from gatecrash.records.result import Status
from gatecrash.running.inputs import control_key
from gatecrash.running.nodes.defend import DefendNode
from gatecrash.running.nodes.node import Work
from gatecrash.running.tasks.defender import DefenseOutput
from gatecrash.running.tasks.protocol import Failure


class ControlNode(DefendNode):
    """One defense on the benign victim, for all attacks of its seed. Where it does not apply, there is no control; where it fails, so do
    the cells that are compared with it, and are tried again by the next run.

    The benign victim's own cell runs the defense by itself: it may be finished, or another driver's.
    """

    @staticmethod
    def needed(work: Work, cell: Cell, user: str) -> str:
        """The id of the node that makes the control of this cell, added if need be; `user` is the id of the node that it is for."""
        key = control_key(cell)
        work.inputs.controls.need(key, user)
        node_id = f"defend:{key}"
        if node_id in work.graph:
            return node_id
        assert cell.victim.benign is not None
        return work.graph.add(ControlNode(work, replace(cell, key=key, victim=work.plan.victims[cell.victim.benign], baseline=None)))

    @property
    def title(self) -> str:
        return f"{self.cell.title}, for comparison"

    @property
    def claims(self) -> bool:
        return False

    def settled_elsewhere(self) -> bool:
        return False

    def succeed(self, value: DefenseOutput) -> None:
        self.work.inputs.controls.put(self.key, value)
        self._over()

    def fail(self, failure: Failure) -> None:
        if failure.kind == "not-applicable":
            self._over()
        else:
            self.lose("failed", failure)

    def lose(self, status: Status, failure: Failure) -> None:
        self.work.inputs.features.done(self.cell.victim.key, self.id)
        for dependent in self.work.graph.remove(self.id):
            dependent.lose(status, Failure(failure.kind, f"the benign victim under the same defense, for retune: {failure.message}"))

    def _over(self) -> None:
        self.work.inputs.features.done(self.cell.victim.key, self.id)
        self.work.graph.done(self.id)
