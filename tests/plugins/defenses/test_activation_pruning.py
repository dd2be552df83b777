"""Activation pruning by hand, and the pruning curve that it shares with Fine-Pruning."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gatecrash import (
    Backbone,
    ContractError,
    ImageSet,
    Network,
    NotApplicable,
    Outcome,
    Point,
    accuracy,
    last_activations,
    mean_activations,
    pruning_curve,
)
from gatecrash.testing import make_evidence
from gatecrash_plugins.defenses.activation_pruning import ActivationPruning
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


def run(network: Network, clean: ImageSet, **options: Any) -> Outcome:
    return defended(ActivationPruning(ActivationPruning.Config(**options)), network, clean)


class TestWhereItStops:
    # Of 20 images, 10 are of class 0, 1 of class 1, 2, 3 and 4 of the others. In increasing order (1, 2, 3, 4) accuracy falls to
    # 0.95, 0.85, 0.70, 0.50; in decreasing order (0, 4, 3, 2) to 0.50, 0.30, 0.15, 0.05.
    clean = one_pixel_per_class((10, 1, 2, 3, 4))

    @pytest.mark.parametrize(
        ("max_drop", "pruned"),
        [(0.02, [1]), (0.05, [1]), (0.06, [1, 2]), (0.15, [1, 2]), (0.16, [1, 2, 3]), (0.3, [1, 2, 3]), (0.5, [1, 2, 3, 4])],
    )
    def test_the_channel_that_brings_accuracy_down_to_the_line_goes_too(self, max_drop: float, pruned: list[int]) -> None:
        assert switched_off(run(one_channel_per_class(), self.clean, max_drop=max_drop)) == pruned

    @pytest.mark.parametrize(("max_drop", "pruned"), [(0.02, [0]), (0.5, [0]), (0.51, [0, 4]), (0.71, [0, 3, 4])])
    def test_decreasing_order_starts_with_the_most_active(self, max_drop: float, pruned: list[int]) -> None:
        assert switched_off(run(one_channel_per_class(), self.clean, order="decreasing", max_drop=max_drop)) == pruned

    @pytest.mark.parametrize("order", ["increasing", "decreasing"])
    def test_ties_go_to_the_lowest_channel(self, order: str) -> None:
        clean = one_pixel_per_class((2, 2, 2, 2, 2))
        assert switched_off(run(one_channel_per_class(), clean, order=order, max_drop=0.4)) == [0, 1]

    def test_the_last_channel_stays_if_accuracy_never_falls_so_far(self) -> None:
        assert switched_off(run(one_channel_per_class(), self.clean, max_drop=1.0)) == [1, 2, 3, 4]

    def test_a_dormant_channel_that_costs_nothing_goes_even_at_zero(self) -> None:
        assert switched_off(run(planted_backdoor(), planted_clean(), max_drop=0.0)) == [4]

    @pytest.mark.parametrize(("activations", "pruned"), [("after-pooling", [2]), ("before-pooling", [0])])
    def test_the_order_is_that_of_the_activations_that_count(self, activations: str, pruned: list[int]) -> None:
        assert switched_off(run(network(Pooled()), spot_and_haze(), activations=activations, max_drop=0.25)) == pruned


class TestBackdoor:
    @pytest.mark.parametrize("shortcut", [False, True])
    def test_increasing_order_removes_a_backdoor_on_a_dormant_channel(self, shortcut: bool) -> None:
        outcome = run(planted_backdoor(shortcut), planted_clean(), max_drop=0.1)
        assert switched_off(outcome) == [1, 3, 4]  # 1 crossed the line
        assert outcome.classifier is not None
        assert planted_asr(outcome.classifier, planted_clean()) == 0.0

    def test_decreasing_order_leaves_it(self) -> None:
        outcome = run(planted_backdoor(), planted_clean(), order="decreasing", max_drop=0.1)
        assert outcome.classifier is not None
        assert planted_asr(outcome.classifier, planted_clean()) == 1.0


class Flat(Backbone):
    """Convolution, BatchNorm, ReLU, pooled and flattened: 40 channels in blocks of four head inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 40, 3, padding=1)
        self.norm = nn.BatchNorm2d(40)
        self.point = Point(40)
        self.head = nn.Linear(160, 3)

    def forward(self, images: Tensor) -> Tensor:
        x = self.point(F.relu(self.norm(self.conv(images))))
        logits: Tensor = self.head(self.between(F.adaptive_avg_pool2d(x, 2).flatten(1)))
        return logits

    def between(self, x: Tensor) -> Tensor:
        return x


class Mixed(Flat):
    """Between point and head, every channel has a say in every head input."""

    def between(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, x.shape[1:])


def random_network(backbone: type[Backbone]) -> tuple[Network, ImageSet]:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        made = Network(backbone(), [0.5], [0.3]).eval()
        images = torch.randint(0, 256, (60, 1, 6, 6), dtype=torch.uint8)
        network_labels = made(images).argmax(1)
        labels = torch.where(torch.arange(60) % 5 > 0, network_labels, (network_labels + 1) % 3)
        return made, ImageSet(images, labels, ("a", "b", "c"))


class TestCurve:
    @pytest.mark.parametrize("backbone", [Flat, Mixed])
    def test_every_point_of_it_is_the_accuracy_of_the_masked_network(self, backbone: type[Backbone]) -> None:
        network, data = random_network(backbone)
        batches = make_evidence(ActivationPruning(), network, data).batches
        order = torch.randperm(40, generator=torch.Generator().manual_seed(0))
        curve = pruning_curve(network, data, order, batches)
        assert len(curve.correct) == 40
        assert len(set(curve.correct)) > 3
        for pruned in range(40):
            network.points["point"].set_mask(curve.mask(pruned))
            assert accuracy(network, data, batches) == curve.accuracy(pruned), f"{pruned} pruned"
            assert int((curve.mask(pruned) == 0).sum()) == pruned

    @pytest.mark.parametrize("backbone", [Flat, Mixed])
    def test_it_leaves_mask_and_mode_as_they_were(self, backbone: type[Backbone]) -> None:
        network, data = random_network(backbone)
        network.points["point"].set_mask(torch.arange(40) % 2)
        network.train()
        before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
        batches = make_evidence(ActivationPruning(), network, data).batches
        curve = pruning_curve(network, data, torch.arange(40), batches)
        assert network.training
        assert network.norms["norm"].training
        assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
        assert torch.equal(curve.mask(0), before["backbone.point.mask"])

    def test_it_passes_the_images_through_the_network_once_whatever_the_number_of_channels(self) -> None:
        network, data = random_network(Flat)
        passed = []
        network.register_forward_hook(lambda _module, inputs, _output: passed.append(len(inputs[0])))
        pruning_curve(network, data, torch.arange(40), make_evidence(ActivationPruning(), network, data).batches)
        assert sum(passed) <= 2 * len(data)

    @pytest.mark.parametrize("order", [[0, 1], [0] * 40])
    def test_an_order_that_is_none_is_refused(self, order: list[int]) -> None:
        network, data = random_network(Flat)
        with pytest.raises(ContractError, match="each of the 40 channels"):
            pruning_curve(network, data, torch.tensor(order), make_evidence(ActivationPruning(), network, data).batches)

    @pytest.mark.parametrize("max_drop", [0.05, 0.2, 0.35])
    def test_the_trajectory_has_32_steps_with_both_ends_and_the_chosen_one(self, max_drop: float) -> None:
        network, data = random_network(Flat)
        outcome = run(network, data, max_drop=max_drop)
        pruned = [int(step.params["pruned"]) for step in outcome.trajectory]
        assert len(pruned) == 32
        assert pruned == sorted(set(pruned))
        assert (pruned[0], pruned[-1]) == (0, 39)
        (chosen,) = [step for step in outcome.trajectory if step.params["chosen"]]
        assert outcome.classifier is not None
        assert torch.equal(chosen.changes["backbone.point.mask"], outcome.classifier.state_dict()["backbone.point.mask"])


def test_mean_activations_are_averages_over_images_and_positions_of_the_size() -> None:
    network = one_channel_per_class((1.0, 1.0, 1.0, 1.0, 3.0))
    clean = one_pixel_per_class((10, 1, 2, 3, 4))
    means = mean_activations(network, clean.images, lambda images: iter(images.split(7)))
    assert means["first"].tolist() == pytest.approx([0.50, 0.05, 0.10, 0.15, 0.20])
    assert means["last"].tolist() == pytest.approx([0.50, 0.05, 0.10, 0.15, 0.60])
    flat, data = random_network(Flat)
    expected = flat.activations(data.images, ["point"])["point"].abs().mean((0, 2, 3))
    assert mean_activations(flat, data.images, lambda images: iter(images.split(7)))["point"].float() == pytest.approx(
        expected.detach(), rel=1e-5
    )


class TestLastActivations:
    @pytest.mark.parametrize(("pooled", "expected"), [(True, [0.55, 0.65, 0.4]), (False, [0.175, 0.65, 0.4])])
    def test_of_one_bright_pixel_by_hand(self, pooled: bool, expected: list[float]) -> None:
        images = spot_and_haze().images
        found = last_activations(network(Pooled()), images, lambda images: iter(images.split(3)), pooled=pooled)
        assert found.tolist() == pytest.approx(expected)

    def test_behind_a_mean_both_are_equal(self) -> None:
        flat, data = random_network(Flat)
        after, before = (
            last_activations(flat, data.images, lambda images: iter(images.split(7)), pooled=pooled) for pooled in (True, False)
        )
        assert after.tolist() == pytest.approx(before.tolist(), rel=1e-5)

    def test_channels_that_are_mixed_on_the_way_have_none_after_pooling(self) -> None:
        mixed, data = random_network(Mixed)
        with pytest.raises(NotApplicable, match="before pooling"):
            run(mixed, data)
        assert run(mixed, data, activations="before-pooling").classifier is not None


def test_on_digits_both_orders_stop_at_the_line(badnets_on_digits: Any) -> None:
    for order in ("increasing", "decreasing"):
        outcome = run(badnets_on_digits.network, badnets_on_digits.clean, order=order, max_drop=0.1)
        table = outcome.tables["pruning"]
        (chosen,) = [int(step.params["pruned"]) for step in outcome.trajectory if step.params["chosen"]]
        line = table[0]["holdout_acc"] - 0.1
        assert table[chosen]["holdout_acc"] <= line + 1e-9 < min(row["holdout_acc"] for row in table[:chosen])
