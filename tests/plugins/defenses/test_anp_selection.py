"""How many neurons ANP prunes, chosen without any data that a defender does not have, and what it reports."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from gatecrash import Backbone, ContractError, ImageSet, Network, Neurons
from gatecrash_plugins.defenses import anp
from gatecrash_plugins.defenses.anp import ANP
from support.planted_neurons import clean_data, config, evidence_for, images_of, masks, planted


class TestChoosing:
    def test_threshold_prunes_masks_up_to_and_with_it(self) -> None:
        mask = torch.tensor([0.2, 0.0, 0.21, 0.2, 1.0])
        order = mask.sort(stable=True).indices
        assert anp.choose(mask, order, {"threshold": 0.2}).tolist() == [True, True, False, True, False]
        assert anp.choose(mask, order, {"threshold": 0.0}).tolist() == [False, True, False, False, False]
        assert anp.choose(mask, order, {"threshold": 1.0}).all()

    def test_number_takes_equal_masks_in_network_order_and_no_more_than_there_are(self) -> None:
        mask = torch.tensor([0.2, 0.0, 0.2, 0.2])
        order = mask.sort(stable=True).indices
        assert anp.choose(mask, order, {"number": 0}).sum() == 0
        assert anp.choose(mask, order, {"number": 2}).tolist() == [True, True, False, False]
        assert anp.choose(mask, order, {"number": 99}).all()

    @pytest.mark.parametrize("by", ["threshold", "number"])
    @pytest.mark.parametrize("neurons", [1, 3, 112, 4800])
    def test_candidates_grow_from_least_to_all_within_a_trajectory(self, by: str, neurons: int) -> None:
        cuts = [value for cut in anp.candidates(by, neurons) for value in cut.values()]
        assert cuts == sorted(set(cuts))
        assert len(cuts) <= 32
        assert cuts[0] == 0
        assert cuts[-1] == (1 if by == "threshold" else neurons)

    @pytest.mark.parametrize(
        ("max_drop", "expected"),
        [
            (0.0, [False, True, False]),  # without neuron 1 nothing is lost on clean data
            (0.49, [False, True, False]),
            (0.5, [True, True, True]),  # class 0 wins a tie of zeros: half of the images stay right
        ],
    )
    def test_prunes_most_of_what_max_drop_allows(self, max_drop: float, expected: list[bool]) -> None:
        defense = ANP(config(max_drop=max_drop))
        evidence = evidence_for(defense, planted(), clean_data())
        neurons = Neurons(evidence.network)
        choices = [torch.tensor(choice) for choice in ([False, True, False], [False, True, True], [True, True, True])]
        # Without neurons 1 and 2, class 1 has the activations (0.1, 0, 0.1): a tie at 0 as well, won by class 0.
        accuracies = [anp.accuracy(neurons, choice, evidence.clean, evidence) for choice in choices]
        assert accuracies == [1.0, 0.5, 0.5]
        assert anp.largest(choices, accuracies, 1.0 - max_drop).tolist() == expected

    def test_prunes_nothing_where_every_threshold_costs_too_much(self) -> None:
        assert anp.largest([torch.ones(3, dtype=torch.bool)], [0.5], 1.0).tolist() == [False] * 3

    def test_drop_of_exactly_max_drop_is_allowed(self) -> None:
        """Three of 100 images of class 1: 1 - 0.97 is 0.030000000000000027."""
        labels = torch.tensor([0] * 97 + [1] * 3)
        data = ImageSet(images_of(labels), labels, ("zero", "one"))
        defense = ANP(config(max_drop=0.03))
        evidence = evidence_for(defense, planted(), data)
        everything = torch.ones(3, dtype=torch.bool)
        accuracies = [anp.accuracy(Neurons(evidence.network), everything, evidence.clean, evidence)]
        assert anp.largest([everything], accuracies, 1.0 - 0.03).all()

    def test_the_trajectory_says_what_was_chosen_and_by_which_accuracy(self) -> None:
        outcome = ANP(config()).defend(evidence_for(ANP(config()), planted(), clean_data()))
        steps = [dict(step.params) for step in outcome.trajectory]
        chosen = [step for step in steps if step["chosen"]]
        assert chosen
        assert {step["pruned"] for step in chosen} == {sum(bool(row["pruned"]) for row in outcome.tables["neurons"])}
        assert max(float(step["holdout_drop"]) for step in chosen) <= 0.03
        assert {round(float(step["holdout_acc"]) + float(step["holdout_drop"]), 9) for step in steps} == {1.0}
        fixed = ANP(config(selection="fixed", threshold=0.33)).defend(evidence_for(ANP(config()), planted(), clean_data()))
        assert "holdout_acc" not in fixed.trajectory[0].params

    def test_mask_never_sees_the_images_that_the_threshold_is_chosen_by(self) -> None:
        """Inverting the held-back images changes the choice, but no mask."""
        defense, data = ANP(config()), clean_data()
        evidence = evidence_for(defense, planted(), data)
        numbered = ImageSet(torch.arange(20, dtype=torch.uint8).view(20, 1, 1, 1), data.labels, data.classes)
        held = anp.split(numbered, defense.config.held_back, evidence.stream("split"))[1].images.flatten().long()
        images = data.images.clone()
        images[held] = 255 - images[held]
        other = ImageSet(images, data.labels, data.classes)

        outcomes = [defense.defend(evidence_for(defense, planted(), given)) for given in (data, other)]

        assert masks(outcomes[0]) == masks(outcomes[1])
        pruned = [[row["pruned"] for row in outcome.tables["neurons"]] for outcome in outcomes]
        assert pruned[0] != pruned[1]

    def test_split_is_disjoint_complete_and_by_class(self) -> None:
        labels = torch.tensor([0] * 10 + [1] * 20 + [2])
        images = torch.arange(31, dtype=torch.uint8).view(31, 1, 1, 1)
        data = ImageSet(images, labels, ("a", "b", "c"))
        train, held = anp.split(data, 0.3, torch.Generator().manual_seed(0))
        assert train.class_counts() == (7, 14, 1)
        assert held.class_counts() == (3, 6, 0)
        assert sorted([*train.images.flatten().tolist(), *held.images.flatten().tolist()]) == list(range(31))

    def test_it_is_given_neither_test_data_nor_training_data_to_choose_by(self) -> None:
        defense = ANP(config())
        evidence = evidence_for(defense, planted(), clean_data())
        with pytest.raises(ContractError, match="TRAINING_DATA"):
            _ = evidence.training_data
        assert not {"test", "trigger", "backdoors", "goal"} & set(dir(evidence))


class TestReport:
    @pytest.mark.parametrize("by", ["threshold", "number"])
    def test_every_step_of_the_trajectory_prunes_what_it_says(self, by: str) -> None:
        victim, defense = planted(), ANP(config(by=by))
        outcome = defense.defend(evidence_for(defense, victim, clean_data()))
        before = victim.state_dict()["backbone.norm.weight"]
        for step in outcome.trajectory:
            copy = victim.duplicate()
            assert not copy.load_state_dict(dict(step.changes), strict=False).unexpected_keys
            assert int((copy.state_dict()["backbone.norm.weight"] != before).sum()) == step.params["pruned"]
        assert outcome.trajectory[-1].params["pruned"] == 3

    def test_table_lists_neurons_from_the_smallest_mask(self) -> None:
        defense = ANP(config(rows=2))
        rows = defense.defend(evidence_for(defense, planted(), clean_data())).tables["neurons"]
        assert [row["No."] for row in rows] == [1, 2]
        assert rows[0]["mask"] <= rows[1]["mask"]

    def test_neurons_of_several_layers_keep_their_layer_and_number(self) -> None:
        class TwoNorms(Backbone):
            def __init__(self) -> None:
                super().__init__()
                self.one, self.two = nn.BatchNorm2d(1), nn.BatchNorm2d(2)
                self.head = nn.Linear(2, 2)

        neurons = Neurons(Network(TwoNorms(), [0.0], [1.0]).eval())
        mask = torch.tensor([0.5, 0.9, 0.1])
        rows = anp.table(neurons, mask, mask.sort().indices, torch.tensor([False, False, True]))
        assert [(row["layer"], row["neuron"], row["pruned"]) for row in rows] == [("two", 1, True), ("one", 0, False), ("two", 0, False)]
        assert list(neurons.pruned(torch.tensor([False, False, True]))) == ["backbone.two.weight"]


def test_fixed_threshold_uses_the_whole_hold_out() -> None:
    defense = ANP(config(selection="fixed", threshold=0.5))
    evidence = evidence_for(defense, planted(), clean_data())
    expected = defense.train_mask(Neurons(evidence.network), evidence.clean, evidence)
    outcome = defense.defend(evidence)
    for row in outcome.tables["neurons"]:
        assert row["mask"] == pytest.approx(float(expected[row["neuron"]]), abs=1e-4)
        assert row["pruned"] == (float(expected[row["neuron"]]) <= 0.5)
