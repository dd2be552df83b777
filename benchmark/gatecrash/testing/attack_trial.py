"""One attack at work on the digits, for its checks."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from gatecrash.contracts.attack import Attack, DatasetInfo
from gatecrash.contracts.classifier import Classifier
from gatecrash.contracts.data import ImageSet, Poisoned
from gatecrash.contracts.portable import state_of
from gatecrash.testing.builders import make_context
from gatecrash.testing.check import finishing
from gatecrash.testing.setting import copied, disturbed, same_data, same_tensors, stand_ins
from gatecrash.testing.trial import Trial

SAMPLE = 48
"""Test images that a trigger is tried on."""


@dataclass(frozen=True)
class AttackRun:
    """What one run of an attack left behind."""

    poisoned: Poisoned
    classifier: Classifier | None
    """None where the attack only changes data, and nothing was trained."""
    train_kept: bool
    benign_kept: bool


class AttackTrial(Trial[AttackRun]):
    """One attack and its runs."""

    def __init__(self, attack: Attack) -> None:
        self.attack = attack
        super().__init__()

    @property
    def train(self) -> ImageSet:
        return self.setting.train

    def make(self, number: int) -> AttackRun:
        return self.run(self.attack.config, number)

    @property
    def poisoned(self) -> Poisoned:
        return self.work.poisoned

    @property
    def images(self) -> Tensor:
        """uint8 [SAMPLE, C, H, W]: a copy of test images, for triggers."""
        return self.setting.test.images[:SAMPLE].clone()

    def run(self, config: Any, number: int = 1, device: str = "cpu", train_victim: bool | None = None) -> AttackRun:
        """A fresh instance at work on a copy of the training set, with global random generators in a state given by `number`.

        A victim is trained if the attack has a say in that, or `train_victim`.
        """
        attack = type(self.attack)(config)
        train = copied(self.train).to(device)
        benign = self.setting.benign.duplicate().to(device) if attack.needs_benign else None
        info = DatasetInfo("digits", train.classes, train.shape, train.class_counts())
        if train_victim is None:
            train_victim = type(attack).implant is not Attack.implant
        classifier: Classifier | None = None
        step = "implant()" if train_victim else "poison()"
        with finishing(
            f"{step} on the digits", "read the traceback (`--debug`, or pytest); give the checks options that suit 16x16 images"
        ):
            attack.check(info)
            with disturbed(number):
                context = make_context(
                    attack,
                    train,
                    self.setting.model,
                    recipe=self.setting.recipe,
                    benign=benign,
                    datasets={option: data.to(device) for option, data in stand_ins(config).items()},
                    device=torch.device(device),
                )
                if train_victim:
                    implant = attack.implant(train, context)
                    poisoned, classifier = implant.poisoned, implant.classifier
                else:
                    poisoned = attack.poison(train, context)
        benign_kept = benign is None or same_tensors(state_of(benign), state_of(self.setting.benign))
        return AttackRun(poisoned, classifier, same_data(train.to("cpu"), self.train), benign_kept)


@lru_cache(maxsize=2)
def trial(attack: Attack) -> AttackTrial:
    return AttackTrial(attack)
