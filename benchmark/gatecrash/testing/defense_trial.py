"""One defense at work on a backdoored and on a benign victim, for its checks."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

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
from gatecrash.testing.builders import RunSettings, make_evidence
from gatecrash.testing.check import finishing, require
from gatecrash.testing.class_checks import Announcement
from gatecrash.testing.recorded import recorded
from gatecrash.testing.setting import CheckSetup, Place, copied, disturbed, same_data, setting, stand_ins
from gatecrash.testing.trial import Case, Trial, mend_run


@dataclass(frozen=True)
class DefenseRun:
    """What one run of a defense left behind."""

    outcome: Outcome
    given: Classifier
    """The victim, as it was before."""
    changed: tuple[str, ...]
    """What the defense changed of the data that it was given."""
    reads: frozenset[Need]
    """Which of its needs it made use of."""


class DefenseTrial(Trial[DefenseRun]):
    """One defense and its runs on the shared victims."""

    plugin: Defense

    @property
    def training_data(self) -> ImageSet:
        return _training_data(self.setting)

    @property
    def outcome(self) -> Outcome:
        return self.work.outcome

    def prepare(self, shared: CheckSetup) -> None:
        shared.backdoored  # noqa: B018 - made on demand

    def make(self, case: Case, shared: CheckSetup) -> DefenseRun:
        """A fresh instance at work on the backdoored victim, given what `needs` names and nothing else."""
        defense = type(self.plugin)(case.config if case.config is not None else self.plugin.config)
        victim, training_data = shared.backdoored.classifier, _training_data(shared)
        settings = RunSettings(recipe=shared.recipe, seed=case.seed, device=torch.device(case.device))
        datasets = stand_ins(defense.config, shared)
        given = make_evidence(defense, victim, shared.clean, training_data=training_data, model=shared.model, datasets=datasets, **settings)
        evidence = recorded(given)
        with finishing(f"defend() on {shared.described}", mend_run), disturbed(case.noise):
            outcome: object = defense.defend(evidence)
        require(isinstance(outcome, Outcome), "defend() to return a gatecrash.Outcome", type(outcome).__name__, "return Outcome(...)")
        assert isinstance(outcome, Outcome)
        reads = frozenset(evidence.reads)  # before the lines below read on
        kept = {
            "hold-out": Need.CLEAN_DATA not in defense.needs or same_data(evidence.clean.to("cpu"), shared.clean),
            "training set": Need.TRAINING_DATA not in defense.needs or same_data(evidence.training_data.to("cpu"), training_data),
        }
        return DefenseRun(outcome, victim, tuple(what for what, same in kept.items() if not same), reads)

    def cell(self, place: Place = "digits") -> DefenseOutput:
        """What the defend task of a grid makes of the benign victim. A defense that fails on the backdoored one is not tried again."""
        self.work  # noqa: B018 - raises what went wrong in it
        return self.once(f"cell on {place}", lambda: self._cell(setting(place)))

    def _cell(self, shared: CheckSetup) -> DefenseOutput:
        defense, host = self.plugin, Host()
        host.add(Announcement(type(defense), type(shared.model)), "the checks")  # type: ignore[arg-type]
        model = Stage(name=shared.model.name, config=shared.model.config.model_dump(mode="json"))
        ground = Ground("digits", model, shared.recipe.model_dump(), {}, "cpu", torch.get_num_threads())
        training_data = copied(shared.train) if defense.needs & {Need.TRAINING_DATA, Need.FEATURES} else None
        given = DefenderInput(spec_of(shared.benign), state_of(shared.benign), copied(shared.clean), training_data, flip=False)
        datasets = stand_ins(defense.config, shared)
        content = {option: f"{DATASET}{option}" for option in datasets}
        stage = Stage(name=defense.name, config=defense.config.model_dump(mode="json"), content=content)
        with finishing("the defend task on a benign victim, which is a row of every grid,", mend_run), disturbed(1):
            return defend(host, ground, [stage], 0, given, no_report, datasets=datasets)


def _training_data(shared: CheckSetup) -> ImageSet:
    return shared.backdoored.poisoned.as_image_set(shared.train.classes)


@lru_cache(maxsize=2)
def trial(defense: Defense) -> DefenseTrial:
    return DefenseTrial(defense)
