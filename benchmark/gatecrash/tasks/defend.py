"""Defend: run a defense, or a chain of them, on what a defender may see."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor

from gatecrash import batching, training
from gatecrash.classifier import Classifier
from gatecrash.data import ImageSet
from gatecrash.defense import Defense, Evidence, Need, Outcome, no_retraining
from gatecrash.errors import ContractError
from gatecrash.host import Host
from gatecrash.measure import Meter
from gatecrash.portable import rebuild, spec_of, state_of
from gatecrash.randomness import Streams
from gatecrash.recipe import Recipe
from gatecrash.results import Stage
from gatecrash.store import StoredVictim
from gatecrash.tasks.common import Ground, Report, TrainPart, classifier_state, model_factory, trainer
from gatecrash.tasks.features import FeaturesArtifact, penultimate


@dataclass(frozen=True)
class View:
    """All that a defend task is given of the world: the classifier, the hold-out, and (if any stage needs it) the suspicious training set.

    Made by the driver (`view_of`); roles, triggers, goals, the clean originals and the test set stay behind.
    """

    spec: dict[str, Any]
    state: dict[str, Tensor]
    clean: ImageSet
    training: ImageSet | None
    flip: bool

    def classifier(self) -> Classifier:
        """The victim's, on the CPU."""
        classifier = rebuild(self.spec, self.state)
        if not isinstance(classifier, Classifier):
            raise ContractError(f"the stored victim is a {type(classifier).__name__}, not a Classifier")
        return classifier


@dataclass(frozen=True)
class OutcomeArtifact:
    """A defense's outcome on its way to the evaluation."""

    spec: dict[str, Any] | None
    state: dict[str, Tensor]
    suspects: Tensor | None
    suspicion: Tensor | None
    verdict: dict[str, Any] | None
    steps: list[tuple[dict[str, Any], dict[str, Tensor]]]
    steps_spec: dict[str, Any] | None
    steps_state: dict[str, Tensor]
    """The classifier that the steps' changes refer to: the one that the stage was given."""
    figures: dict[str, Tensor] = field(default_factory=dict)
    tables: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    seconds: float = 0.0
    peak_memory_mb: float = 0.0
    holdout_size: int | None = None


def view_of(ground: Ground, seed: int, data: TrainPart, victim: StoredVictim, *, with_training_data: bool) -> View:
    """What a defender may see of this victim."""
    train, clean = data.cut(ground, seed)
    training_data = None
    if with_training_data:
        images, labels = train.images.clone(), train.labels.clone()
        rows = victim.poison["rows"]
        images[rows], labels[rows] = victim.poison["images"], victim.poison["labels"]
        training_data = ImageSet(images, labels, train.classes)
    return View(victim.record["classifier"], classifier_state(victim), clean, training_data, data.flip)


def defend(
    host: Host, ground: Ground, stages: Sequence[Stage], seed: int, view: View, report: Report, features: FeaturesArtifact | None = None
) -> OutcomeArtifact:
    """Run one defense, or a chain: each stage gets the last classifier and the training set minus the suspects so far.

    `features` are the victim's on the whole training set; without them, or once a stage has changed the classifier, a stage that needs
    features has them computed here.
    """
    device = training.choose_device(ground.device)
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
    return OutcomeArtifact(
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
    view: View,
    prior: Outcome | None,
    device: torch.device,
    report: Report,
    known: Tensor | None,
) -> Evidence:
    """Exactly what the defense declared; tensors and classifier are copies, so that it cannot change another stage's."""
    needs = frozenset(defense.needs)
    streams = Streams("defense", defense.name, seed)
    recipe = Recipe.model_validate(ground.recipe)
    seen = suspicious if suspicious is not None else view.clean
    make = partial(model_factory(host, ground, seen, device), streams.seed("init", 63)) if Need.RETRAIN in needs else no_retraining
    histories: list[training.History] = []
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
