"""What the checks run on: some of the real digits, a small network, and two victims that all checks of a session share."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache, cached_property

import numpy as np
import torch

from gatecrash.contracts.attack import Implant
from gatecrash.contracts.classifier import Network
from gatecrash.contracts.config import Options
from gatecrash.contracts.data import ImageSet
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

PER_CLASS = 60
"""Training images per class before the hold-out is cut: victims train in a second."""

MODEL = ("small-cnn", {"width": 8})
RECIPE = recipe_from({"preset": "tiny", "epochs": 8})


@dataclass(frozen=True)
class CheckSetup:
    """Training set, clean hold-out and test set, and the model and recipe of the victims. Nothing in it may be changed."""

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

    def _victim(self, attack: str, options: dict[str, float]) -> Implant:
        instance = self.host.get("attack", attack).configure(options)
        with disturbed(0):
            return instance.implant(self.train, make_context(instance, self.train, self.model, recipe=self.recipe))  # type: ignore[no-any-return]


@cache
def setting() -> CheckSetup:
    """The setting of all checks in this process."""
    host = load_plugins(installed=False)
    splits = host.get("dataset", "digits").configure().load(lambda _done, _total: None)
    rows = stratified_rows(splits.train.labels, [PER_CLASS] * 10, stream("checks"))
    train, clean = cut(take(splits, rows, torch.arange(len(splits.test))), HoldoutConfig(), stream("checks", "hold-out"))
    name, options = MODEL
    return CheckSetup(train, clean, splits.test, host.get("model", name).configure(options), RECIPE, host)


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


def stand_ins(config: Options) -> dict[str, ImageSet]:
    """By option, what the checks give for each data set that the options name: the hold-out, since nothing is downloaded for a check."""
    return {option: copied(setting().clean) for option in dataset_references(config)}


def same_data(one: ImageSet, other: ImageSet) -> bool:
    return one.images.equal(other.images) and one.labels.equal(other.labels)


def same_tensors(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(tensor.equal(other[name]) for name, tensor in one.items())


def same_module(one: Portable | None, other: Portable | None) -> bool:
    """Whether both hold the same tensors, or neither is there."""
    if one is None or other is None:
        return one is other
    return same_tensors(state_of(one), state_of(other))


def stored(module: Portable, what: str) -> Portable:
    """The module as it comes back from the store; raises CheckFailed where it cannot be stored."""
    mend = "let config() return JSON values and Portables under the names of the constructor's arguments, and give tensors defaults there"
    with finishing(f"storing and rebuilding {what}", mend):
        return rebuild(json.loads(json.dumps(spec_of(module))), state_of(module))
