"""One attack at work on the digits, for its checks."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from torch import Tensor

from gatecrash.contracts.attack import Attack, DatasetInfo
from gatecrash.contracts.classifier import Classifier
from gatecrash.contracts.data import ImageSet, Poisoned
from gatecrash.contracts.portable import state_of
from gatecrash.testing.builders import RunSettings, make_context
from gatecrash.testing.check import finishing
from gatecrash.testing.setting import CheckSetup, copied, disturbed, same_data, same_tensors, setting, stand_ins
from gatecrash.testing.trial import Case, Trial, mend_run

SAMPLE = 48
"""Test images that a trigger is tried on."""


@dataclass(frozen=True)
class AttackRun:
    """What one run of an attack left behind."""

    poisoned: Poisoned
    classifier: Classifier | None
    """None where the attack only changes data, and nothing was trained."""
    sample: Poisoned | None
    """What a defender would hold of an attack that controls training, if anything."""
    train_kept: bool
    benign_kept: bool


class AttackTrial(Trial[AttackRun]):
    """One attack and its runs."""

    plugin: Attack

    @property
    def train(self) -> ImageSet:
        return self.setting.train

    @property
    def poisoned(self) -> Poisoned:
        return self.work.poisoned

    @property
    def images(self) -> Tensor:
        """uint8 [SAMPLE, C, H, W]: a copy of test images, for triggers."""
        return self.setting.test.images[:SAMPLE].clone()

    @property
    def trains(self) -> bool:
        """Whether the attack has a say in training."""
        return type(self.plugin).implant is not Attack.implant

    @property
    def gpu_case(self) -> Case:
        return replace(super().gpu_case, data_device="cpu")

    def prepare(self, shared: CheckSetup) -> None:
        if self.plugin.needs_benign:
            shared.benign  # noqa: B018 - made on demand

    def check_place(self, case: Case) -> None:
        """Raises UserError where the attack says, when a grid is planned, that its options do not suit these images."""
        train = setting(case.place).train
        self._attack(case).check(DatasetInfo("digits", train.classes, train.shape, train.class_counts()))

    def make(self, case: Case, shared: CheckSetup) -> AttackRun:
        """A fresh instance at work on a copy of the training set."""
        attack, device = self._attack(case), case.device
        train = copied(shared.train).to(case.data_device or device)
        benign = shared.benign.duplicate().to(device) if attack.needs_benign else None
        settings = RunSettings(recipe=shared.recipe, seed=case.seed, device=torch.device(device))
        datasets = stand_ins(attack.config, shared, device)
        classifier, sample = None, None
        train_victim = case.train_victim or self.trains
        with finishing(f"{'implant()' if train_victim else 'poison()'} on {shared.described}", mend_run):
            self.check_place(case)
            with disturbed(case.noise):
                context = make_context(attack, train, shared.model, benign=benign, datasets=datasets, **settings)
                if train_victim:
                    implant = attack.implant(train, context)
                    poisoned, classifier, sample = implant.poisoned, implant.classifier, implant.sample
                else:
                    poisoned = attack.poison(train, context)
        benign_kept = benign is None or same_tensors(state_of(benign), state_of(shared.benign))
        return AttackRun(poisoned, classifier, sample, same_data(train.to("cpu"), shared.train), benign_kept)

    def _attack(self, case: Case) -> Attack:
        return type(self.plugin)(case.config if case.config is not None else self.plugin.config)


@lru_cache(maxsize=2)
def trial(attack: Attack) -> AttackTrial:
    return AttackTrial(attack)
