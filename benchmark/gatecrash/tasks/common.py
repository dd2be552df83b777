"""What the three tasks share: the ground of a grid, the training set with its hold-out, and the model and training factories."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor

from gatecrash import training
from gatecrash.attack import Backdoor, Goal
from gatecrash.classifier import Classifier, Network
from gatecrash.data import ImageSet, Splits
from gatecrash.errors import ContractError
from gatecrash.holdout import HoldoutConfig, cut
from gatecrash.host import Host
from gatecrash.model import Model
from gatecrash.portable import rebuild
from gatecrash.randomness import Streams, stream
from gatecrash.recipe import Recipe
from gatecrash.results import Stage
from gatecrash.store import StoredVictim
from gatecrash.triggers import Trigger

Report = Callable[[Mapping[str, Any]], None]
"""Progress of a task, for the live view: epoch, epochs, loss, images_per_second, seconds_left, or a note."""

PREPARED = 256
"""Most images that a fresh network is prepared with: patches enough for their covariance."""


@dataclass(frozen=True)
class Ground:
    """What all tasks of a grid share. JSON-able."""

    dataset: str
    model: Stage
    recipe: dict[str, Any]
    holdout: dict[str, Any]
    device: str | None = None
    threads: int = 1

    def streams(self, purpose: str, seed: int) -> Streams:
        """Initialisation and batch order: the same for every attack, so that cells pair."""
        return Streams(purpose, self.dataset, self.model.name, self.recipe, seed)


@dataclass(frozen=True)
class TrainPart:
    """The dataset without its test split: all that implanting and defending may touch."""

    train: ImageSet
    clean: ImageSet | None
    groups: Tensor | None
    flip: bool

    @classmethod
    def of(cls, splits: Splits) -> TrainPart:
        return cls(splits.train, splits.clean, splits.groups, splits.flip)

    def cut(self, ground: Ground, seed: int) -> tuple[ImageSet, ImageSet]:
        """(training set, clean hold-out) of this seed."""
        nothing = ImageSet(self.train.images[:0], self.train.labels[:0], self.train.classes)
        splits = Splits(self.train, nothing, self.clean, self.groups, self.flip)
        generator = stream("hold-out", ground.dataset, ground.holdout, seed)
        return cut(splits, HoldoutConfig.model_validate(ground.holdout), generator)


def classifier_state(victim: StoredVictim) -> dict[str, Tensor]:
    """The classifier's tensors among the victim's."""
    prefix = "classifier."
    return {name.removeprefix(prefix): tensor for name, tensor in victim.weights.items() if name.startswith(prefix)}


def classifier_of(victim: StoredVictim) -> Classifier:
    """The victim's classifier on the CPU, without its triggers."""
    classifier = rebuild(victim.record["classifier"], classifier_state(victim))
    if not isinstance(classifier, Classifier):
        raise ContractError(f"the stored victim is a {type(classifier).__name__}, not a Classifier")
    return classifier


def network_of(victim: StoredVictim, device: torch.device) -> Network:
    classifier = classifier_of(victim)
    if not isinstance(classifier, Network):
        raise ContractError(f"the benign victim is a {type(classifier).__name__}, not a Network")
    return classifier.to(device)


def model_factory(host: Host, ground: Ground, data: ImageSet, device: torch.device) -> Callable[[int], Network]:
    """A function seed -> fresh network, normalised by the statistics of `data`."""
    model = host.get("model", ground.model.name).configure(ground.model.config)
    return network_factory(model, data, device)


def network_factory(model: Model, data: ImageSet, device: torch.device) -> Callable[[int], Network]:
    """A function seed -> fresh network of `model`, normalised by the statistics of `data` and prepared with images spread over it."""
    statistics = cache(partial(channel_statistics, data.images))  # takes a pass over the data: not for defenses that train nothing

    def make(seed: int) -> Network:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            backbone = model.build(data.num_classes, data.shape)
        network = Network(backbone, *statistics())
        backbone.prepare(network.normalise(data.images[:: math.ceil(len(data.images) / PREPARED) or 1].cpu()))
        return network.to(device)

    return make


def channel_statistics(images: Tensor) -> tuple[list[float], list[float]]:
    """Mean and deviation per channel of uint8 [N, C, H, W], in [0, 1] units, from exact integer counts; rounded to 6 digits."""
    means, deviations = [], []
    values = torch.arange(256, dtype=torch.float64) / 255
    for channel in range(images.shape[1]):
        counts = torch.bincount(images[:, channel].flatten().int(), minlength=256).cpu().double()
        mean = (counts * values).sum() / counts.sum()
        spread = ((counts * (values - mean) ** 2).sum() / counts.sum()).sqrt()
        means.append(round(float(mean), 6))
        deviations.append(round(max(float(spread), 1e-3), 6))
    return means, deviations


def trainer(
    new_model: Callable[[], Network],
    recipe: Recipe,
    streams: Streams,
    flip: bool,
    device: torch.device,
    report: Report,
    histories: list[training.History],
) -> Callable[..., Network]:
    """The `Train` of a context: the engine with this run's recipe, streams and device set."""

    def fit(data: Any, *, network: Network | None = None, recipe: Recipe = recipe, on_batch: Any = None, loss: Any = None) -> Network:
        model = new_model() if network is None else network
        history = training.train(
            model,
            data.images,
            data.labels,
            recipe,
            streams=streams,
            flip=flip,
            device=device,
            on_batch=on_batch,
            loss=loss,
            report=lambda progress: report(asdict(progress)),
        )
        histories.append(history)
        return model

    return fit


def tensors_hash(tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(tensors[name].detach().cpu().contiguous().numpy().data)
    return digest.hexdigest()


def device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def backdoors_of(victim: StoredVictim) -> list[Backdoor]:
    """The victim's backdoors with their triggers, rebuilt from the store."""
    found = []
    for index, entry in enumerate(victim.record["backdoors"]):
        prefix = f"trigger.{index}."
        state = {name.removeprefix(prefix): tensor for name, tensor in victim.weights.items() if name.startswith(prefix)}
        trigger = rebuild(entry["trigger"], state)
        if not isinstance(trigger, Trigger):
            raise ContractError(f"the stored trigger is a {type(trigger).__name__}, not a gatecrash.Trigger")
        found.append(Backdoor(entry["name"], Goal(**entry["goal"]), trigger))
    return found
