"""Scoring a cell."""

from __future__ import annotations

import math
from typing import Any, ClassVar

from gatecrash.records.plan import Cell
from gatecrash.records.victim import VictimRecord
from gatecrash.running.inputs import control_key
from gatecrash.running.nodes.cell import CellNode
from gatecrash.running.nodes.control import ControlNode
from gatecrash.running.nodes.defend import DefendNode
from gatecrash.running.nodes.implant import ImplantNode, victim_for
from gatecrash.running.nodes.node import Work
from gatecrash.running.tasks.evaluate import Evaluation
from gatecrash.running.tasks.protocol import Task, TaskFunction


class EvaluateNode(CellNode):
    """The evaluation of one cell. It goes before everything else: it is short, and its result is kept for good."""

    function: ClassVar[TaskFunction] = "evaluate"

    def __init__(self, work: Work, cell: Cell) -> None:
        waits = ImplantNode.needed(work, cell.victim.key)
        if cell.baseline is None:
            waits |= ImplantNode.needed(work, cell.victim.benign)
        else:
            waits |= EvaluateNode.needed(work, work.plan.cells[cell.baseline])
            waits.add(work.graph.add(DefendNode(work, cell)))
        of_attack, stages = work.host.get("attack", cell.victim.attack.name).cls, [stage.name for stage in cell.defense]
        self._retunes = "retune" in work.plan.evaluation and cell.victim.benign is not None and of_attack.aim == "backdoor"
        changes = any("classifier" in work.host.get("defense", name).cls.gives for name in stages)
        if self._retunes and cell.baseline is not None and changes:
            waits.add(ControlNode.needed(work, cell, f"{self.function}:{cell.key}"))
        super().__init__(work, cell, waits)

    @staticmethod
    def needed(work: Work, cell: Cell) -> set[str]:
        """The id of the node that ends this cell, added with the cell's other nodes if need be; nothing where the cell is made already."""
        node_id = f"evaluate:{cell.key}"
        if node_id not in work.graph:
            if cell.key in work.ledger.summary.results:
                return set()
            work.graph.add(EvaluateNode(work, cell))
        return {node_id}

    @property
    def priority(self) -> float:
        return math.inf

    @property
    def claims(self) -> bool:
        """The defense of this cell, where there is one, holds the claim until the cell ends."""
        return self.cell.baseline is None

    def task(self) -> Task | None:
        work, cell = self.work, self.cell
        stored = victim_for(self, cell.victim.key)
        if stored is None:
            return None
        arguments: dict[str, Any] = {"test": work.inputs.test_part(), "victim": stored, "benign": None, "outcome": None, "before": None}
        record: VictimRecord = stored.value.record
        stored_specs: list[dict[str, Any] | None] = [
            record.classifier,
            *(spec for one in record.backdoors for spec in (one.trigger, one.cover)),
        ]
        if cell.baseline is not None:
            outcome = work.inputs.outcomes[cell.key]
            arguments |= {"outcome": outcome, "before": work.ledger.summary.results[cell.baseline].measures}
            stored_specs += [outcome.spec, outcome.steps_spec, outcome.detector_spec]
        if self._retunes:
            arguments |= {"train": work.inputs.train_part(), "seed": cell.victim.seed}
            control = work.inputs.controls.get(control_key(cell)) if cell.baseline is not None else None
            arguments["control"] = control
            stored_specs += [control.spec] if control is not None else []
        if cell.victim.benign is not None and (cell.baseline is None or record.aim != "backdoor" or self._retunes):
            arguments["benign"] = victim_for(self, cell.victim.benign)
            if arguments["benign"] is None:
                return None
        return self.make_task(f"evaluate {cell.title}", arguments, (), stored_specs)

    def succeed(self, value: Evaluation) -> None:
        self.end("ok", None, value)
