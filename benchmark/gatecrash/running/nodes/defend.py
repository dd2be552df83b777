"""Running a cell's defense."""

from __future__ import annotations

from typing import Any, ClassVar

from gatecrash.contracts.evidence import Need
from gatecrash.errors import NotApplicable, one_line
from gatecrash.host.kinds import PluginKind
from gatecrash.records.plan import Cell
from gatecrash.running.expected import title_of
from gatecrash.running.nodes.cell import CellNode
from gatecrash.running.nodes.features import FeaturesNode
from gatecrash.running.nodes.implant import ImplantNode, victim_for, withholds_data
from gatecrash.running.nodes.node import Work
from gatecrash.running.tasks.defender import DefenseOutput
from gatecrash.running.tasks.protocol import Artifact, Failure, Task, TaskFunction


class DefendNode(CellNode):
    """One defense, or chain of them, on one victim."""

    function: ClassVar[TaskFunction] = "defend"

    def __init__(self, work: Work, cell: Cell) -> None:
        super().__init__(work, cell, ImplantNode.needed(work, cell.victim.key))
        self.kind = f"{self.function} {title_of(cell)}"
        needs = [frozenset(work.host.get("defense", stage.name).cls.needs) for stage in cell.defense]
        self._wants_features = Need.FEATURES in needs[0]  # a later stage may meet another classifier
        self._wants_training_data = any(stage & {Need.TRAINING_DATA, Need.FEATURES} for stage in needs)
        if self._wants_features:
            self.waits.add(FeaturesNode.needed(work, cell.victim, self.id))

    @property
    def priority(self) -> float:
        return self.work.expected.defense(self.cell)

    def task(self) -> Task | None:
        work, cell = self.work, self.cell
        stored = victim_for(self, cell.victim.key)
        if stored is None or (self._wants_training_data and withholds_data(self, stored)):
            return None
        clean = next((stage.clean for stage in cell.defense if stage.clean), None)
        try:
            defender_input = work.inputs.defender_input(
                cell.victim, stored.value, with_training_data=self._wants_training_data, clean=clean
            )
        except NotApplicable as error:
            self.fail(Failure("not-applicable", one_line(error)))
            return None
        arguments: dict[str, Any] = {"stages": cell.defense, "seed": cell.victim.seed, "defender_input": defender_input}
        arguments["datasets"] = work.inputs.datasets(cell.defense)
        if self._wants_features:
            arguments["features"] = Artifact(f"features:{cell.victim.key}", work.inputs.features[cell.victim.key])
        plugins: list[tuple[PluginKind, str]] = [("model", work.plan.model.name), *(("defense", stage.name) for stage in cell.defense)]
        return self.make_task(self.title, arguments, plugins, defender_input.value.spec)

    def succeed(self, value: DefenseOutput) -> None:
        self.work.inputs.features.done(self.cell.victim.key, self.id)
        self.work.inputs.outcomes[self.key] = value
        if self.work.expected.defended(self.cell, value.seconds):
            self.work.graph.read_priorities()
        self.work.graph.done(self.id)
