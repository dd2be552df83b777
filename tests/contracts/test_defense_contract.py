"""The Defense contract, proved with awkward defenses: what they may see, what they must return, and chains of them."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Any

import pytest
import torch
from pydantic import Field
from torch import Tensor

from gatecrash import (
    Classifier,
    Config,
    ContractError,
    Defense,
    Evidence,
    Give,
    ImageSet,
    Model,
    Need,
    NotApplicable,
    Outcome,
    Recipe,
    Step,
    hookimpl,
)
from gatecrash.contracts.portable import rebuild, spec_of, state_of
from gatecrash.evaluation.exam import evaluate
from gatecrash.host.host import Host
from gatecrash.records.stage import Stage
from gatecrash.running.tasks.defend import defend
from gatecrash.running.tasks.defender import DefenderInput, DefenseOutput
from gatecrash.running.tasks.features import Features, features
from gatecrash.running.tasks.ground import Ground
from support.five_channels import COUNTS, Tiny
from support.planted_networks import one_channel_per_class, one_pixel_per_class


class Suspicious(Defense):
    """Suspects the given rows of what it sees, most of all the last one."""

    name = "suspicious"
    summary = "suspects given rows"
    needs = frozenset({Need.TRAINING_DATA})
    gives = frozenset({Give.SUSPECTS})

    class Config(Config):
        """Rows."""

        rows: list[int] = Field(description="rows to suspect")

    def defend(self, evidence: Evidence) -> Outcome:
        count = len(evidence.training_data)
        suspects = torch.zeros(count, dtype=torch.bool)
        suspects[self.config.rows] = True
        return Outcome(suspects=suspects, suspicion=torch.arange(count).float())


class Purifier(Defense):
    """Switches off channel 0 and tells what it was given."""

    name = "purifier"
    summary = "switches off one channel"
    needs = frozenset({Need.MODEL, Need.CLEAN_DATA, Need.TRAINING_DATA})
    gives = frozenset({Give.CLASSIFIER})

    def defend(self, evidence: Evidence) -> Outcome:
        suspects = None if evidence.prior is None or evidence.prior.suspects is None else evidence.prior.suspects.tolist()
        pixels = evidence.training_data.images.flatten(1).argmax(1).tolist()
        mask = evidence.network.points["last"].mask.clone()
        start = mask.tolist()
        mask[0] = 0
        evidence.network.points["last"].set_mask(mask)
        seen = {"start": start, "pixels": pixels, "prior_suspects": suspects, "clean": len(evidence.clean)}
        return Outcome(
            classifier=evidence.classifier,
            trajectory=[Step({"channel": 0}, {"backbone.last.mask": mask})],
            figures={"black": torch.zeros(1, 2, 2, dtype=torch.uint8)},
            tables={"seen": [seen]},
        )


class Scribbler(Defense):
    """Overwrites everything that it can reach, and hands nothing back."""

    name = "scribbler"
    summary = "scribbles on its evidence"
    needs = frozenset({Need.MODEL, Need.CLEAN_DATA, Need.TRAINING_DATA})
    gives = frozenset()

    def defend(self, evidence: Evidence) -> Outcome:
        with torch.no_grad():
            for tensor in evidence.classifier.state_dict().values():
                tensor.zero_()
        for data in (evidence.clean, evidence.training_data):
            data.images.zero_()
            data.labels.zero_()
        return Outcome()


class FromScratch(Defense):
    """A training-time defense: trains on the suspicious data and never sees the victim."""

    name = "from-scratch"
    summary = "retrains"
    needs = frozenset({Need.TRAINING_DATA, Need.RETRAIN})
    gives = frozenset({Give.CLASSIFIER})

    def defend(self, evidence: Evidence) -> Outcome:
        for hidden in ("classifier", "network", "clean"):
            with pytest.raises(ContractError):
                getattr(evidence, hidden)
        fresh = evidence.new_model()
        start = fresh.head.weight.clone()
        trained = evidence.train(evidence.training_data, network=fresh)
        another = evidence.train(evidence.training_data)
        table = [{"epochs": evidence.recipe.epochs, "learnt": not torch.equal(start, trained.head.weight)}]
        assert not torch.equal(trained.head.weight, another.head.weight)
        return Outcome(classifier=trained, tables={"training": table})


class Reader(Defense):
    """Tells the features that it was given, and scribbles on them."""

    name = "reader"
    summary = "reads features"
    needs = frozenset({Need.FEATURES})
    gives = frozenset()

    def defend(self, evidence: Evidence) -> Outcome:
        seen = evidence.features.tolist()
        evidence.features.zero_()
        return Outcome(tables={"seen": [{"features": seen}]})


class RejectsWhite(Classifier):
    """The wrapped classifier, and class K for images whose first pixel is white."""

    def __init__(self, inner: Classifier) -> None:
        super().__init__()
        self.inner, self.num_classes = inner, inner.num_classes

    def config(self) -> dict[str, Any]:
        return {"inner": self.inner}

    def forward(self, images: Tensor) -> Tensor:
        reject = (images[:, 0, 0, :1] == 255).float() * 200 - 100
        return torch.cat([self.inner(images), reject], 1)


class Rejecter(Defense):
    """Rejects all images of class 0."""

    name = "rejecter"
    summary = "rejects white first pixels"
    needs = frozenset({Need.MODEL})
    gives = frozenset({Give.CLASSIFIER, Give.REJECT})

    def defend(self, evidence: Evidence) -> Outcome:
        return Outcome(classifier=RejectsWhite(evidence.classifier))


class PromiseBreaker(Defense):
    """Declares suspects and gives none."""

    name = "promise-breaker"
    summary = "breaks its promise"
    needs = frozenset({Need.TRAINING_DATA})
    gives = frozenset({Give.SUSPECTS})

    def defend(self, evidence: Evidence) -> Outcome:
        return Outcome()


class Presumptuous(Defense):
    """Trains from scratch and does not say so."""

    name = "presumptuous"
    summary = "retrains without having declared it"
    needs = frozenset({Need.TRAINING_DATA})
    gives = frozenset({Give.CLASSIFIER})

    def defend(self, evidence: Evidence) -> Outcome:
        return Outcome(classifier=evidence.train(evidence.training_data, recipe=Recipe(epochs=1)))


class Flavour(StrEnum):
    """A type that only this file knows."""

    SWEET = "sweet"


class Flavoured(Defense):
    """Gives names and values of its own type."""

    name = "flavoured"
    summary = "has types of its own"
    needs = frozenset({Need.MODEL})
    gives = frozenset({Give.CLASSIFIER})

    def defend(self, evidence: Evidence) -> Outcome:
        step = Step({"taste": Flavour.SWEET}, {})
        table = [{Flavour.SWEET: Flavour.SWEET}]
        return Outcome(classifier=evidence.classifier, trajectory=[step], tables={Flavour.SWEET: table})


class Inline:
    @hookimpl
    def register_defenses(self, register: Callable[[type[Defense]], None]) -> None:
        for cls in (Suspicious, Purifier, Scribbler, FromScratch, Rejecter, PromiseBreaker, Presumptuous, Flavoured, Reader):
            register(cls)

    @hookimpl
    def register_models(self, register: Callable[[type[Model]], None]) -> None:
        register(Tiny)


def run(
    *stages: tuple[str, dict[str, Any]], defender_input: DefenderInput | None = None, features: Features | None = None
) -> DefenseOutput:
    """The chain as a grid runs it, on six training images: one of each class 0 to 4 and one more of class 4."""
    host = Host()
    host.add(Inline(), "inline")  # type: ignore[arg-type]
    assert not host.problems
    ground = Ground("fingerprint", Stage(name="tiny"), Recipe(epochs=30, lr=0.3, crop=0).model_dump(mode="json"), {})
    named = [Stage(name=name, config=options) for name, options in stages]
    return defend(host, ground, named, 0, defender_input or make_input(), lambda _: None, features)


def make_input() -> DefenderInput:
    victim = one_channel_per_class()
    return DefenderInput(spec_of(victim), state_of(victim), one_pixel_per_class(COUNTS), one_pixel_per_class((1, 1, 1, 1, 2)), flip=False)


def classifier_of(outcome: DefenseOutput) -> Classifier:
    assert outcome.spec is not None
    made = rebuild(outcome.spec, outcome.state)
    assert isinstance(made, Classifier)
    return made


class TestChain:
    def test_the_purifier_sees_the_training_set_without_the_suspects_and_the_outcome_before(self) -> None:
        outcome = run(("suspicious", {"rows": [0, 2]}), ("purifier", {}))
        assert outcome.tables["seen"] == [
            {"start": [1.0] * 5, "pixels": [1, 3, 4, 4], "prior_suspects": [True, False, True, False, False, False], "clean": 20}
        ]
        assert outcome.suspects is not None
        assert outcome.suspects.tolist() == [True, False, True, False, False, False]

    def test_suspects_of_a_later_stage_are_mapped_back_to_the_original_rows(self) -> None:
        outcome = run(("suspicious", {"rows": [0, 2]}), ("suspicious", {"rows": [1]}))
        assert outcome.suspects is not None
        assert outcome.suspicion is not None
        assert outcome.suspects.tolist() == [True, False, True, True, False, False]
        # The second stage scored rows 1, 3, 4 and 5; those removed before rank above all of them.
        assert outcome.suspicion.tolist() == [4, 0, 4, 1, 2, 3]

    def test_a_stage_gets_the_last_classifier_and_steps_refer_to_what_it_was_given(self) -> None:
        outcome = run(("purifier", {}), ("purifier", {}))
        assert outcome.tables["seen"][0]["start"] == [0.0, 1, 1, 1, 1]
        assert outcome.steps_state["backbone.last.mask"].tolist() == [0, 1, 1, 1, 1]
        assert classifier_of(outcome).state_dict()["backbone.last.mask"].tolist() == [0, 1, 1, 1, 1]

    def test_a_detector_alone_leaves_the_victim(self) -> None:
        outcome = run(("suspicious", {"rows": [5]}))
        assert outcome.spec is None
        assert outcome.steps_spec is None

    def test_a_purifier_cannot_reach_inside_a_rejecting_classifier(self) -> None:
        with pytest.raises(NotApplicable, match="RejectsWhite"):
            run(("rejecter", {}), ("purifier", {}))

    def test_a_broken_promise_fails_the_cell(self) -> None:
        with pytest.raises(ContractError, match="declares SUSPECTS"):
            run(("promise-breaker", {}), ("purifier", {}))


class TestFeatures:
    """Channel c of the hand-built network is 1 for an image of class c, and 0 for all others."""

    def seen(self, *stages: tuple[str, dict[str, Any]], features: Features | None = None) -> list[list[float]]:
        rows: list[list[float]] = run(*stages, features=features).tables["seen"][0]["features"]
        return rows

    def test_they_are_the_heads_input_for_the_rows_of_the_training_set(self) -> None:
        made = features(Ground("fingerprint", Stage(name="tiny"), {}, {}, "cpu"), make_input(), lambda _: None)
        assert made.values.tolist() == [[float(c == label) for c in range(5)] for label in (0, 1, 2, 3, 4, 4)]
        assert made.seconds > 0
        assert self.seen(("reader", {})) == made.values.tolist()

    def test_those_computed_before_are_used_and_charged(self) -> None:
        shared = Features(torch.arange(30.0).view(6, 5), seconds=1000.0)
        outcome = run(("reader", {}), features=shared)
        assert outcome.tables["seen"][0]["features"] == torch.arange(30.0).view(6, 5).tolist()
        assert outcome.seconds > 1000
        assert shared.values.sum() == 435, "a defense gets a copy"

    def test_a_later_stage_sees_the_rows_that_are_left(self) -> None:
        shared = Features(torch.arange(30.0).view(6, 5), seconds=0.0)
        assert self.seen(("suspicious", {"rows": [0, 2]}), ("reader", {}), features=shared) == shared.values[[1, 3, 4, 5]].tolist()

    def test_after_a_stage_that_changed_the_classifier_they_are_computed_anew(self) -> None:
        shared = Features(torch.arange(30.0).view(6, 5), seconds=0.0)
        assert self.seen(("purifier", {}), ("reader", {}), features=shared)[:2] == [[0, 0, 0, 0, 0], [0, 1, 0, 0, 0]]

    def test_a_classifier_that_is_no_network_has_none(self) -> None:
        with pytest.raises(NotApplicable, match="RejectsWhite, whose penultimate activations cannot be reached"):
            run(("rejecter", {}), ("reader", {}))


def test_a_defense_cannot_change_what_others_get() -> None:
    given = make_input()
    assert given.training_data is not None
    outcome = run(("scribbler", {}), ("purifier", {}), defender_input=given)
    untouched = make_input()
    assert untouched.training_data is not None
    assert outcome.tables["seen"][0]["pixels"] == [0, 1, 2, 3, 4, 4]
    assert all(torch.equal(given.state[name], tensor) for name, tensor in untouched.state.items())
    for mine, original in ((given.clean, untouched.clean), (given.training_data, untouched.training_data)):
        assert torch.equal(mine.images, original.images)
        assert torch.equal(mine.labels, original.labels)


def test_figures_tables_and_steps_are_kept() -> None:
    outcome = run(("purifier", {}))
    assert outcome.figures["black"].shape == (1, 2, 2)
    assert outcome.tables["seen"][0]["clean"] == 20
    ((params, changes),) = outcome.steps
    assert params == {"channel": 0}
    assert changes["backbone.last.mask"].tolist() == [0, 1, 1, 1, 1]
    assert outcome.holdout_size == 20
    assert outcome.seconds > 0


def test_a_training_time_defense_trains_from_scratch_and_never_sees_the_victim() -> None:
    outcome = run(("from-scratch", {}))
    assert outcome.tables["training"] == [{"epochs": 30, "learnt": True}]
    assert not torch.equal(outcome.state["backbone.head.weight"], make_input().state["backbone.head.weight"])


def test_training_from_scratch_that_was_not_declared_fails_the_cell_and_names_the_need() -> None:
    with pytest.raises(ContractError, match=r"Need\.RETRAIN is not in the defense's `needs`"):
        run(("presumptuous", {}))


def test_an_outcome_travels_without_types_of_the_plugin() -> None:
    """The worker that evaluates it may not have loaded the plugin's file."""
    outcome = run(("flavoured", {}))
    (name,) = outcome.tables
    ((params, _),) = outcome.steps
    values = [name, *outcome.tables[name][0], *outcome.tables[name][0].values(), *params.values()]
    assert values == ["sweet"] * 4
    assert {type(value) for value in values} == {str}


def test_a_rejected_image_is_wrong_and_counted() -> None:
    classifier = classifier_of(run(("rejecter", {})))
    test: ImageSet = one_pixel_per_class((5, 5, 5, 3, 2))
    scores = evaluate(classifier, test, [], device="cpu")
    assert scores.acc == 0.75
    assert scores.clean_reject_rate == 0.25
