"""What tasks are given: parts of the dataset, stored victims, what a defender sees, features, outcomes of defenses; and what of it is kept
in memory between tasks."""

from __future__ import annotations

import hashlib
from functools import cached_property
from typing import TYPE_CHECKING, Any

from cachetools import LRUCache

from gatecrash.datasets.adapting import adapted
from gatecrash.datasets.clean_data import CleanData
from gatecrash.records.labels import identity
from gatecrash.running.caches import WhileNeeded
from gatecrash.running.tasks.defender import DefenderInput, DefenseOutput
from gatecrash.running.tasks.features import Features
from gatecrash.running.tasks.ground import Ground, TrainPart
from gatecrash.running.tasks.protocol import Artifact

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gatecrash.contracts.data import ImageSet, Splits
    from gatecrash.planning.planned import PlannedGrid
    from gatecrash.records.plan import Cell, Victim
    from gatecrash.records.stage import Stage
    from gatecrash.records.store import Store
    from gatecrash.records.victim import StoredVictim
    from gatecrash.running.options import RunOptions


def control_key(cell: Cell) -> str:
    """What stands for the benign victim of this cell's seed under its defense."""
    return f"control:{cell.victim.benign}:{identity(cell.defense)}"


VICTIMS, DEFENDER_INPUTS, DATASETS = 4, 2, 2
"""How many of the last ones stay in memory."""


class Inputs:
    """Artifacts for tasks, by key."""

    def __init__(self, planned: PlannedGrid, store: Store, options: RunOptions) -> None:
        plan = planned.plan
        of_store = hashlib.sha256(str(store.root.absolute()).encode()).hexdigest()[:16]  # two stores may train one victim at a time
        settled = (options.device, options.threads, options.precision)
        self.ground = Ground(
            plan.dataset.name, plan.model, plan.recipe, plan.holdout, *settled, checkpoints=of_store, evaluation=plan.evaluation
        )
        self.features: WhileNeeded[Features] = WhileNeeded()
        """By victim; the users are the nodes of the defenses."""
        self.outcomes: dict[str, DefenseOutput] = {}
        """Of the defenses that ended, by cell, until the cell is evaluated."""
        self.controls: WhileNeeded[DefenseOutput] = WhileNeeded()
        """Of defenses on benign victims, by `control_key`; the users are the nodes of evaluations."""
        self._planned, self._store = planned, store
        self._victims: LRUCache[str, StoredVictim] = LRUCache(VICTIMS)
        self._datasets: LRUCache[str, ImageSet] = LRUCache(DATASETS)
        self._defender_inputs: LRUCache[str, DefenderInput] = LRUCache(DEFENDER_INPUTS)

    def train_part(self) -> Artifact:
        return Artifact(f"train:{self._planned.plan.fingerprint}", self._train_part)

    def test_part(self) -> Artifact:
        return Artifact(f"test:{self._planned.plan.fingerprint}", self._splits.test)

    def datasets(self, stages: Iterable[Stage]) -> Artifact | None:
        """The second data sets that these plugins' options name, by fingerprint, in the shape of the grid's images; None for none."""
        named = sorted({fingerprint for stage in stages for fingerprint in stage.datasets.values()})
        if not named:
            return None
        return Artifact(f"datasets:{','.join(named)}", {fingerprint: self._dataset(fingerprint) for fingerprint in named})

    def victim(self, key: str) -> Artifact | None:
        """The stored victim, or None where it is damaged (the store has set it aside then)."""
        victim = self._victims.get(key)
        if victim is None:
            victim = self._store.victim(key)
            if victim is None:
                return None
            self.keep_victim(key, victim)
        return Artifact(f"victim:{key}", victim)

    def keep_victim(self, key: str, victim: StoredVictim) -> None:
        """Keep a victim in memory: its defenses come next."""
        self._victims[key] = victim

    def defender_input(
        self, victim: Victim, stored: StoredVictim, *, with_training_data: bool, clean: dict[str, Any] | None = None
    ) -> Artifact:
        """What a defender may see; `clean` says which clean images. Raises NotApplicable where there are too few of them."""
        view = CleanData.model_validate(clean or {})
        key = f"defender:{victim.key}:{with_training_data}" + (f":{view.model_dump_json()}" if clean else "")
        made = self._defender_inputs.get(key)
        if made is None:
            made = DefenderInput.of(self.ground, victim.seed, self._train_part, stored, with_training_data=with_training_data, clean=view)
            self._defender_inputs[key] = made
        return Artifact(key, made)

    def let_go(self, cell: Cell) -> None:
        """Nothing of this cell is needed any more."""
        self.outcomes.pop(cell.key, None)
        self.controls.done(control_key(cell), f"evaluate:{cell.key}")
        self.features.done(cell.victim.key, f"defend:{cell.key}")

    def _dataset(self, fingerprint: str) -> ImageSet:
        made = self._datasets.get(fingerprint)
        if made is None:
            made = adapted(self._planned.datasets[fingerprint].splits().train, self._planned.prepared.shape)
            self._datasets[fingerprint] = made
        return made

    @cached_property
    def _splits(self) -> Splits:
        return self._planned.prepared.splits()

    @cached_property
    def _train_part(self) -> TrainPart:
        return TrainPart.of(self._splits)
