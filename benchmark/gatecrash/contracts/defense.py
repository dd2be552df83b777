"""The Defense contract: from the evidence that a defender has (`Evidence`) to what it returns (`Outcome`)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar, Literal

from gatecrash.contracts.config import Options
from gatecrash.contracts.evidence import Evidence, Need
from gatecrash.contracts.outcome import Give, Outcome
from gatecrash.contracts.reference import Reference

Access = Literal["model + clean data", "training data", "training-time", "input-time"]
"""Classes of defenses by what they may use; only defenses of one class are compared with each other."""


class Defense(ABC):
    """One defense = one subclass in one file."""

    name: ClassVar[str]
    summary: ClassVar[str]
    reference: ClassVar[Reference | None] = None
    version: ClassVar[int] = 1
    """Raise it whenever the numbers may change: it is part of every key."""
    deviations: ClassVar[Mapping[str, str]] = {}
    """Checks of `gatecrash check` that this method fails on purpose: name -> reason, which is shown instead of a failure."""
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
        """The outcome of this defense on the evidence, which holds what `needs` declares and nothing else."""


def access_class(needs: frozenset[Need], gives: frozenset[Give]) -> Access:
    """The class in which a defense is ranked: the more it may use, the easier its task."""
    if gives & {Give.REJECT, Give.DETECTOR}:
        return "input-time"
    if Need.TRAINING_DATA in needs and not needs & {Need.MODEL, Need.FEATURES}:
        return "training-time"
    return "training data" if needs & {Need.TRAINING_DATA, Need.FEATURES} else "model + clean data"
