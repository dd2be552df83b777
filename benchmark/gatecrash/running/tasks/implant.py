"""Implant: poison the training set and train one victim."""

from __future__ import annotations

from dataclasses import asdict, replace

from gatecrash.contracts.attack import Aim, Attack, Implant
from gatecrash.contracts.portable import spec_of, state_of, tensors_hash
from gatecrash.engine.device import device_name
from gatecrash.engine.trainer import ReportProgress, TrainingSetup
from gatecrash.host.host import Host
from gatecrash.process.measuring import Meter
from gatecrash.records.stage import Stage
from gatecrash.records.victim import StoredVictim, TrainingRecord, VictimRecord
from gatecrash.running.tasks.given import attack_context
from gatecrash.running.tasks.ground import Ground, TrainPart
from gatecrash.running.tasks.stored import backdoor_record, backdoor_tensors, network_of


def implant(
    host: Host, ground: Ground, attack: Stage, seed: int, data: TrainPart, benign: StoredVictim | None, report: ReportProgress
) -> StoredVictim:
    """Poison and train one victim."""
    train, _ = data.cut(ground, seed)
    instance: Attack = host.get("attack", attack.name).configure(attack.config)
    setup = ground.setup(seed, flip=data.flip, report=report)
    network = network_of(benign, setup.device) if benign is not None else None
    context = attack_context(instance, train, ground.configured_model(host), setup, network)
    meter = Meter(setup.device)
    with meter:
        made = instance.implant(replace(train, images=train.images.clone(), labels=train.labels.clone()), context)
    made.poisoned.check(train)
    instance.check_aim(made.poisoned)
    return _stored(made, instance.aim, setup, meter, ground.threads)


def _stored(made: Implant, aim: Aim, setup: TrainingSetup, meter: Meter, threads: int) -> StoredVictim:
    poisoned, classifier = made.poisoned, made.classifier
    state = state_of(classifier)
    weights = {f"classifier.{name}": tensor for name, tensor in state.items()}
    for index, backdoor in enumerate(poisoned.backdoors):
        weights |= backdoor_tensors(index, backdoor)
    rows = poisoned.changed
    poison = {
        "rows": rows,
        "images": poisoned.images.cpu()[rows].contiguous(),
        "labels": poisoned.labels.cpu()[rows].contiguous(),
        "role": poisoned.role.cpu()[rows].contiguous(),
    }
    record = VictimRecord(
        classifier=spec_of(classifier),
        backdoors=[backdoor_record(backdoor) for backdoor in poisoned.backdoors],
        **({"aim": aim} if aim != "backdoor" else {}),
        poison_share=poisoned.poison_share,
        train_size=len(poisoned.labels),
        weights=tensors_hash(weights),
        history=[TrainingRecord.model_validate(asdict(history)) for history in setup.histories],
        seconds=meter.seconds,
        peak_memory_mb=meter.peak_mb,
        device=device_name(setup.device),
        precision=setup.precision,
        threads=threads,
    )
    return StoredVictim(record, weights, poison)
