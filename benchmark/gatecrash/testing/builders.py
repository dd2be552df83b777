"""An attack's context and a defense's evidence, built from a few tensors by the functions that build them in a run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TypedDict, Unpack

import torch

from gatecrash.contracts.attack import Attack, AttackContext
from gatecrash.contracts.classifier import Classifier, Network
from gatecrash.contracts.data import ImageSet
from gatecrash.contracts.defense import Defense
from gatecrash.contracts.evidence import Evidence, Need
from gatecrash.contracts.model import Model
from gatecrash.contracts.outcome import Outcome
from gatecrash.contracts.portable import rebuild, spec_of, state_of
from gatecrash.contracts.recipe import Recipe
from gatecrash.engine.networks import network_factory
from gatecrash.engine.precision import auto_precision
from gatecrash.engine.trainer import TrainingSetup
from gatecrash.running.tasks.given import StageInput, attack_context, evidence_for
from gatecrash.running.tasks.prepare import prepared_by

CPU = torch.device("cpu")


class RunSettings(TypedDict, total=False):
    """What a run has settled before it calls a plugin; each may be left out."""

    dataset: str
    """The dataset's name in the grid, by default `digits`. It chooses a victim's initialisation and batches, together with the seed."""
    seed: int
    """By default 0."""
    recipe: Recipe | None
    """By default one epoch."""
    flip: bool
    """Whether the dataset allows mirroring; by default it does not."""
    device: torch.device
    """By default the CPU."""


def model_factory(model: Model, data: ImageSet, seed: int = 0, device: torch.device = CPU) -> Callable[[], Network]:
    """A function that gives a freshly initialised network for `data`, always the same one."""
    return partial(network_factory(model, data, device), seed)


def make_context(
    attack: Attack,
    train: ImageSet,
    model: Model,
    *,
    benign: Network | None = None,
    datasets: Mapping[str, ImageSet] | None = None,
    **settings: Unpack[RunSettings],
) -> AttackContext:
    """The context that `attack` gets for `train` in a run with these settings (see `RunSettings`): the same streams, networks and batches.

    `train` is the training set without the hold-out; `datasets` are those that options of type `DatasetRef` name, by option. An attack that
    defines `prepare` has it called here.
    """
    setup, prepared = _setup(settings), None
    if attack.prepares():
        made = prepared_by(attack, train, attack_context(attack, train, model, setup, benign, datasets=datasets, purpose="prepare"))
        prepared = None if made is None else rebuild(spec_of(made), state_of(made)).to(setup.device)
    return attack_context(attack, train, model, _setup(settings), benign, prepared, datasets)


def make_evidence(
    defense: Defense,
    classifier: Classifier,
    clean: ImageSet,
    *,
    training_data: ImageSet | None = None,
    model: Model | None = None,
    prior: Outcome | None = None,
    datasets: Mapping[str, ImageSet] | None = None,
    **settings: Unpack[RunSettings],
) -> Evidence:
    """The evidence that `defense` gets in a run with these settings (see `RunSettings`): copies of what its `needs` name, and nothing else.

    Raises ValueError where a need cannot be met from the arguments.
    """
    wants_training_data = bool(defense.needs & {Need.TRAINING_DATA, Need.FEATURES})
    if wants_training_data and training_data is None:
        raise ValueError(f"{defense.name} needs training_data")
    if Need.RETRAIN in defense.needs and model is None:
        raise ValueError(f"{defense.name} needs a model to retrain")
    stage = StageInput(lambda: classifier, clean, training_data if wants_training_data else None, prior=prior)
    return evidence_for(defense, stage, model, _setup(settings), datasets)


def _setup(settings: RunSettings) -> TrainingSetup:
    device = settings.get("device", CPU)
    return TrainingSetup(
        settings.get("dataset", "digits"),
        settings.get("seed", 0),
        settings.get("recipe") or Recipe(epochs=1),
        settings.get("flip", False),
        device,
        auto_precision(device),
    )
