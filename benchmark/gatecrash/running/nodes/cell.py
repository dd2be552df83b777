"""What the two nodes of a cell, its defense and its evaluation, have in common."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

from gatecrash.records.plan import Cell
from gatecrash.records.result import Status
from gatecrash.running.nodes.node import Node, Work
from gatecrash.running.tasks.evaluate import Evaluation
from gatecrash.running.tasks.protocol import Failure


class CellNode(Node):
    """A task of a cell. The cell ends once, whichever of its nodes ends it."""

    def __init__(self, work: Work, cell: Cell, waits: set[str]) -> None:
        super().__init__(work, cell.victim, cell.key, waits)
        self.cell = cell

    @property
    def title(self) -> str:
        return self.cell.title

    @abstractmethod
    def succeed(self, value: Any) -> None: ...

    def settled_elsewhere(self) -> bool:
        work, cell = self.work, self.cell
        if work.rerun is not None or not work.ledger.is_made(cell):
            return False
        work.ledger.display.cell_ended(work.ledger.summary.results[cell.key])
        work.inputs.let_go(cell)
        work.graph.done(f"defend:{cell.key}")
        work.graph.done(f"evaluate:{cell.key}")
        return True

    def fail(self, failure: Failure) -> None:
        self.end("not-applicable" if failure.kind == "not-applicable" else "failed", failure)

    def lose(self, status: Status, failure: Failure) -> None:
        self.end(status, failure)

    def end(self, status: Status, failure: Failure | None, found: Evaluation | None = None) -> None:
        """The cell ends; where it has no scores, so do those that are compared with it, for its reason or its victim's."""
        work, cell = self.work, self.cell
        work.ledger.cell_ended(cell, status, failure, found, work.inputs.outcomes.get(cell.key))
        work.inputs.let_go(cell)
        work.graph.remove(f"defend:{cell.key}")
        if status == "ok":
            work.graph.done(f"evaluate:{cell.key}")
            return
        reason = failure or Failure("error", "unknown")
        without_scores = Failure(reason.kind, f"its cell without defense has no scores: {reason.message}")
        for dependent in work.graph.remove(f"evaluate:{cell.key}"):
            if status == "victim-failed":
                dependent.lose(status, reason)
            else:
                dependent.lose("failed", without_scores)
