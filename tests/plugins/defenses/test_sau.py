"""SAU: divergence and losses by hand, what the search may do to an image, and a run on the digits."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from gatecrash.testing import make_evidence
from gatecrash_plugins.defenses.sau import SAU, divergence, search_loss, unlearning
from support.planted_neurons import clean_data, planted


def answers(*rows: tuple[float, ...]) -> Tensor:
    """Logits of these probabilities."""
    return torch.tensor(rows).log()


def test_models_that_agree_do_not_diverge() -> None:
    logits = torch.randn(50, 10, generator=torch.Generator().manual_seed(0)) * 5
    assert not bool(divergence(logits, logits.clone()).any())


def test_the_divergence_by_hand() -> None:
    certain, other = torch.tensor([[100.0, 0.0]]), torch.tensor([[0.0, 100.0]])
    assert float(divergence(certain, other)) == pytest.approx(math.log(2), abs=1e-5)
    # p = (3/4, 1/4), q = (1/4, 3/4), middle = (1/2, 1/2): KL of both to the middle, the same
    expected = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    assert float(divergence(answers((0.75, 0.25)), answers((0.25, 0.75)))) == pytest.approx(expected)


CLASSES = {"labels": torch.tensor([0]), "victim_own": torch.tensor([0])}


@pytest.mark.parametrize("fooled", [1, 2])
def test_unlearning_lowers_the_class_that_the_victim_is_fooled_into(fooled: int) -> None:
    student = answers((0.25, 0.5, 0.25)).requires_grad_()
    loss = unlearning(student, **CLASSES, victim_fooled=torch.tensor([fooled]))
    assert loss.item() == pytest.approx(-math.log(0.5 if fooled == 1 else 0.75), abs=1e-5)
    (slope,) = torch.autograd.grad(loss, student)
    assert (slope > 0).tolist() == [[c == fooled for c in range(3)]]


def test_the_loss_is_nothing_where_the_victim_is_right_or_says_what_it_said() -> None:
    student = answers((0.1, 0.8, 0.1), (0.1, 0.8, 0.1)).requires_grad_()
    labels, own = torch.tensor([1, 0]), torch.tensor([0, 1])  # it gets the first right, and the second as wrong as before
    loss = unlearning(student, labels, own, torch.tensor([1, 1]))
    assert loss.item() == 0
    assert not bool(torch.autograd.grad(loss, student)[0].any())


def test_the_loss_is_a_mean_over_the_whole_batch() -> None:
    student = answers((0.5, 0.5), (0.5, 0.5), (0.5, 0.5), (0.5, 0.5))
    loss = unlearning(student, torch.zeros(4).long(), torch.zeros(4).long(), torch.tensor([1, 0, 0, 0]))
    assert float(loss) == pytest.approx(math.log(2) / 4, abs=1e-5)


def test_a_class_below_a_thousandth_is_unlearned_and_a_certain_one_is_no_infinity() -> None:
    student = torch.tensor([[10.0, 0.0], [0.0, 200.0]], requires_grad=True)  # p = 0.00005 and 1
    loss = unlearning(student, torch.tensor([0, 0]), torch.tensor([0, 0]), torch.tensor([1, 1]))
    assert loss.item() == pytest.approx((-math.log(1e-6) - math.log(0.999)) / 2, abs=1e-3)
    assert not bool(torch.autograd.grad(loss, student)[0][0].any())


@pytest.mark.parametrize(
    ("student", "victim", "expected"),
    [
        ((0.25, 0.5, 0.25), (0.25, 0.5, 0.25), 0.0),  # both into class 1: shared, nothing more to do
        ((0.5, 0.25, 0.25), (0.5, 0.25, 0.25), -0.01 * math.log(2)),  # neither is fooled: the mean of two entropies of log 2
        # into different classes: divergence alone, of two terms that differ, each twice: by 1/2 and by 1/4 against a middle of 3/8
        ((0.25, 0.5, 0.25), (0.25, 0.25, 0.5), 0.5 * math.log(4 / 3) + 0.25 * math.log(2 / 3)),
    ],
)
def test_what_the_search_lowers(student: tuple[float, ...], victim: tuple[float, ...], expected: float) -> None:
    own = torch.tensor([0])
    assert float(search_loss(answers(student), answers(victim), own, own, own, 0.01)) == pytest.approx(expected, abs=1e-6)


def test_the_search_goes_on_for_the_network_that_is_not_fooled() -> None:
    own = torch.tensor([0])
    student, victim = answers((0.2, 0.8)), answers((0.8, 0.2))
    with_entropy, without = (search_loss(student, victim, own, own, own, weight) for weight in (1.0, 0.0))
    assert float(without - with_entropy) == pytest.approx(-math.log(0.8) / 2)  # the victim's alone


def test_examples_stay_in_bound_and_are_images_but_for_the_published_variant() -> None:
    clean = clean_data()
    images, network = clean.images.float() / 255, planted()
    for variant, low, high in (("paper", 0.0, 1.0), ("published", -0.2, 1.2)):
        found = SAU(SAU.Config.model_validate({"variant": variant})).shared_examples(network, network, images, clean.labels)
        assert float((found - images).abs().max()) == pytest.approx(0.2)
        assert float(found.min()) >= low - 1e-6
        assert float(found.max()) <= high + 1e-6
        assert variant == "paper" or float(found.max()) > 1


def test_an_image_that_fools_both_at_the_start_keeps_its_start() -> None:
    """A fifth more light on every pixel fires the trigger's neuron: images of class 1 are shared examples at once."""

    def model(images: Tensor) -> Tensor:
        bright = 40 * (images.mean((1, 2, 3)) - 0.6)
        return torch.stack([bright, torch.zeros_like(bright)], 1)

    images = torch.full((1, 1, 2, 2), 0.5)
    found = SAU().shared_examples(model, model, images, torch.tensor([1]))
    torch.testing.assert_close(found, images + 0.2)


def test_only_the_students_weights_move_and_no_statistics() -> None:
    victim, defense = planted(), SAU(SAU.Config(epochs=2))
    before = {name: values.clone() for name, values in victim.state_dict().items()}
    evidence = make_evidence(defense, victim, clean_data())
    student = evidence.network
    modes: list[bool] = []
    student.register_forward_pre_hook(lambda network, _inputs: modes.append(network.training))
    outcome = defense.defend(evidence)
    outcome.check(defense.gives, None, 2)
    assert outcome.classifier is student
    after = student.state_dict()
    moved = {name for name, values in after.items() if not values.equal(before[name])}
    assert "backbone.norm.weight" in moved
    assert not any("running" in name or "tracked" in name for name in moved)
    assert not any(modes)
    assert all(weight.requires_grad for weight in student.parameters())


def test_the_student_sees_the_clean_images_as_they_are() -> None:
    clean, defense = clean_data(), SAU(SAU.Config(epochs=1))
    evidence = make_evidence(defense, planted(), clean, flip=True)
    seen: list[Tensor] = []
    evidence.network.register_forward_pre_hook(lambda _network, inputs: seen.append(inputs[0].detach()))
    defense.defend(evidence)
    shown = (seen[-1][:20] * 255).round().byte().flatten(1)  # the clean half of the update's batch
    assert sorted(shown.tolist()) == sorted(clean.images.flatten(1).tolist())


def test_on_the_digits_the_shared_class_is_unlearned(badnets_on_digits: Any) -> None:
    victim, defense = badnets_on_digits, SAU(SAU.Config(epochs=5, lr=2e-3))
    outcome = defense.defend(make_evidence(defense, victim.network, victim.clean))
    outcome.check(defense.gives, None, victim.clean.num_classes)
    rows = outcome.tables["epochs"]
    assert rows[-1]["unlearning_loss"] < rows[0]["unlearning_loss"] / 2
    assert rows[-1]["shared"] < rows[0]["shared"]
