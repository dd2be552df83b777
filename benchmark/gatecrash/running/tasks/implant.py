"""Implant: poison the training set and train one victim."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial

import torch

from gatecrash.contracts.attack import Attack, AttackContext
from gatecrash.contracts.backdoor import Backdoor
from gatecrash.contracts.classifier import Classifier
from gatecrash.contracts.data import Poisoned
from gatecrash.contracts.portable import spec_of, state_of, tensors_hash
from gatecrash.contracts.randomness import Streams
from gatecrash.contracts.recipe import Recipe
from gatecrash.engine import batching
from gatecrash.engine.device import choose_device, device_name
from gatecrash.engine.trainer import ReportProgress, trainer
from gatecrash.engine.training import History
from gatecrash.errors import ContractError
from gatecrash.host.host import Host
from gatecrash.process.measuring import Meter
from gatecrash.records.stage import Stage
from gatecrash.records.victim import BackdoorRecord, GoalRecord, StoredVictim, TrainingRecord, VictimRecord
from gatecrash.running.tasks.ground import Ground, TrainPart, model_factory
from gatecrash.running.tasks.stored import network_of


def implant(
    host: Host, ground: Ground, attack: Stage, seed: int, data: TrainPart, benign: StoredVictim | None, report: ReportProgress
) -> StoredVictim:
    """Poison and train one victim."""
    device = choose_device(ground.device)
    train, _ = data.cut(ground, seed)
    instance: Attack = host.get("attack", attack.name).configure(attack.config)
    recipe = Recipe.model_validate(ground.recipe)
    shape = train.shape
    make = model_factory(host, ground, train, device)
    victim_streams = ground.streams("victim", seed)
    histories: list[History] = []
    fit = trainer(partial(make, victim_streams.seed("init", 63)), recipe, victim_streams, data.flip, device, report, histories)
    ctx = AttackContext(
        classes=train.classes,
        shape=shape,
        recipe=recipe,
        device=device,
        stream=Streams("attack", attack.name, seed),
        new_model=partial(make, victim_streams.seed("init", 63)),
        batches=partial(batching.batches, device=device),
        train=fit,
        benign=network_of(benign, device) if benign is not None else None,
    )
    meter = Meter(device)
    with meter:
        made = instance.implant(replace(train, images=train.images.clone(), labels=train.labels.clone()), ctx)
    made.poisoned.check(train)
    _check_backdoors(made.poisoned.backdoors)
    return _store_form(made.poisoned, made.classifier, histories, meter, device, ground.threads)


def _store_form(
    poisoned: Poisoned,
    classifier: Classifier,
    histories: Sequence[History],
    meter: Meter,
    device: torch.device,
    threads: int,
) -> StoredVictim:
    state = state_of(classifier)
    weights = {f"classifier.{name}": tensor for name, tensor in state.items()}
    backdoors = []
    for index, backdoor in enumerate(poisoned.backdoors):
        weights |= {f"trigger.{index}.{name}": tensor for name, tensor in state_of(backdoor.trigger).items()}
        goal = backdoor.goal
        described = GoalRecord(kind=goal.kind, num_classes=goal.num_classes, target=goal.target, source=goal.source)
        backdoors.append(BackdoorRecord(name=backdoor.name, goal=described, trigger=spec_of(backdoor.trigger)))
    rows = poisoned.changed
    poison = {
        "rows": rows,
        "images": poisoned.images.cpu()[rows].contiguous(),
        "labels": poisoned.labels.cpu()[rows].contiguous(),
        "role": poisoned.role.cpu()[rows].contiguous(),
    }
    record = VictimRecord(
        classifier=spec_of(classifier),
        backdoors=backdoors,
        poison_share=poisoned.poison_share,
        train_size=len(poisoned.labels),
        weights=tensors_hash(weights),
        history=[TrainingRecord.model_validate(asdict(history)) for history in histories],
        seconds=meter.seconds,
        peak_memory_mb=meter.peak_mb,
        device=device_name(device),
        threads=threads,
    )
    return StoredVictim(record, weights, poison)


def _check_backdoors(backdoors: Sequence[Backdoor]) -> None:
    names = [backdoor.name for backdoor in backdoors]
    if len(set(names)) != len(names):
        raise ContractError(f"backdoors of one victim need distinct names; got {names}")
