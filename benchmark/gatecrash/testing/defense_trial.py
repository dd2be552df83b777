"""One defense at work on a backdoored and on a benign victim, for its checks."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache

import torch

from gatecrash.contracts.classifier import Classifier
from gatecrash.contracts.data import ImageSet
from gatecrash.contracts.defense import Defense
from gatecrash.contracts.evidence import Need
from gatecrash.contracts.outcome import Outcome
from gatecrash.contracts.portable import spec_of, state_of
from gatecrash.engine.trainer import no_report
from gatecrash.host.host import Host
from gatecrash.records.stage import DATASET, Stage
from gatecrash.running.tasks.defend import defend
from gatecrash.running.tasks.defender import DefenderInput, DefenseOutput
from gatecrash.running.tasks.ground import Ground
from gatecrash.testing.builders import make_evidence
from gatecrash.testing.check import finishing
from gatecrash.testing.class_checks import Announcement
from gatecrash.testing.setting import MODEL, copied, disturbed, same_data, stand_ins
from gatecrash.testing.trial import Trial


@dataclass(frozen=True)
class DefenseRun:
    """What one run of a defense left behind."""

    outcome: Outcome
    given: Classifier
    """The victim, as it was before."""
    changed: tuple[str, ...]
    """What the defense changed of the data that it was given."""


class DefenseTrial(Trial[DefenseRun]):
    """One defense and its runs on the shared victims."""

    def __init__(self, defense: Defense) -> None:
        self.defense = defense
        super().__init__()

    @cached_property
    def training_data(self) -> ImageSet:
        return self.setting.backdoored.poisoned.as_image_set(self.setting.train.classes)

    def make(self, number: int) -> DefenseRun:
        return self.run(number)

    @property
    def outcome(self) -> Outcome:
        return self.work.outcome

    def run(self, number: int, device: str = "cpu") -> DefenseRun:
        """A fresh instance at work on the backdoored victim, given what `needs` names and nothing else."""
        defense, shared = type(self.defense)(self.defense.config), self.setting
        victim = shared.backdoored.classifier
        evidence = make_evidence(
            defense,
            victim,
            shared.clean,
            training_data=self.training_data,
            model=shared.model,
            recipe=shared.recipe,
            datasets=stand_ins(defense.config),
            device=torch.device(device),
        )
        mend = "read the traceback (`--debug`, or pytest); a method that cannot apply to a network raises gatecrash.NotApplicable"
        with finishing("defend() on the digits", mend), disturbed(number):
            outcome = defense.defend(evidence)
        kept = {
            "hold-out": Need.CLEAN_DATA not in defense.needs or same_data(evidence.clean.to("cpu"), shared.clean),
            "training set": Need.TRAINING_DATA not in defense.needs or same_data(evidence.training_data.to("cpu"), self.training_data),
        }
        return DefenseRun(outcome, victim, tuple(what for what, same in kept.items() if not same))

    @cached_property
    def cell(self) -> DefenseOutput:
        """What the defend task of a grid makes of the benign victim."""
        defense, shared = self.defense, self.setting
        host = Host()
        host.add(Announcement(type(defense), type(shared.model)), "the checks")  # type: ignore[arg-type]
        name, options = MODEL
        model_stage = Stage(name=name, config=dict(options))
        ground = Ground("digits", model_stage, shared.recipe.model_dump(), {}, "cpu", torch.get_num_threads())
        training_data = copied(shared.train) if defense.needs & {Need.TRAINING_DATA, Need.FEATURES} else None
        given = DefenderInput(spec_of(shared.benign), state_of(shared.benign), copied(shared.clean), training_data, flip=False)
        datasets = stand_ins(defense.config)
        content = {option: f"{DATASET}{option}" for option in datasets}
        stage = Stage(name=defense.name, config=defense.config.model_dump(mode="json"), content=content)
        mend = "read the traceback (`--debug`, or pytest); a benign victim is a row of every grid"
        with finishing("the defend task on a benign victim", mend), disturbed(1):
            return defend(host, ground, [stage], 0, given, no_report, datasets=datasets)


@lru_cache(maxsize=2)
def trial(defense: Defense) -> DefenseTrial:
    return DefenseTrial(defense)
