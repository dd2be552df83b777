"""A stored victim's classifier and backdoors, rebuilt."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from gatecrash.contracts.backdoor import Backdoor, Goal
from gatecrash.contracts.classifier import Classifier, Network
from gatecrash.contracts.portable import rebuild, spec_of, state_of
from gatecrash.contracts.trigger import Trigger
from gatecrash.errors import ContractError
from gatecrash.records.victim import BackdoorRecord, GoalRecord, StoredVictim


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
    return [
        Backdoor(
            entry.name,
            goal_of(entry.goal),
            _trigger(victim, entry.trigger, f"trigger.{index}."),
            tuple(entry.keeps),
            _trigger(victim, entry.cover, f"cover.{index}."),
            victim.weights.get(f"backdoor.{index}.images"),
            victim.weights.get(f"backdoor.{index}.labels"),
        )
        for index, entry in enumerate(victim.record.backdoors)
    ]


def goal_of(record: GoalRecord) -> Goal:
    """Raises ContractError for a goal that there cannot be."""
    classes, target = record.num_classes, record.target
    if record.mapping is not None:
        return Goal(tuple(record.mapping))
    if record.kind == "all-to-all":
        return Goal.all_to_all(classes)
    if target is None:
        raise ContractError(f"the stored goal {record.kind} has no target")
    return Goal.all_to_one(classes, target) if record.source is None else Goal.one_to_one(classes, record.source, target)


def backdoor_record(backdoor: Backdoor) -> BackdoorRecord:
    """What is stored of a backdoor beside its tensors; without the parts that it does not have."""
    goal = backdoor.goal
    named = GoalRecord(kind=goal.kind, num_classes=goal.num_classes, target=goal.target, source=goal.source)
    mapped = GoalRecord(kind=goal.kind, num_classes=goal.num_classes, mapping=list(goal.mapping))
    parts: dict[str, Any] = {
        "trigger": backdoor.trigger and spec_of(backdoor.trigger),
        "keeps": list(backdoor.keeps),
        "cover": backdoor.cover and spec_of(backdoor.cover),
    }
    described = mapped if goal.kind in {"many-to-one", "mapping"} else named
    return BackdoorRecord(name=backdoor.name, goal=described, **{name: part for name, part in parts.items() if part})


def backdoor_tensors(index: int, backdoor: Backdoor) -> dict[str, Tensor]:
    """The tensors of a victim's backdoor of this number, by the names under which they are stored."""
    modules = {"trigger": backdoor.trigger, "cover": backdoor.cover}
    given = {"images": backdoor.images, "labels": backdoor.labels}
    states = {f"{part}.{index}.{name}": tensor for part, module in modules.items() if module for name, tensor in state_of(module).items()}
    return states | {f"backdoor.{index}.{name}": tensor.cpu().contiguous() for name, tensor in given.items() if tensor is not None}


def _trigger(victim: StoredVictim, spec: dict[str, Any] | None, prefix: str) -> Trigger | None:
    if spec is None:
        return None
    trigger = rebuild(spec, {name.removeprefix(prefix): tensor for name, tensor in victim.weights.items() if name.startswith(prefix)})
    if not isinstance(trigger, Trigger):
        raise ContractError(f"the stored trigger is a {type(trigger).__name__}, not a gatecrash.Trigger")
    return trigger
