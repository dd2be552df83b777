"""Implant: poison the training set and train one victim."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict

import torch

from gatecrash.contracts.attack import Attack, Implant
from gatecrash.contracts.data import ImageSet, own_copy, patched
from gatecrash.contracts.patched import taken
from gatecrash.contracts.portable import spec_of, state_of, tensors_hash
from gatecrash.engine.device import device_name
from gatecrash.engine.trainer import ReportProgress, TrainingSetup
from gatecrash.errors import ContractError
from gatecrash.host.host import Host
from gatecrash.process.measuring import Meter
from gatecrash.records.preparation import StoredPreparation
from gatecrash.records.stage import Stage
from gatecrash.records.victim import StoredVictim, TrainingRecord, VictimRecord
from gatecrash.running.tasks.given import attack_context, named
from gatecrash.running.tasks.ground import Ground, TrainPart
from gatecrash.running.tasks.prepare import rebuilt_preparation
from gatecrash.running.tasks.stored import backdoor_record, backdoor_tensors, network_of


def implant(
    host: Host,
    ground: Ground,
    attack: Stage,
    seed: int,
    data: TrainPart,
    benign: StoredVictim | None,
    report: ReportProgress,
    prepared: StoredPreparation | None = None,
    datasets: Mapping[str, ImageSet] | None = None,
) -> StoredVictim:
    """Poison and train one victim. What its attack prepared counts among its seconds."""
    train, _ = data.cut(ground, seed)
    instance: Attack = host.get("attack", attack.name).configure(attack.config)
    setup = ground.setup(seed, flip=data.flip, report=report)
    network = network_of(benign, setup.device) if benign is not None else None
    model, shared = ground.configured_model(host), rebuilt_preparation(prepared, setup.device)
    context = attack_context(instance, train, model, setup, network, shared, named(attack, datasets))
    meter = Meter(setup.device)
    with meter:
        made = instance.implant(own_copy(train), context)
    made.poisoned.check(train)
    if made.sample is not None:
        made.sample.check(train)
    instance.check_aim(made.poisoned)
    seconds = meter.seconds + (prepared.record.seconds if prepared is not None else 0.0)
    return _stored(made, instance, setup, (seconds, meter.peak_mb), ground.threads)


def _stored(made: Implant, attack: Attack, setup: TrainingSetup, cost: tuple[float, float], threads: int) -> StoredVictim:
    """With the rows that a defender holds, where there are any: those of the sample, or those that the victim was trained on.

    `cost` is seconds and MiB.
    """
    poisoned, classifier = made.sample or made.poisoned, made.classifier
    state = state_of(classifier)
    weights = {f"classifier.{name}": tensor for name, tensor in state.items()}
    for index, backdoor in enumerate(made.poisoned.backdoors):
        weights |= backdoor_tensors(index, backdoor)
    for name, tensor in weights.items():  # such a trigger would make black images, and be scored
        if name.startswith(("trigger.", "cover.")) and tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise ContractError(f"{attack.name}: {name} has values that are no finite numbers; what made the trigger has diverged")
    rows = poisoned.changed
    poison = {
        "rows": rows,
        "images": taken(patched(poisoned), rows.to(patched(poisoned).device)).cpu(),
        "labels": poisoned.labels.cpu()[rows].contiguous(),
        "role": poisoned.role.cpu()[rows].contiguous(),
    }
    record = VictimRecord(
        classifier=spec_of(classifier),
        backdoors=[backdoor_record(backdoor) for backdoor in made.poisoned.backdoors],
        **({"aim": attack.aim} if attack.aim != "backdoor" else {}),
        poison_share=poisoned.poison_share,
        train_size=len(poisoned.labels),
        weights=tensors_hash(weights),
        history=[TrainingRecord.model_validate(asdict(history)) for history in setup.histories],
        seconds=cost[0],
        peak_memory_mb=cost[1],
        device=device_name(setup.device),
        precision=setup.precision,
        threads=threads,
    )
    if made.sample is None and attack.controls != "data":
        record = record.model_copy(update={"hands_out_data": False})  # absent from other records, as from older ones
    return StoredVictim(record, weights, poison)
