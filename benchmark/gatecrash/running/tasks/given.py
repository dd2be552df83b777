"""What a plugin is given: an attack's context and a defense's evidence.

Built here for the tasks of a run and for `gatecrash.testing` alike, so that a plugin sees in its tests what it will see in a run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Literal

from torch import Tensor

from gatecrash.contracts.attack import Attack, AttackContext
from gatecrash.contracts.classifier import Classifier, Network
from gatecrash.contracts.data import ImageSet, own_copy
from gatecrash.contracts.defense import Defense
from gatecrash.contracts.evidence import Evidence, Need, no_retraining
from gatecrash.contracts.model import Model
from gatecrash.contracts.outcome import Outcome
from gatecrash.contracts.portable import Portable
from gatecrash.contracts.randomness import Streams
from gatecrash.contracts.recipe import Augmentation
from gatecrash.contracts.train import NewModel
from gatecrash.engine import batching
from gatecrash.engine.networks import network_factory
from gatecrash.engine.trainer import TrainingSetup, new_models, trainer
from gatecrash.records.stage import Stage
from gatecrash.running.tasks.features import penultimate


def attack_context(
    attack: Attack,
    train: ImageSet,
    model: Model,
    setup: TrainingSetup,
    benign: Network | None = None,
    prepared: Portable | None = None,
    datasets: Mapping[str, ImageSet] | None = None,
    purpose: Literal["victim", "prepare"] = "victim",
) -> AttackContext:
    """The context in which `attack` poisons `train` and trains a victim, or prepares what its victims share.

    Initialisation and batch order are the same for every attack, so that cells can be compared in pairs. A preparation has others than a
    victim: what it trains must not begin as the victim does.
    """
    # A compiled training starts from the same weights and sees the same batches as one that is not.
    drawn_by = setup.recipe.model_copy(update={"compile": "none"}).model_dump(mode="json")
    streams = Streams(purpose, setup.dataset, model.name, drawn_by, setup.seed)
    new_model = new_models(network_factory(model, train, setup.device), streams)
    return AttackContext(
        classes=train.classes,
        shape=train.shape,
        recipe=setup.recipe,
        device=setup.device,
        stream=Streams("attack" if purpose == "victim" else purpose, attack.name, setup.seed),
        new_model=new_model,
        batches=partial(batching.batches, device=setup.device),
        train=trainer(new_model, streams, setup),
        benign=benign,
        prepared=prepared,
        datasets=datasets or {},
    )


@dataclass(frozen=True)
class StageInput:
    """What one stage of a defense starts from."""

    classifier: Callable[[], Classifier]
    """Called only for a defense that needs it."""
    clean: ImageSet
    training_data: ImageSet | None = None
    """Without the suspects of earlier stages."""
    features: Tensor | None = None
    """The classifier's on the training data, float32 [N, F], where they are known already."""
    prior: Outcome | None = None
    """What the stage before handed back."""


def named(stage: Stage, datasets: Mapping[str, ImageSet] | None) -> dict[str, ImageSet]:
    """By option, a copy of each second data set that the plugin's options name; `datasets` are by fingerprint."""
    return {option: own_copy((datasets or {})[fingerprint]) for option, fingerprint in stage.datasets.items()}


def evidence_for(
    defense: Defense, stage: StageInput, model: Model | None, setup: TrainingSetup, datasets: Mapping[str, ImageSet] | None = None
) -> Evidence:
    """Exactly what the defense declares in `needs`; data and classifier are copies, so that it cannot change another stage's.

    A model trained from scratch is normalised by the training data, where there are any, else by the hold-out. Without `model`, nothing
    can be trained from scratch.
    """
    needs, device = frozenset(defense.needs), setup.device
    streams = Streams("defense", defense.name, setup.seed)
    seen = stage.training_data if stage.training_data is not None else stage.clean
    new_model: NewModel = no_retraining
    if model is not None and Need.RETRAIN in needs:
        new_model = new_models(network_factory(model, seen, device), streams)
    batches = partial(batching.batches, device=device)
    features = stage.features
    if Need.FEATURES in needs and stage.training_data is not None and features is None:
        features = penultimate(stage.classifier().duplicate().to(device).eval(), stage.training_data.images, batches)
    return Evidence(
        needs=needs,
        classes=seen.classes,
        shape=seen.shape,
        device=device,
        stream=streams,
        train=trainer(new_model, streams, setup),
        batches=batches,
        autocast=setup.autocast,
        flip=setup.flip,
        augmentation=Augmentation(setup.recipe.crop, setup.recipe.flip and setup.flip, setup.recipe.rotation, setup.recipe.padding),
        prior=stage.prior,
        datasets={option: data.to(device) for option, data in (datasets or {}).items()},
        _classifier=stage.classifier().duplicate().to(device).eval() if Need.MODEL in needs else None,
        _clean=own_copy(stage.clean).to(device) if Need.CLEAN_DATA in needs else None,
        _training_data=own_copy(stage.training_data).to(device)
        if Need.TRAINING_DATA in needs and stage.training_data is not None
        else None,
        _recipe=setup.recipe if Need.RETRAIN in needs else None,
        _new_model=new_model if Need.RETRAIN in needs else None,
        _features=features.to(device) if Need.FEATURES in needs and features is not None else None,
    )
