"""The Defense contract: what a defender may see (Evidence) and what it hands back (Outcome).

The evidence holds exactly what the defense declares in `needs`, and never the test set, the trigger, the goal or the attack's name:
there is nothing in it to tune on that a real defender would not have.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, Literal

from gatecrash.contracts.config import Options
from gatecrash.contracts.evidence import Evidence, Need
from gatecrash.contracts.outcome import Give, Outcome
from gatecrash.contracts.reference import Reference

Access = Literal["model + clean data", "training data", "training-time", "input-time"]
"""Classes of defenses that may be compared with each other."""


class Defense(ABC):
    """One defense = one subclass in one file."""

    name: ClassVar[str]
    summary: ClassVar[str]
    reference: ClassVar[Reference | None] = None
    version: ClassVar[int] = 1
    """Raise it whenever the numbers may change: it is part of every key."""
    needs: ClassVar[frozenset[Need]]
    gives: ClassVar[frozenset[Give]]

    class Config(Options):
        """No options."""

    config: Options
    """The options of this instance; a plugin writes `config: Config` in its class body, so that a type checker knows its fields."""

    def __init__(self, config: Options | None = None) -> None:
        self.config = config if config is not None else self.Config()

    @abstractmethod
    def defend(self, evidence: Evidence) -> Outcome:
        """Use the evidence; never assume more than `needs` declares."""


def access_class(needs: frozenset[Need], gives: frozenset[Give]) -> Access:
    """Defenses are ranked within one of these: more access is an easier game."""
    if Give.REJECT in gives:
        return "input-time"
    if Need.TRAINING_DATA in needs and not needs & {Need.MODEL, Need.FEATURES}:
        return "training-time"
    return "training data" if needs & {Need.TRAINING_DATA, Need.FEATURES} else "model + clean data"
