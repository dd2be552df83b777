"""How long a task will probably take: what the store has measured, else a guess by what the method needs.

The longest of the tasks that could start goes first, since a long one that starts last is waited for by all others. A wrong guess costs
time and changes no number.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from gatecrash.contracts.evidence import Need
from gatecrash.records.plan import NONE
from gatecrash.records.timings import Timings

if TYPE_CHECKING:
    from gatecrash.host.host import Host
    from gatecrash.records.measures import Measures
    from gatecrash.records.plan import Cell, Plan, Victim

IMAGES_PER_SECOND = 2000.0
"""A guess at the speed of training, where nothing was measured."""

RETRAINING, LEARNING, LOOKING = 3.0, 1.0, 0.2
"""Guesses at a defense's time as a multiple of its victim's: it trains anew, it optimises on clean data, it looks at what there is."""

MOVED = 1.1
"""By which factor an expectation must change before waiting tasks are put into another order."""

TRAIN, VICTIM, DEFEND = "train", "victim", "defend"
"""Kinds of timings: seconds per image of any victim's training (and with an attack's name, of that one's), seconds of a victim, and with a
defense's name, of that one."""


class Expected:
    """Seconds that tasks of this plan are expected to take. It learns from the tasks that end."""

    def __init__(self, plan: Plan, host: Host, timings: Timings) -> None:
        self.timings = timings
        self._host = host
        self._place = f"{plan.dataset.name} {plan.fingerprint[:16]} {plan.model.name} {json.dumps(plan.model.config, sort_keys=True)}"
        self._victims = {victim.attack.name: victim for victim in plan.victims.values()}
        self._defenses = {id(cell.defense): cell for cell in plan.cells.values()}  # all cells of one share its object
        self.learned = False
        """Whether anything was learned in this run."""

    def victim(self, victim: Victim) -> float:
        """The training of a victim."""
        per_image = self._here(f"{TRAIN} {victim.attack.name}") or self._here(TRAIN)
        return (per_image or 1 / IMAGES_PER_SECOND) * victim.cost

    def defense(self, cell: Cell) -> float:
        """The defense of a cell, or chain of them."""
        known = self._here(f"{DEFEND} {title_of(cell)}")
        return sum(self._stage(stage.name, cell.victim) for stage in cell.defense) if known is None else known

    def longest_victim(self) -> float:
        return max((self.victim(victim) for victim in self._victims.values()), default=0.0)

    def longest_defense(self) -> float:
        return max((self.defense(cell) for cell in self._defenses.values()), default=0.0)

    def trained(self, victim: Victim, seconds: float) -> bool:
        """A victim was trained; whether expectations have moved."""
        per_image = seconds / max(1.0, victim.cost)  # recipes differ
        learned = {f"{TRAIN} {victim.attack.name}": per_image, TRAIN: per_image, VICTIM: seconds}
        moved = [self._learn(kind, value) for kind, value in learned.items()]
        return any(moved)

    def defended(self, cell: Cell, seconds: float) -> bool:
        """A defense, or chain of them, ended; whether expectations have moved."""
        return self._learn(f"{DEFEND} {title_of(cell)}", seconds)

    def found(self, cell: Cell, measures: Measures) -> None:
        """A cell of this plan was made before; what its record says is taken where nothing is known."""
        seconds_victim, seconds_defense = measures.seconds_victim, measures.seconds_defense
        if seconds_victim is not None and self._here(f"{TRAIN} {cell.victim.attack.name}") is None:
            self.trained(cell.victim, seconds_victim)
        if seconds_defense is not None and self._here(f"{DEFEND} {title_of(cell)}") is None:
            self.defended(cell, seconds_defense)

    def _stage(self, name: str, victim: Victim) -> float:
        if name == NONE:
            return 0.0
        known = self._here(f"{DEFEND} {name}")
        return self._share(name) * self.victim(victim) if known is None else known

    def _share(self, name: str) -> float:
        """A defense's time as a multiple of its victim's: as measured on other data or another model, else by what it needs."""
        for place in self.timings.places:
            defense, victim = self.timings.seconds(place, f"{DEFEND} {name}"), self.timings.seconds(place, VICTIM)
            if defense is not None and victim:
                return defense / victim
        needs = self._host.get("defense", name).cls.needs
        if Need.RETRAIN in needs:
            return RETRAINING
        return LEARNING if Need.CLEAN_DATA in needs else LOOKING

    def _here(self, kind: str) -> float | None:
        return self.timings.seconds(self._place, kind)

    def _learn(self, kind: str, seconds: float) -> bool:
        before = self._here(kind)
        self.timings.add(self._place, kind, seconds)
        self.learned = True
        after = self._here(kind) or 0.0
        return before is None or not before / MOVED <= after <= before * MOVED


def title_of(cell: Cell) -> str:
    """The names of the cell's defenses, without their options."""
    return " + ".join(stage.name for stage in cell.defense)
