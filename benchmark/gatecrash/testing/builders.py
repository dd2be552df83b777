"""An attack's context and a defense's evidence, built from a few tensors.

The same engine, streams and guards as in a grid run; nothing is stubbed.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch

from gatecrash.contracts.attack import Attack, AttackContext
from gatecrash.contracts.classifier import Classifier, Network
from gatecrash.contracts.data import ImageSet
from gatecrash.contracts.defense import Defense
from gatecrash.contracts.evidence import Evidence, Need, no_retraining
from gatecrash.contracts.model import Model
from gatecrash.contracts.outcome import Outcome
from gatecrash.contracts.randomness import Streams
from gatecrash.contracts.recipe import Recipe
from gatecrash.engine import batching
from gatecrash.engine.networks import network_factory
from gatecrash.engine.trainer import trainer
from gatecrash.running.tasks.features import penultimate

CPU = torch.device("cpu")


def model_factory(model: Model, data: ImageSet, seed: int = 0, device: torch.device = CPU) -> Callable[[], Network]:
    """A function that gives a freshly initialised network for `data`, always the same one."""
    return partial(network_factory(model, data, device), seed)


def make_context(
    attack: Attack,
    train: ImageSet,
    model: Model,
    *,
    recipe: Recipe | None = None,
    seed: int = 0,
    benign: Network | None = None,
    flip: bool = False,
    device: torch.device = CPU,
) -> AttackContext:
    """The context that `attack` would get for `train` in a run with this seed."""
    recipe = recipe or Recipe(epochs=1)
    make = model_factory(model, train, seed, device)
    streams = Streams("victim", "test", model.name, seed)
    return AttackContext(
        classes=train.classes,
        shape=train.shape,
        recipe=recipe,
        device=device,
        stream=Streams("attack", attack.name, seed),
        new_model=make,
        batches=partial(batching.batches, device=device),
        train=trainer(make, recipe, streams, flip, device, lambda _: None, []),
        benign=benign,
    )


def make_evidence(
    defense: Defense,
    classifier: Classifier,
    clean: ImageSet,
    *,
    training_data: ImageSet | None = None,
    model: Model | None = None,
    recipe: Recipe | None = None,
    seed: int = 0,
    flip: bool = False,
    prior: Outcome | None = None,
    device: torch.device = CPU,
) -> Evidence:
    """The evidence that `defense` would get: what its `needs` name, and nothing else.

    Raises ValueError where a need cannot be met from the arguments.
    """
    needs = frozenset(defense.needs)
    wants_features = Need.FEATURES in needs
    if (Need.TRAINING_DATA in needs or wants_features) and training_data is None:
        raise ValueError(f"{defense.name} needs training_data")
    if Need.RETRAIN in needs and model is None:
        raise ValueError(f"{defense.name} needs a model to retrain")
    recipe = recipe or Recipe(epochs=1)
    streams = Streams("defense", defense.name, seed)
    make = model_factory(model, clean, streams.seed("init"), device) if model is not None and Need.RETRAIN in needs else no_retraining
    batches = partial(batching.batches, device=device)
    known = None
    if wants_features and training_data is not None:
        known = penultimate(classifier.duplicate().to(device).eval(), training_data.images, batches)
    return Evidence(
        needs=needs,
        classes=clean.classes,
        shape=clean.shape,
        device=device,
        stream=streams,
        train=trainer(make, recipe, streams, flip, device, lambda _: None, []),
        batches=batches,
        flip=flip,
        prior=prior,
        _classifier=classifier.duplicate().to(device).eval() if Need.MODEL in needs else None,
        _clean=clean.to(device) if Need.CLEAN_DATA in needs else None,
        _training_data=training_data.to(device) if Need.TRAINING_DATA in needs and training_data is not None else None,
        _recipe=recipe if Need.RETRAIN in needs else None,
        _new_model=make if Need.RETRAIN in needs else None,
        _features=known,
    )
