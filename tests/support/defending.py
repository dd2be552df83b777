"""Defenses carried out by hand, outside a run."""

from __future__ import annotations

import torch

from gatecrash import Classifier, Defense, ImageSet, Network, Outcome
from gatecrash.testing import make_evidence


def defended(defense: Defense, victim: Classifier, clean: ImageSet) -> Outcome:
    """What a defense that needs no training data makes of `victim`, checked as a run would."""
    outcome = defense.defend(make_evidence(defense, victim, clean))
    outcome.check(frozenset(defense.gives), None, clean.num_classes)
    return outcome


def switched_off(outcome: Outcome, point: str = "last") -> list[int]:
    """Channels of `point` whose mask is 0 in the outcome's network."""
    assert isinstance(outcome.classifier, Network)
    return torch.nonzero(outcome.classifier.points[point].mask == 0).flatten().tolist()
