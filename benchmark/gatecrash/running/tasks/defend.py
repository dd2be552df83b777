"""Defend: run a defense, or a chain of them, on what a defender may see."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor

from gatecrash.contracts.classifier import Classifier
from gatecrash.contracts.data import ImageSet
from gatecrash.contracts.defense import Defense
from gatecrash.contracts.evidence import Evidence, Need, no_retraining
from gatecrash.contracts.outcome import Outcome
from gatecrash.contracts.portable import spec_of, state_of
from gatecrash.contracts.randomness import Streams
from gatecrash.contracts.recipe import Recipe
from gatecrash.engine import batching
from gatecrash.engine.device import choose_device
from gatecrash.engine.trainer import ReportProgress, trainer
from gatecrash.engine.training import History
from gatecrash.errors import ContractError
from gatecrash.host.host import Host
from gatecrash.process.measuring import Meter
from gatecrash.records.stage import Stage
from gatecrash.running.tasks.defender import DefenderInput, DefenseOutput
from gatecrash.running.tasks.features import Features, penultimate
from gatecrash.running.tasks.ground import Ground, model_factory


def defend(
    host: Host,
    ground: Ground,
    stages: Sequence[Stage],
    seed: int,
    view: DefenderInput,
    report: ReportProgress,
    features: Features | None = None,
) -> DefenseOutput:
    """Run one defense, or a chain: each stage gets the last classifier and the training set minus the suspects so far.

    `features` are the victim's on the whole training set; without them, or once a stage has changed the classifier, a stage that needs
    features has them computed here.
    """
    device = choose_device(ground.device)
    given = classifier = cache(view.classifier)  # not every defense wants it
    total = len(view.training) if view.training is not None else 0
    kept = torch.arange(total)
    suspects = torch.zeros(total, dtype=torch.bool)
    suspicion: Tensor | None = None
    searched = False
    changed = False
    prior: Outcome | None = None
    meter = Meter(device)
    with meter:
        for stage in stages:
            instance: Defense = host.get("defense", stage.name).configure(stage.config)
            data = view.training.subset(kept) if view.training is not None else None
            known = features.values[kept] if features is not None and not changed else None
            evidence = _evidence(host, ground, instance, seed, classifier, data, view, prior, device, report, known)
            given = classifier
            outcome = instance.defend(evidence)
            rows = len(kept) if Need.TRAINING_DATA in instance.needs else None
            outcome.check(frozenset(instance.gives), rows, view.clean.num_classes)
            if outcome.suspicion is not None:
                suspicion = torch.full((total,), float("inf"), dtype=torch.float64)  # removed earlier: the most suspect
                suspicion[kept] = outcome.suspicion.cpu().double()
            if outcome.suspects is not None:
                searched = True
                suspects[kept[outcome.suspects.cpu()]] = True
                kept = torch.nonzero(~suspects).flatten()
            if outcome.classifier is not None:
                classifier, changed = cache(partial(_same, outcome.classifier)), True
            prior = outcome
    if prior is None:
        raise ContractError("a defense has at least one stage")
    if suspicion is not None:  # infinities of earlier stages, ranked above everything and storable
        top = suspicion[torch.isfinite(suspicion)].max() if bool(torch.isfinite(suspicion).any()) else torch.tensor(0.0)
        suspicion = torch.where(torch.isfinite(suspicion), suspicion, top + 1)
    verdict = prior.verdict
    return DefenseOutput(
        spec=spec_of(classifier()) if changed else None,
        state=state_of(classifier()) if changed else {},
        suspects=suspects if searched else None,
        suspicion=suspicion,
        verdict=None
        if verdict is None
        else {
            "backdoored": bool(verdict.backdoored),
            "probability": verdict.probability,
            "targets": sorted(int(label) for label in verdict.targets),
            "anomaly": {str(label): float(value) for label, value in sorted(verdict.anomaly.items())},
        },
        steps=[(_plain(step.params), {name: t.detach().cpu() for name, t in step.changes.items()}) for step in prior.trajectory],
        steps_spec=spec_of(given()) if prior.trajectory else None,
        steps_state=state_of(given()) if prior.trajectory else {},
        figures={str(name): image.cpu() for name, image in prior.figures.items()},
        tables={str(name): [_plain(row) for row in rows] for name, rows in prior.tables.items()},
        seconds=meter.seconds + (features.seconds if features is not None else 0.0),
        peak_memory_mb=meter.peak_mb,
        holdout_size=len(view.clean),
    )


def _plain(record: Mapping[str, Any]) -> dict[str, Any]:
    """The record as JSON types: a plugin's own (an enum, say) would be unknown where its file is not loaded."""
    plain: dict[str, Any] = json.loads(json.dumps(dict(record)))
    return plain


def _same(classifier: Classifier) -> Classifier:
    return classifier


def _evidence(
    host: Host,
    ground: Ground,
    defense: Defense,
    seed: int,
    classifier: Callable[[], Classifier],
    suspicious: ImageSet | None,
    view: DefenderInput,
    prior: Outcome | None,
    device: torch.device,
    report: ReportProgress,
    known: Tensor | None,
) -> Evidence:
    """Exactly what the defense declared; tensors and classifier are copies, so that it cannot change another stage's."""
    needs = frozenset(defense.needs)
    streams = Streams("defense", defense.name, seed)
    recipe = Recipe.model_validate(ground.recipe)
    seen = suspicious if suspicious is not None else view.clean
    make = partial(model_factory(host, ground, seen, device), streams.seed("init", 63)) if Need.RETRAIN in needs else no_retraining
    histories: list[History] = []
    batches = partial(batching.batches, device=device)
    if Need.FEATURES in needs and suspicious is not None and known is None:
        known = penultimate(classifier().duplicate().to(device).eval(), suspicious.images, batches)
    return Evidence(
        needs=needs,
        classes=seen.classes,
        shape=seen.shape,
        device=device,
        stream=streams,
        train=trainer(make, recipe, streams, view.flip, device, report, histories),
        batches=batches,
        flip=view.flip,
        prior=prior,
        _classifier=classifier().duplicate().to(device).eval() if Need.MODEL in needs else None,
        _clean=_copy(view.clean).to(device) if Need.CLEAN_DATA in needs else None,
        _training_data=_copy(suspicious).to(device) if Need.TRAINING_DATA in needs and suspicious is not None else None,
        _recipe=recipe if Need.RETRAIN in needs else None,
        _new_model=make if Need.RETRAIN in needs else None,
        _features=known.to(device) if Need.FEATURES in needs and known is not None else None,
    )


def _copy(data: ImageSet) -> ImageSet:
    return replace(data, images=data.images.clone(), labels=data.labels.clone())
