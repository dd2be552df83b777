"""Prepare: what an attack makes once for all its victims of a data set and seed."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from gatecrash.contracts.attack import Attack, AttackContext
from gatecrash.contracts.data import ImageSet, own_copy
from gatecrash.contracts.portable import Portable, rebuild, spec_of, state_of
from gatecrash.engine.device import device_name
from gatecrash.engine.trainer import ReportProgress
from gatecrash.errors import ContractError
from gatecrash.host.host import Host
from gatecrash.process.measuring import Meter
from gatecrash.records.preparation import PreparationRecord, StoredPreparation
from gatecrash.records.stage import Stage
from gatecrash.records.victim import StoredVictim
from gatecrash.running.tasks.given import attack_context, named
from gatecrash.running.tasks.ground import Ground, TrainPart
from gatecrash.running.tasks.stored import network_of


def prepare(
    host: Host,
    ground: Ground,
    attack: Stage,
    seed: int,
    data: TrainPart,
    benign: StoredVictim | None,
    report: ReportProgress,
    datasets: Mapping[str, ImageSet] | None = None,
) -> StoredPreparation:
    """Call the attack's `prepare` on the training set."""
    train, _ = data.cut(ground, seed)
    instance: Attack = host.get("attack", attack.name).configure(attack.config)
    setup = ground.setup(seed, flip=data.flip, report=report)
    network = network_of(benign, setup.device) if benign is not None else None
    model = ground.configured_model(host)
    context = attack_context(instance, train, model, setup, network, datasets=named(attack, datasets), purpose="prepare")
    meter = Meter(setup.device)
    with meter:
        made = prepared_by(instance, train, context)
    declared = type(instance).prepare_options
    record = PreparationRecord(
        attack=attack.model_copy(update={"config": {name: value for name, value in attack.config.items() if name in declared}}),
        seed=seed,
        portable=spec_of(made) if made is not None else None,
        seconds=meter.seconds,
        peak_memory_mb=meter.peak_mb,
        device=device_name(setup.device),
        threads=ground.threads,
    )
    return StoredPreparation(record, state_of(made) if made is not None else {})


def prepared_by(attack: Attack, train: ImageSet, context: AttackContext) -> Portable | None:
    """What `prepare` returns on a copy of the training set. Raises ContractError if it reads an option that it does not declare, since what
    it makes is shared by all values of that option."""
    config = attack.config.model_copy()
    for name in type(config).model_fields.keys() - type(attack).prepare_options:
        del config.__dict__[name]
    declared = type(attack)(attack.config)
    declared.config = config
    try:
        made = declared.prepare(own_copy(train), context)
    except AttributeError as error:
        if error.obj is config:
            raise ContractError(f"prepare() read the option {error.name!r}, which is not among the attack's prepare_options") from None
        raise
    if made is not None and not isinstance(made, Portable):
        raise ContractError(f"prepare() must return a gatecrash.Portable or None; got {type(made).__name__}")
    return made


def rebuilt_preparation(stored: StoredPreparation | None, device: torch.device) -> Portable | None:
    """What the attack had returned, in eval mode; nothing where that was nothing."""
    if stored is None or stored.record.portable is None:
        return None
    return rebuild(stored.record.portable, stored.weights).to(device)
