"""Fine-Pruning: the three selection rules by hand, fine-tuning, and planted backdoors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from gatecrash import Classifier, ImageSet, Network, NotApplicable, Outcome, accuracy
from gatecrash.evaluation.steps import evaluate_steps
from gatecrash.host.loading import load_plugins
from gatecrash.testing import make_evidence
from gatecrash_plugins.defenses.fine_pruning import FinePruning
from support.defending import defended, switched_off
from support.planted_networks import (
    Pooled,
    network,
    one_channel_per_class,
    one_pixel_per_class,
    planted_asr,
    planted_backdoor,
    planted_clean,
    spot_and_haze,
)


def run(network: Classifier, clean: ImageSet, **options: Any) -> Outcome:
    return defended(FinePruning(FinePruning.Config(**options)), network, clean)


def state(classifier: Classifier | None) -> dict[str, Tensor]:
    assert classifier is not None
    return {name: tensor.clone() for name, tensor in classifier.state_dict().items()}


class TestLastConvolution:
    # Of 20 images, 10 are of class 0, 1 of class 1, 2, 3 and 4 of the others: pruned in the order 1, 2, 3, 4, accuracy falls
    # from 1 to 0.95, 0.85, 0.70 and 0.50.
    clean = one_pixel_per_class((10, 1, 2, 3, 4))

    @pytest.mark.parametrize(
        ("max_drop", "pruned"),
        [(0.0, []), (0.04, []), (0.05, [1]), (0.14, [1]), (0.15, [1, 2]), (0.3, [1, 2, 3]), (0.49, [1, 2, 3]), (1.0, [1, 2, 3, 4])],
    )
    def test_prunes_until_the_holdout_has_lost_more_than_max_drop(self, max_drop: float, pruned: list[int]) -> None:
        assert switched_off(run(one_channel_per_class(), self.clean, max_drop=max_drop, epochs=0)) == pruned

    def test_the_curve_is_a_table_of_holdout_accuracies(self) -> None:
        rows = run(one_channel_per_class(), self.clean, epochs=0).tables["pruning"]
        assert [row["channel"] for row in rows] == [None, 1, 2, 3, 4]
        assert [row["holdout_acc"] for row in rows] == [1.0, 0.95, 0.85, 0.70, 0.50]
        assert [row["mean_activation"] for row in rows[1:]] == pytest.approx([0.05, 0.10, 0.15, 0.20])

    def test_the_trajectory_marks_the_step_that_was_chosen(self) -> None:
        outcome = run(one_channel_per_class(), self.clean, max_drop=0.15, epochs=0)
        assert [(step.params["pruned"], step.params["chosen"]) for step in outcome.trajectory] == [(0, 0), (1, 0), (2, 1), (3, 0), (4, 0)]
        assert torch.equal(outcome.trajectory[2].changes["backbone.last.mask"], torch.tensor([1.0, 0, 0, 1, 1]))

    def test_the_evaluation_scores_the_steps_of_the_trajectory(self) -> None:
        network = one_channel_per_class()
        outcome = run(network, self.clean, epochs=0)
        scored = evaluate_steps(network, outcome.trajectory, self.clean, device="cpu")
        assert [step.scores.acc for step in scored] == [step.params["holdout_acc"] for step in outcome.trajectory]

    def test_ties_go_to_the_lowest_channel(self) -> None:
        clean = one_pixel_per_class((2, 2, 2, 2, 2))
        assert switched_off(run(one_channel_per_class(), clean, max_drop=0.4, epochs=0)) == [0, 1]

    def test_channels_that_an_earlier_stage_switched_off_stay_off(self) -> None:
        network = one_channel_per_class()
        network.points["last"].set_mask(torch.tensor([1.0, 1, 1, 1, 0]))
        outcome = run(network, self.clean, max_drop=0.05, epochs=0)
        assert switched_off(outcome) == [1, 4]  # 4 is dead already and costs nothing more
        assert outcome.tables["pruning"][0]["holdout_acc"] == 0.8

    @pytest.mark.parametrize(("options", "pruned", "order"), [({}, [2], [2, 0]), ({"activations": "before-pooling"}, [], [0, 2])])
    def test_pooling_by_maximum_lifts_a_channel_that_is_bright_in_one_place(
        self, options: dict[str, Any], pruned: list[int], order: list[int]
    ) -> None:
        """Without channel 2 a quarter of the hold-out is lost, without channel 0 half of it."""
        outcome = run(network(Pooled()), spot_and_haze(), max_drop=0.25, epochs=0, **options)
        assert switched_off(outcome) == pruned
        assert [row["channel"] for row in outcome.tables["pruning"][1:]] == order

    def test_masks_are_those_of_a_loop_over_the_channels(self, badnets_on_digits: Any) -> None:
        """The published rule restated: measure the head's input, then switch off one channel after the other."""
        victim, clean = badnets_on_digits.network, badnets_on_digits.clean
        features = victim.features(clean.images)
        last = list(victim.points)[-1]
        channels = victim.points[last].channels
        order = np.argsort(features.view(len(features), channels, -1).mean((0, 2)).tolist(), kind="stable")
        mask, right = torch.ones(channels), []
        for channel in [None, *order]:
            if channel is not None:
                mask[channel] = 0
            kept = features * mask.repeat_interleave(features.shape[1] // channels)
            right.append(int((victim.head(kept).argmax(1) == clean.labels).sum()))
        allowed = right[0] - 0.1 * len(clean)
        expected = next(number for number, hits in enumerate(right) if hits < allowed) - 1
        assert switched_off(run(victim, clean, max_drop=0.1, epochs=0), last) == sorted(order[:expected].tolist())


class TestThreshold:
    # Mean activations at the first point: 0.50, 0.05, 0.10, 0.15, 0.20, their mean 0.20; at the last one, with gain 20 on channel 1:
    # 0.50, 1.00, 0.10, 0.15, 0.20, their mean 0.39.
    clean = one_pixel_per_class((10, 1, 2, 3, 4))
    gains = (1.0, 20.0, 1.0, 1.0, 1.0)

    @pytest.mark.parametrize(
        ("threshold", "first", "last"),
        [
            (0.0, [], []),
            (0.6, [1, 2], [2, 3, 4]),
            (0.75, [1, 2], [2, 3, 4]),  # 0.15 is on the line, 0.75 x 0.20, though not in float64
            (0.8, [1, 2, 3], [2, 3, 4]),
            (1.5, [1, 2, 3, 4], [0, 2, 3, 4]),
            (2.0, [1, 2, 3, 4], [0, 2, 3, 4]),
        ],
    )
    def test_prunes_below_the_multiple_of_each_layers_mean(self, threshold: float, first: list[int], last: list[int]) -> None:
        outcome = run(one_channel_per_class(self.gains), self.clean, threshold=threshold, epochs=0)
        assert (switched_off(outcome, "first"), switched_off(outcome, "last")) == (first, last)

    @pytest.mark.parametrize("each", [1, 2, 3, 7])
    def test_channels_on_the_line_stay(self, each: int) -> None:
        assert switched_off(run(one_channel_per_class(), one_pixel_per_class((each,) * 5), threshold=1.0, epochs=0)) == []

    def test_a_layer_of_equal_channels_keeps_one(self) -> None:
        outcome = run(one_channel_per_class(), one_pixel_per_class((2, 2, 2, 2, 2)), threshold=2.0, epochs=0)
        assert switched_off(outcome) == [1, 2, 3, 4]

    def test_the_trajectory_goes_over_thresholds_from_0_to_2(self) -> None:
        outcome = run(one_channel_per_class(), self.clean, threshold=0.75, epochs=0)
        assert len(outcome.trajectory) == 22
        assert [step.params for step in outcome.trajectory if step.params["chosen"]] == [{"threshold": 0.75, "pruned": 4, "chosen": 1}]
        assert set(outcome.trajectory[0].changes) == {"backbone.first.mask", "backbone.last.mask"}
        assert [row["pruned"] for row in outcome.tables["points"]] == [2, 2]


class TestFraction:
    clean = one_pixel_per_class((10, 1, 2, 3, 4))

    @pytest.mark.parametrize(("fraction", "pruned"), [(0.0, []), (0.39, [1]), (0.4, [1, 2]), (0.6, [1, 2, 3]), (0.99, [1, 2, 3, 4])])
    def test_prunes_the_weakest_of_every_layer(self, fraction: float, pruned: list[int]) -> None:
        outcome = run(one_channel_per_class(), self.clean, fraction=fraction, epochs=0)
        assert switched_off(outcome, "first") == switched_off(outcome, "last") == pruned

    def test_ties_go_to_the_lowest_channel(self) -> None:
        assert switched_off(run(one_channel_per_class(), one_pixel_per_class((2, 2, 2, 2, 2)), fraction=0.4, epochs=0)) == [0, 1]


class TestBackdoor:
    @pytest.mark.parametrize("shortcut", [False, True], ids=["plain", "with a shortcut past the last convolution"])
    @pytest.mark.parametrize("epochs", [0, 3])
    def test_a_backdoor_on_a_dormant_channel_is_removed(self, shortcut: bool, epochs: int) -> None:
        network, clean = planted_backdoor(shortcut), planted_clean()
        assert planted_asr(network, clean) == 1.0
        outcome = run(network, clean, max_drop=0.04, epochs=epochs)
        assert switched_off(outcome) == [3, 4]
        assert outcome.classifier is not None
        assert planted_asr(outcome.classifier, clean) == 0.0
        assert float((outcome.classifier(clean.images).argmax(1) == clean.labels).float().mean()) == 1.0

    def test_masking_the_convolution_that_a_shortcut_passes_by_would_not_remove_it(self) -> None:
        network, clean = planted_backdoor(shortcut=True), planted_clean()
        network.points["branch"].set_mask(torch.tensor([1.0, 1, 1, 0, 1]))
        assert planted_asr(network, clean) == 1.0

    def test_fine_tuning_alone_leaves_a_channel_that_clean_images_do_not_use(self) -> None:
        network, clean = planted_backdoor(), planted_clean()
        assert planted_asr(run(network, clean, prune=False, epochs=3).classifier or network, clean) == 1.0


class TestFineTuning:
    clean = one_pixel_per_class((10, 1, 2, 3, 4))

    def test_without_pruning_it_is_training_on_the_holdout_and_nothing_else(self) -> None:
        defense = FinePruning(FinePruning.Config(prune=False, epochs=2, lr=0.1))
        outcome = defended(defense, one_channel_per_class(), self.clean)
        evidence = make_evidence(defense, one_channel_per_class(), self.clean)
        expected = evidence.train(evidence.clean, network=evidence.network, recipe=defense.recipe)
        assert state(outcome.classifier).keys() == expected.state_dict().keys()
        assert all(torch.equal(value, expected.state_dict()[name]) for name, value in state(outcome.classifier).items())
        assert not torch.equal(expected.head.weight, one_channel_per_class().head.weight)
        assert not outcome.trajectory

    def test_options_are_the_recipe(self) -> None:
        recipe = FinePruning(FinePruning.Config(epochs=7, lr=0.003, batch_size=16, weight_decay=0.1, crop=2, flip=False)).recipe
        assert (recipe.epochs, recipe.lr, recipe.batch_size, recipe.weight_decay, recipe.crop, recipe.flip) == (7, 0.003, 16, 0.1, 2, False)

    def test_pruned_channels_stay_off_while_the_rest_learns(self) -> None:
        pruned = run(one_channel_per_class(), self.clean, max_drop=0.15, epochs=0)
        tuned = run(one_channel_per_class(), self.clean, max_drop=0.15, epochs=3, lr=0.5)
        assert switched_off(tuned) == switched_off(pruned) == [1, 2]
        assert isinstance(tuned.classifier, Network)
        assert tuned.classifier.activations(self.clean.images, ["last"])["last"][:, [1, 2]].abs().max() == 0
        assert not torch.equal(tuned.classifier.head.weight, one_channel_per_class().head.weight)

    def test_a_network_pruned_too_far_to_recover_is_a_result(self) -> None:
        outcome = run(one_channel_per_class(), self.clean, threshold=2.0, epochs=1, lr=1e-4)
        assert switched_off(outcome) == [1, 2, 3, 4]
        assert outcome.tables["summary"] == [{"holdout_acc_before": 1.0, "holdout_acc_pruned": 0.5}]

    def test_the_victim_is_left_as_it_was(self) -> None:
        network = one_channel_per_class()
        before = state(network)
        run(network, self.clean, max_drop=0.15, epochs=1)
        assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


class TestOptions:
    @pytest.mark.parametrize(
        ("options", "select"),
        [
            ({}, "last-conv"),
            ({"threshold": 1.0}, "threshold"),
            ({"fraction": 0.1}, "fraction"),
            ({"max_drop": 0.1}, "last-conv"),
            ({"activations": "before-pooling"}, "last-conv"),
        ],
    )
    def test_the_rule_is_the_one_whose_option_is_given(self, options: dict[str, float], select: str) -> None:
        config = FinePruning.Config.model_validate(options)
        assert config.select == select
        assert FinePruning.Config.model_validate(config.model_dump(mode="json")) == config

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"select": "last-conv", "threshold": 1.0}, "threshold has no effect"),
            ({"threshold": 0.5, "fraction": 0.5}, "no effect"),
            ({"threshold": 0.5, "max_drop": 0.5}, "max_drop has no effect"),
            ({"threshold": 0.5, "activations": "before-pooling"}, "activations has no effect"),
            ({"prune": False, "epochs": 0}, "does nothing"),
            ({"threshold": 2.5}, "less than or equal to 2"),
        ],
    )
    def test_options_without_effect_are_refused(self, options: dict[str, Any], message: str) -> None:
        with pytest.raises(ValidationError, match=message):
            FinePruning.Config.model_validate(options)

    def test_it_is_found_by_name(self) -> None:
        assert load_plugins(installed=False).get("defense", "fine-pruning").cls is FinePruning


class Opaque(Classifier):
    """A classifier without an inside."""

    num_classes = 6

    def forward(self, images: Tensor) -> Tensor:
        return torch.zeros(len(images), 6)


def test_it_does_not_apply_to_a_classifier_whose_inside_cannot_be_reached() -> None:
    with pytest.raises(NotApplicable, match="Opaque"):
        run(Opaque(), one_pixel_per_class((1, 1, 1, 1, 1)))


def test_on_digits_it_prunes_within_the_allowed_drop_and_fine_tuning_recovers(badnets_on_digits: Any) -> None:
    victim, clean = badnets_on_digits.network, badnets_on_digits.clean
    defense = FinePruning(FinePruning.Config(max_drop=0.1, epochs=5))
    evidence = make_evidence(defense, victim, clean)
    outcome = defense.defend(evidence)
    (summary,) = outcome.tables["summary"]
    assert 0 < summary["holdout_acc_before"] - summary["holdout_acc_pruned"] <= 0.1
    assert outcome.classifier is not None
    assert accuracy(outcome.classifier, badnets_on_digits.test, evidence.batches) > summary["holdout_acc_pruned"]
    assert badnets_on_digits.asr(outcome.classifier) < badnets_on_digits.asr(victim) - 0.2
