"""What came of the work: written to the store, counted in the summary, told to the person and to observers."""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

from gatecrash.host.traits import defense_traits
from gatecrash.records.kept import Produced
from gatecrash.records.measures import Measures
from gatecrash.records.plan import NONE, Cell, Victim
from gatecrash.records.provenance import Provenance
from gatecrash.records.result import Result, Status
from gatecrash.records.summary import Summary
from gatecrash.running.observers import Observers

if TYPE_CHECKING:
    from gatecrash.host.kinds import PluginKind
    from gatecrash.planning.planned import PlannedGrid
    from gatecrash.records.preparation import StoredPreparation
    from gatecrash.records.stage import Stage
    from gatecrash.records.store import Store
    from gatecrash.records.victim import StoredVictim, VictimRecord
    from gatecrash.running.display import Display
    from gatecrash.running.options import RunOptions
    from gatecrash.running.tasks.defender import DefenseOutput
    from gatecrash.running.tasks.evaluate import Evaluation
    from gatecrash.running.tasks.protocol import Failure

log = logging.getLogger("gatecrash")


class Ledger:
    """The victims and results that exist by now, and everyone who wants to know of them."""

    def __init__(self, planned: PlannedGrid, store: Store, options: RunOptions, display: Display) -> None:
        self.plan, self.host, self.store, self.options, self.display = planned.plan, planned.host, store, options, display
        self.summary = Summary(planned.plan)
        self.observers = Observers(planned.host)
        self.damaged: Counter[str] = Counter()
        """How often a victim turned out damaged in the store, by key."""
        self._made: set[str] = set()
        self._records: dict[str, VictimRecord | None] = {}

    def is_made(self, cell: Cell) -> bool:
        """Whether the store has the result of this cell, and it need not be computed again; puts it into the summary."""
        if self.options.rerun == "cells" and cell.key in self.plan.selected and cell.key not in self._made:
            return False
        result = self.store.result(cell.key)
        if result is None or result.status not in {"ok", "not-applicable"}:
            return False
        record = self._record(cell.victim.key)
        if record is not None and result.weights is not None and record.weights != result.weights:
            log.warning("%s was measured on other weights than the stored victim's; computed again", cell.title)
            return False
        self.summary.results[cell.key] = result
        return True

    def has_victim(self, key: str) -> bool:
        """Whether the store has this victim, and it need not be trained again."""
        return self.store.has_victim(key) and (self.options.rerun != "all" or key in self._made)

    def has_preparation(self, key: str) -> bool:
        """Whether the store has what an attack prepares, and it need not be made again."""
        return self.store.has_preparation(key) and (self.options.rerun != "all" or key in self._made)

    def prepared(self, key: str, value: StoredPreparation) -> None:
        self.store.save_preparation(key, replace(value, record=value.record.model_copy(update={"dataset": self.plan.dataset})))
        self._made.add(key)
        self.store.release(key)

    def preparation_failed(self, key: str, title: str, failure: Failure) -> None:
        self.store.release(key)
        self._fail(title, failure)

    def victim_made(self, victim: Victim, value: StoredVictim) -> None:
        made_from = {"attack": victim.attack, "dataset": self.plan.dataset, "seed": victim.seed}
        value = replace(value, record=value.record.model_copy(update=made_from))
        self.store.save_victim(victim.key, value)
        self._made.add(victim.key)
        self._records[victim.key] = value.record
        self.store.release(victim.key)
        self.summary.computed_victims += 1
        for warning in _warnings(victim, value.record):
            log.warning("%s", warning)
        self.display.victim_ended(failed=False)
        self.observers("victim_finished", victim=victim, error=None)

    def victim_failed(self, victim: Victim, title: str, failure: Failure) -> None:
        self.store.release(victim.key)
        self.display.victim_ended(failed=True)
        self._fail(title, failure)
        self.observers("victim_finished", victim=victim, error=failure.message)

    def cell_ended(
        self, cell: Cell, status: Status, failure: Failure | None, found: Evaluation | None, outcome: DefenseOutput | None
    ) -> None:
        """`found` is None where it did not come to the evaluation; `outcome` too where there is no defense, or it has not ended."""
        figures = found.figures if found else {}
        result = self._result(cell, status, failure, found)
        if found and outcome is not None:
            result = result.model_copy(update={"skipped": list(outcome.skipped)})
        result = self.store.save_result(result, figures, self._produced(outcome) if found else None)
        self._made.add(cell.key)
        self.store.release(cell.key)
        self.summary.results[cell.key] = result
        self.summary.computed_cells += 1
        if failure is not None and status == "failed":
            self._fail(cell.title, failure)
            if failure.details:
                log.debug("%s", failure.details)
        self.display.cell_ended(result)
        self.observers("cell_finished", cell=cell, result=result)

    def _fail(self, title: str, failure: Failure) -> None:
        self.summary.failures.append(f"{title}: {failure.message}" + (f" (log: {failure.log})" if failure.log else ""))

    def _result(self, cell: Cell, status: Status, failure: Failure | None, found: Evaluation | None) -> Result:
        record = self._record(cell.victim.key)
        return Result(
            key=cell.key,
            victim_key=cell.victim.key,
            grid=self.plan.grid,
            dataset=self.plan.dataset,
            dataset_fingerprint=self.plan.fingerprint,
            holdout=self.plan.holdout,
            model=self.plan.model,
            recipe=self.plan.recipe,
            evaluation=self.plan.evaluation,
            attack=cell.victim.attack,
            defense=list(cell.defense),
            **defense_traits(self.host, cell.defense),
            seed=cell.victim.seed,
            status=status,
            error=failure.message if failure else None,
            log=failure.log if failure else None,
            weights=record.weights if record else None,
            provenance=self._provenance(cell, found, record),
            notes=[*cell.victim.notes, *_warnings(cell.victim, record)],
            measures=found.measures if found else Measures(),
            trajectory=found.trajectory if found else [],
            tables=found.tables if found else {},
        )

    def _provenance(self, cell: Cell, found: Evaluation | None, record: VictimRecord | None) -> Provenance:
        precision = found.precision if found else record.precision if record else None
        return Provenance.now(record.device if record else "unknown", precision, self.options.threads, self._origins(cell))

    def _produced(self, outcome: DefenseOutput | None) -> Produced | None:
        """What of the outcome is kept."""
        if outcome is None:
            return None
        if not self.options.keep_models:
            return Produced(outcome.suspects, outcome.suspicion)
        models = (outcome.spec, outcome.state, outcome.detector_spec, outcome.detector_state)
        return Produced(outcome.suspects, outcome.suspicion, *models)

    def _record(self, key: str) -> VictimRecord | None:
        if self._records.get(key) is None:
            self._records[key] = self.store.victim_record(key)
        return self._records[key]

    def _origins(self, cell: Cell) -> dict[str, str]:
        """Where the code of this cell's plugins came from, by kind and name."""
        plan = self.plan
        stages: list[tuple[PluginKind, Stage]] = [("dataset", plan.dataset), ("model", plan.model), ("attack", cell.victim.attack)]
        stages += [("defense", stage) for stage in cell.defense if stage.name != NONE]
        return {f"{kind} {stage.name}": self.host.get(kind, stage.name).origin for kind, stage in stages}


def _warnings(victim: Victim, record: VictimRecord | None) -> list[str]:
    """What the victim's trainings said, with its name."""
    return [f"{victim.attack.name} (seed {victim.seed}): {warning}" for warning in record.warnings] if record else []
