"""What `make_context` and `make_evidence` give is what a run of the same seed gives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from gatecrash import Attack, Defense, ImageSet, Model, Recipe
from gatecrash.contracts.portable import state_of, tensors_hash
from gatecrash.host.host import Host
from gatecrash.host.loading import load_plugins
from gatecrash.planning.grid import parse_grid
from gatecrash.planning.planned import plan_grid
from gatecrash.records.result import Result
from gatecrash.records.store import Store
from gatecrash.records.victim import StoredVictim
from gatecrash.running.run import run
from gatecrash.running.tasks.defender import DefenderInput
from gatecrash.running.tasks.ground import Ground, TrainPart
from gatecrash.running.tasks.stored import classifier_of, classifier_state
from gatecrash.testing import make_context, make_evidence
from support.grids import SMALL_GRID

SEED = 3

RETRAINING = '''
    import gatecrash
    from gatecrash import Give, Need
    from gatecrash.contracts.portable import state_of, tensors_hash

    class Retraining(gatecrash.Defense):
        """Trains from scratch and tells what came of it."""

        name, summary = "retraining", "trains from scratch"
        needs, gives = frozenset({Need.CLEAN_DATA, Need.TRAINING_DATA, Need.RETRAIN}), frozenset()

        def defend(self, evidence):
            evidence.training_data.images[:10] = 0  # a copy: the normalisation does not change
            fresh = evidence.new_model()
            trained = evidence.train(evidence.training_data)
            told = {"mean": list(fresh.mean), "fresh": tensors_hash(state_of(fresh)), "trained": tensors_hash(state_of(trained))}
            return gatecrash.Outcome(tables={"told": [told]})

    class RetrainingOnClean(Retraining):
        """Trains from scratch on the hold-out."""

        name, needs = "retraining-on-clean", frozenset({Need.CLEAN_DATA, Need.RETRAIN})

        def defend(self, evidence):
            fresh = evidence.new_model()
            trained = evidence.train(evidence.clean, recipe=evidence.recipe.model_copy(update={"epochs": 20}))
            told = {"mean": list(fresh.mean), "fresh": tensors_hash(state_of(fresh)), "trained": tensors_hash(state_of(trained))}
            return gatecrash.Outcome(tables={"told": [told]})

    @gatecrash.hookimpl
    def register_defenses(register):
        register(Retraining)
        register(RetrainingOnClean)
'''


class Ran:
    """A small grid that ran, and what its tasks were made of."""

    def __init__(self, folder: Path, plugin: Path) -> None:
        self.host: Host = load_plugins([plugin])
        grid = parse_grid({**SMALL_GRID, "seeds": [SEED], "defenses": ["none", "retraining", "retraining-on-clean"]})
        planned = plan_grid(grid, self.host)
        plan = planned.plan
        self.store = Store(folder)
        self.results: list[Result] = list(run(grid, self.store, plugins=[plugin]).results.values())
        self.recipe = Recipe.model_validate(plan.recipe)
        self.model: Model = self.host.get("model", plan.model.name).configure(plan.model.config)
        self.ground = Ground(plan.dataset.name, plan.model, plan.recipe, plan.holdout)
        splits = planned.prepared.splits()
        self.data, self.flip = TrainPart.of(splits), splits.flip
        self.train, self.clean = self.data.cut(self.ground, SEED)

    def victim(self, attack: str) -> StoredVictim:
        (key,) = {result.victim_key for result in self.results if result.attack.name == attack}
        victim = self.store.victim(key)
        assert victim is not None
        return victim

    def told(self, attack: str, defense: str) -> dict[str, Any]:
        (result,) = (result for result in self.results if (result.attack.name, result.defense_name) == (attack, defense))
        assert result.error is None
        return result.tables["told"][0]

    def training_data(self, attack: str) -> ImageSet:
        made = DefenderInput.of(self.ground, SEED, self.data, self.victim(attack), with_training_data=True)
        assert made.training_data is not None
        return made.training_data


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    folder = tmp_path_factory.mktemp("ran")
    plugin = folder / "retraining.py"
    plugin.write_text("\n".join(line.removeprefix("    ") for line in RETRAINING.splitlines()))
    return Ran(folder / "store", plugin)


@pytest.mark.parametrize("name", ["none", "badnets"])
def test_a_context_trains_the_victim_of_a_run(ran: Ran, name: str) -> None:
    attack: Attack = ran.host.get("attack", name).configure()
    first, second = (make_context(attack, ran.train, ran.model, recipe=ran.recipe, seed=SEED, flip=ran.flip) for _ in range(2))
    victim = ran.victim(name)
    made = attack.implant(ran.train, first)
    assert tensors_hash(state_of(made.classifier)) == tensors_hash(classifier_state(victim))
    fresh = second.new_model()
    assert tensors_hash(state_of(fresh)) != tensors_hash(classifier_state(victim))
    again = second.train(made.poisoned, network=fresh, recipe=None)
    assert tensors_hash(state_of(again)) == tensors_hash(classifier_state(victim))


@pytest.mark.parametrize("other", [{"seed": SEED + 1}, {"dataset": "cifar10"}])
def test_another_seed_or_dataset_starts_from_other_weights(ran: Ran, other: dict[str, Any]) -> None:
    attack: Attack = ran.host.get("attack", "none").configure()
    settings = {"recipe": ran.recipe, "seed": SEED}
    one, two = (make_context(attack, ran.train, ran.model, **known).new_model() for known in (settings, {**settings, **other}))
    assert not torch.equal(one.head.weight, two.head.weight)
    assert one.mean == two.mean


@pytest.mark.parametrize("name", ["retraining", "retraining-on-clean"])
def test_evidence_retrains_the_model_of_a_run(ran: Ran, name: str) -> None:
    defense: Defense = ran.host.get("defense", name).configure()
    evidence = make_evidence(
        defense,
        classifier_of(ran.victim("badnets")),
        ran.clean,
        training_data=ran.training_data("badnets"),
        model=ran.model,
        recipe=ran.recipe,
        seed=SEED,
        flip=ran.flip,
    )
    assert defense.defend(evidence).tables["told"][0] == ran.told("badnets", name)


def test_a_retrained_model_is_normalised_by_the_data_that_the_defense_may_see(ran: Ran) -> None:
    on_training_data, on_clean = ran.told("badnets", "retraining"), ran.told("badnets", "retraining-on-clean")
    for told, data in ((on_training_data, ran.training_data("badnets")), (on_clean, ran.clean)):
        assert told["mean"] == pytest.approx([float(data.images.double().mean() / 255)], abs=1e-5)
    assert on_training_data["mean"] != on_clean["mean"]


def test_data_and_classifier_are_copies(ran: Ran) -> None:
    defense: Defense = ran.host.get("defense", "fine-pruning").configure()
    victim, clean = classifier_of(ran.victim("none")), ran.clean
    before = clean.images.clone(), tensors_hash(state_of(victim))
    evidence = make_evidence(defense, victim, clean)
    evidence.clean.images.zero_()
    with torch.no_grad():
        evidence.network.head.weight.zero_()
    assert (clean.images.equal(before[0]), tensors_hash(state_of(victim))) == (True, before[1])


def test_a_need_that_cannot_be_met_is_named(ran: Ran) -> None:
    defense: Defense = ran.host.get("defense", "retraining").configure()
    victim = classifier_of(ran.victim("none"))
    with pytest.raises(ValueError, match="retraining needs training_data"):
        make_evidence(defense, victim, ran.clean)
    with pytest.raises(ValueError, match="retraining needs a model to retrain"):
        make_evidence(defense, victim, ran.clean, training_data=ran.train)
