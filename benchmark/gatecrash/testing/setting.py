"""What the checks run on: real digits, small networks, and the victims that all checks of a session share."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache, cached_property
from typing import Literal

import numpy as np
import torch
from torch.nn import functional as F

from gatecrash.contracts.attack import Implant
from gatecrash.contracts.classifier import Network
from gatecrash.contracts.config import Options
from gatecrash.contracts.data import ImageSet, Splits
from gatecrash.contracts.dataset_ref import dataset_references
from gatecrash.contracts.model import Model
from gatecrash.contracts.portable import Portable, rebuild, spec_of, state_of
from gatecrash.contracts.randomness import stream
from gatecrash.contracts.recipe import Recipe, recipe_from
from gatecrash.datasets.holdout import HoldoutConfig, cut
from gatecrash.datasets.sampling import stratified_rows
from gatecrash.datasets.splits import take
from gatecrash.host.host import Host
from gatecrash.host.loading import load_plugins
from gatecrash.process.isolation import fresh_process_state
from gatecrash.testing.builders import make_context
from gatecrash.testing.check import finishing
from gatecrash.testing.small_resnet import SmallResNet

Place = Literal["digits", "colour", "grid", "gpu"]
"""What a plugin is tried on.

`digits`: 60 digits of each class, 16x16 pixels, one channel, and a small net. `colour`: the same with three channels, 20x24 pixels, eight
classes and a residual net. `grid`: all digits as the grid `quickstart` has them, with its recipe, model and hold-out. `gpu`: a
few of `digits`, in small batches.
"""

PER_CLASS = 60
"""Training images per class before the hold-out is cut: victims train in a second."""

MODEL = ("small-cnn", {"width": 8})
RECIPE = recipe_from({"preset": "tiny", "epochs": 8})
GPU_PER_CLASS, GPU_HOLDOUT = 24, 5
GPU_RECIPE = recipe_from({"preset": "tiny", "epochs": 1, "batch_size": 10})
COLOUR_SIZE, COLOUR_CLASSES, TINT = (20, 24), 8, (1.0, 0.7, 0.4)


@dataclass(frozen=True)
class CheckSetup:
    """Training set, clean hold-out and test set, and the model and recipe of the victims. Nothing in it may be changed."""

    place: Place
    train: ImageSet
    clean: ImageSet
    test: ImageSet
    model: Model
    recipe: Recipe
    host: Host

    @cached_property
    def benign(self) -> Network:
        """A victim without a backdoor."""
        return self._victim("none", {}).classifier  # type: ignore[return-value]

    @cached_property
    def backdoored(self) -> Implant:
        """A BadNets victim: one row in ten poisoned."""
        return self._victim("badnets", {"poison_rate": 0.1})

    @property
    def described(self) -> str:
        """The images, as a message names them: `the digits (1x16x16)`."""
        return f"the digits ({'x'.join(map(str, self.train.shape))}){' on a simulated GPU' if self.place == 'gpu' else ''}"

    def _victim(self, attack: str, options: dict[str, float]) -> Implant:
        instance = self.host.get("attack", attack).configure(options)
        with disturbed(0):
            return instance.implant(self.train, make_context(instance, self.train, self.model, recipe=self.recipe))  # type: ignore[no-any-return]


@cache
def setting(place: Place = "digits") -> CheckSetup:
    """The setting of all checks in this process that try a plugin on `place`."""
    host = load_plugins(installed=False)
    splits = host.get("dataset", "digits").configure().load(lambda _done, _total: None)
    name, options = MODEL
    model, recipe = host.get("model", name).configure(options if place != "grid" else {}), RECIPE
    if place == "grid":
        recipe = recipe_from("tiny")
    else:
        rows = stratified_rows(splits.train.labels, [GPU_PER_CLASS if place == "gpu" else PER_CLASS] * 10, stream("checks"))
        splits = take(splits, rows, torch.arange(len(splits.test)))
    if place == "colour":
        splits, model = Splits(_coloured(splits.train), _coloured(splits.test), flip=False), SmallResNet()
    holdout = HoldoutConfig()
    if place == "gpu":
        recipe, holdout = GPU_RECIPE, HoldoutConfig(per_class=GPU_HOLDOUT)
    train, clean = cut(splits, holdout, stream("checks", "hold-out"))
    return CheckSetup(place, train, clean, splits.test, model, recipe, host)


def _coloured(digits: ImageSet) -> ImageSet:
    few = digits.subset(digits.labels < COLOUR_CLASSES)
    grey = F.interpolate(few.images.float(), COLOUR_SIZE, mode="bilinear", align_corners=False)
    images = (grey * torch.tensor(TINT).view(1, 3, 1, 1)).round().to(torch.uint8)
    return ImageSet(images, few.labels, digits.classes[:COLOUR_CLASSES])


@contextmanager
def disturbed(number: int) -> Iterator[None]:
    """Torch's settings as a task finds them, but with the global random generators in a state that depends on `number`.

    A plugin that draws from them gives other results for another number. Everything is put back afterwards, whatever the plugin did.
    """
    with fresh_process_state(torch.get_num_threads()):
        torch.manual_seed(number)
        np.random.seed(number)
        random.seed(number)
        yield


def copied(data: ImageSet) -> ImageSet:
    """The same images in memory of their own."""
    return replace(data, images=data.images.clone(), labels=data.labels.clone())


def stand_ins(config: Options, shared: CheckSetup, device: str = "cpu") -> dict[str, ImageSet]:
    """By option, what the checks give for each data set that the options name: the hold-out, since nothing is downloaded for a check."""
    return {option: copied(shared.clean).to(device) for option in dataset_references(config)}


def same_tensor(one: torch.Tensor | None, other: torch.Tensor | None) -> bool:
    """Whether both hold the same values, NaN being the same as NaN, or neither is there."""
    if one is None or other is None:
        return one is other
    if one.dtype != other.dtype or one.shape != other.shape:
        return False
    return one.equal(other) or (one.is_floating_point() and bool(((one == other) | (one.isnan() & other.isnan())).all()))


def same_data(one: ImageSet, other: ImageSet) -> bool:
    return one.images.equal(other.images) and one.labels.equal(other.labels)


def same_tensors(one: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(same_tensor(tensor, other[name]) for name, tensor in one.items())


def same_module(one: Portable | None, other: Portable | None) -> bool:
    """Whether both have the same configuration and tensors, or neither is there."""
    if one is None or other is None:
        return one is other
    return json.dumps(spec_of(one)) == json.dumps(spec_of(other)) and same_tensors(state_of(one), state_of(other))


def stored(module: Portable, what: str) -> Portable:
    """The module as it comes back from the store; raises CheckFailed where it cannot be stored."""
    mend = "let config() return JSON values and Portables under the names of the constructor's arguments, and give tensors defaults there"
    with finishing(f"storing and rebuilding {what}", mend):
        return rebuild(json.loads(json.dumps(spec_of(module))), state_of(module))
