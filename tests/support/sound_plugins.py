"""An attack and a defense that keep their contracts: those that break them in tests differ from these in one thing."""

from __future__ import annotations

import torch

from gatecrash import (
    Attack,
    Config,
    Defense,
    Evidence,
    Give,
    Need,
    Outcome,
    Reference,
    Stamp,
    Trigger,
    TriggerAttack,
    patch_mask,
)
from gatecrash.testing import checks_for

PAPER = Reference("A paper", 2024, "https://example.org")


class Dot(TriggerAttack):
    """One white pixel."""

    name = "dot"
    summary = "one white pixel"
    reference = PAPER

    def trigger(self, shape: tuple[int, int, int]) -> Trigger:
        return Stamp(shape, 1.0, torch.full(shape, 255, dtype=torch.uint8), patch_mask(shape, 1, "top-left", 0))


class Tuning(Defense):
    """Hands the victim back as it is."""

    name = "tuning"
    summary = "hands the victim back"
    reference = PAPER
    needs = frozenset({Need.MODEL})
    gives = frozenset({Give.CLASSIFIER})

    class Config(Config):
        """No options."""

    def defend(self, evidence: Evidence) -> Outcome:
        return Outcome(classifier=evidence.classifier)


def run_check(plugin: Attack | Defense, name: str) -> None:
    (check,) = (check for check in checks_for(plugin) if check.name == name)
    check(plugin)
