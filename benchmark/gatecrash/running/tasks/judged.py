"""What of a defense's outcome the evaluation judges: its classifier, and its detector of inputs."""

from __future__ import annotations

from gatecrash.contracts.classifier import Classifier
from gatecrash.contracts.detector import InputDetector
from gatecrash.contracts.portable import rebuild
from gatecrash.errors import ContractError
from gatecrash.records.victim import StoredVictim
from gatecrash.running.tasks.defender import DefenseOutput
from gatecrash.running.tasks.stored import classifier_of


def judged_classifier(victim: StoredVictim, outcome: DefenseOutput | None) -> Classifier:
    """The classifier that the defense handed back, else the victim's."""
    if outcome is None or outcome.spec is None:
        return classifier_of(victim)
    defended = rebuild(outcome.spec, outcome.state)
    if not isinstance(defended, Classifier):
        raise ContractError(f"the outcome's classifier is a {type(defended).__name__}, not a gatecrash.Classifier")
    return defended


def detector_of(outcome: DefenseOutput | None) -> InputDetector | None:
    """The detector that the defense handed back, if it did."""
    if outcome is None or outcome.detector_spec is None:
        return None
    detector = rebuild(outcome.detector_spec, outcome.detector_state)
    if not isinstance(detector, InputDetector):
        raise ContractError(f"the outcome's detector is a {type(detector).__name__}, not a gatecrash.InputDetector")
    return detector
