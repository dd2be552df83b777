"""Reconstructive neuron pruning: ascent and masks by hand, what may change in the victim, and a backdoor of the digits."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from gatecrash import Evidence, ImageSet, Network, Neurons, NotApplicable, Recipe
from gatecrash.contracts.portable import rebuild, spec_of, state_of
from gatecrash.testing import make_evidence
from gatecrash_plugins.defenses.rnp import RNP, THRESHOLDS, clipped
from support.planted_neurons import NoNeurons, OneNeuron, clean_data, planted, sigmoid


def evidence_for(defense: RNP, network: Network, data: ImageSet, seed: int = 0) -> Evidence:
    return make_evidence(defense, network, data, seed=seed, recipe=Recipe(epochs=1, precision="float32", crop=0))


def rnp(**options: Any) -> RNP:
    return RNP(RNP.Config.model_validate({"epoch_images": 20, **options}))


def defended(defense: RNP, victim: Network | None = None) -> tuple[Network, Any]:
    victim = unsure() if victim is None else victim
    outcome = defense.defend(evidence_for(defense, victim, clean_data()))
    outcome.check(RNP.gives, None, 2)
    return victim, outcome


def unsure(norm: bool = True) -> Network:
    """The planted net with a head a tenth as large, whose loss on clean images has a gradient."""
    network: Network = planted(norm)
    with torch.no_grad():
        network.head.weight.mul_(0.1)
    return network


def two_pixels() -> ImageSet:
    return ImageSet(torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1), torch.ones(2).long(), ("0", "1"))


def test_the_first_step_of_the_masks_by_hand() -> None:
    """Batch statistics make the pixels 0 and 1 to -s and s, so that z = 1 -+ 2 s m, and L = mean log(1 + e^z) for class 1."""
    defense = rnp(recover_epochs=1, recover_lr=0.1, alpha=0.2, epoch_images=2)
    evidence = evidence_for(defense, Network(OneNeuron(), [0.0], [1.0]).eval(), two_pixels())
    mask = defense.recover(Neurons(evidence.network), evidence.clean, evidence)
    s = 0.5 / math.sqrt(0.25 + 1e-5)
    gradient = (2 * s * sigmoid(1 + 2 * s) - 2 * s * sigmoid(1 - 2 * s)) / 2
    assert mask.tolist() == pytest.approx([1 - 0.1 * 0.2 * gradient], rel=1e-5)


@pytest.mark.parametrize("lr", [0.2, 50.0])
def test_masks_stay_in_the_unit_interval(lr: float) -> None:
    _, outcome = defended(rnp(recover_lr=lr))
    assert all(0 <= row["mask"] <= 1 for row in outcome.tables["neurons"])


@pytest.mark.parametrize("size", [0.5, 1000.0])
def test_gradients_are_clipped_once_there_are_any(size: float) -> None:
    """The authors' code clips before the backward pass, when all gradients are still empty."""
    network = planted()
    optimizer = torch.optim.SGD(network.parameters(), lr=1.0)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss: Tensor = size * network.head.bias.sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    before = network.head.bias.detach().clone()
    nothing = torch.empty(0)
    clipped(20.0)(network, optimizer, closure, nothing, nothing, nothing)
    moved = float((network.head.bias.detach() - before).norm())
    assert moved == pytest.approx(min(20.0, size * 2**0.5), rel=1e-4)


def test_unlearning_goes_up_the_loss_and_stops_at_the_accuracy() -> None:
    defense = rnp(unlearn_lr=0.5)
    evidence = evidence_for(defense, unsure(), clean_data())
    unlearned, epochs = defense.unlearn(evidence.network, evidence)
    accuracies = [epoch["train_acc"] for epoch in epochs]
    assert accuracies[0] == 1.0  # of the victim, before its first step
    assert accuracies[-1] <= 0.2 < min(accuracies[:-1])
    assert not unlearned.training


def test_unlearning_ends_after_its_epochs_and_slows_down_after_ten() -> None:
    defense = rnp(unlearn_epochs=13, unlearn_lr=1e-6)
    evidence = evidence_for(defense, planted(), clean_data())
    _, epochs = defense.unlearn(evidence.network, evidence)
    assert [epoch["lr"] for epoch in epochs] == pytest.approx([1e-6] * 10 + [1e-7] * 3)
    assert [epoch["train_acc"] for epoch in epochs] == [1.0] * 13


def test_an_epoch_is_500_images() -> None:
    data = clean_data()
    assert RNP().passes(data) == 25
    assert RNP(RNP.Config(epoch_images=5)).passes(data) == 1


@pytest.mark.parametrize("norm", [True, False])
def test_it_is_the_victim_that_is_pruned_and_nothing_else_of_it_changes(norm: bool) -> None:
    """Not the unlearned copy: every weight but those of pruned neurons is the victim's."""
    victim, outcome = defended(rnp(unlearn_lr=0.5, selection="fixed", threshold=0.999), unsure(norm))
    gone = [row["neuron"] for row in outcome.tables["neurons"] if row["pruned"]]
    assert gone
    before, after = victim.state_dict(), outcome.classifier.state_dict()
    name = "backbone.norm.weight" if norm else "backbone.conv.weight"
    expected = before[name].clone()
    expected[gone] = 0
    assert torch.equal(after[name], expected)
    assert all(torch.equal(after[other], tensor) for other, tensor in before.items() if other != name)
    assert not outcome.classifier.training


def test_the_pruned_network_survives_storage() -> None:
    victim, outcome = defended(rnp(unlearn_lr=0.5, selection="fixed", threshold=0.999))
    images = clean_data().images
    copy = rebuild(spec_of(outcome.classifier), state_of(outcome.classifier))
    assert torch.equal(copy(images), outcome.classifier(images))
    assert not torch.equal(copy(images), victim(images))


def test_the_rule_takes_the_largest_threshold_whose_hold_out_accuracy_is_kept() -> None:
    _, outcome = defended(rnp(unlearn_lr=0.5, max_drop=0.0))
    kept = [step.params["pruned"] for step in outcome.trajectory if step.params["holdout_acc"] == 1.0]
    chosen = {step.params["pruned"] for step in outcome.trajectory if step.params["chosen"]}
    assert chosen == {max(kept)}
    assert [step.params["threshold"] for step in outcome.trajectory] == list(THRESHOLDS)
    data = clean_data()
    assert outcome.classifier(data.images).argmax(1).equal(data.labels)


def test_equal_seeds_give_equal_masks() -> None:
    first, again = (defended(rnp(unlearn_lr=0.3, batch_size=4))[1].tables["neurons"] for _ in range(2))
    assert first == again


def test_a_linear_model_is_not_applicable() -> None:
    defense = rnp()
    with pytest.raises(NotApplicable, match="neither a BatchNorm nor a convolution"):
        defense.defend(evidence_for(defense, Network(NoNeurons(), [0.0], [1.0]).eval(), clean_data()))


def test_on_the_digits_it_keeps_the_accuracy_of_the_hold_out(badnets_on_digits: Any) -> None:
    victim, defense = badnets_on_digits, RNP()
    outcome = defense.defend(make_evidence(defense, victim.network, victim.clean))
    outcome.check(defense.gives, None, victim.clean.num_classes)
    before, after = (share_right(network, victim.clean) for network in (victim.network, outcome.classifier))
    assert after >= before - 0.03 - 1e-9
    assert outcome.tables["unlearning"][-1]["train_acc"] <= 0.2


def share_right(network: Any, data: ImageSet) -> float:
    with torch.no_grad():
        return float((network(data.images).argmax(1) == data.labels).double().mean())
