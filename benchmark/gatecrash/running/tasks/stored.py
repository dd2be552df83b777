"""A stored victim's classifier and backdoors, rebuilt."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from gatecrash.contracts.backdoor import Backdoor, Goal
from gatecrash.contracts.classifier import Classifier, Network
from gatecrash.contracts.portable import rebuild
from gatecrash.contracts.trigger import Trigger
from gatecrash.errors import ContractError
from gatecrash.records.victim import StoredVictim


def classifier_state(victim: StoredVictim) -> dict[str, Tensor]:
    """The classifier's tensors among the victim's."""
    prefix = "classifier."
    return {name.removeprefix(prefix): tensor for name, tensor in victim.weights.items() if name.startswith(prefix)}


def classifier_of(victim: StoredVictim) -> Classifier:
    """The victim's classifier on the CPU, without its triggers."""
    return rebuilt_classifier(victim.record.classifier, classifier_state(victim))


def rebuilt_classifier(spec: dict[str, Any], state: Mapping[str, Tensor]) -> Classifier:
    """The classifier on the CPU, in eval mode. Raises ContractError where it is none."""
    classifier = rebuild(spec, state)
    if not isinstance(classifier, Classifier):
        raise ContractError(f"what is stored is a {type(classifier).__name__}, not a Classifier")
    return classifier


def network_of(victim: StoredVictim, device: torch.device) -> Network:
    classifier = classifier_of(victim)
    if not isinstance(classifier, Network):
        raise ContractError(f"the benign victim is a {type(classifier).__name__}, not a Network")
    return classifier.to(device)


def backdoors_of(victim: StoredVictim) -> list[Backdoor]:
    """The victim's backdoors with their triggers, rebuilt from the store."""
    found = []
    for index, entry in enumerate(victim.record.backdoors):
        prefix = f"trigger.{index}."
        state = {name.removeprefix(prefix): tensor for name, tensor in victim.weights.items() if name.startswith(prefix)}
        trigger = rebuild(entry.trigger, state)
        if not isinstance(trigger, Trigger):
            raise ContractError(f"the stored trigger is a {type(trigger).__name__}, not a gatecrash.Trigger")
        found.append(Backdoor(entry.name, Goal(**entry.goal.model_dump()), trigger))
    return found
