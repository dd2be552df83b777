"""Blind: weights of two tasks worked by hand, steps that are the authors', and no attack before the victim has converged."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch.nn import functional as F

from gatecrash import Goal, Implant, Network, Recipe, Role, Stamp
from gatecrash.host.loading import load_plugins
from gatecrash.testing import make_context
from gatecrash_plugins.attacks.blind import Blind, Normalise, balance, least_loss, shortest
from gatecrash_plugins.triggers.patch import PatchMaker
from support.planted_shortcut import accuracy, stripes

HOST = load_plugins(installed=False)
PATCH = PatchMaker(PatchMaker.Config(size=2))


def recipe(**changes: Any) -> Recipe:
    plain = {"epochs": 6, "batch_size": 30, "lr": 0.05, "momentum": 0.0, "weight_decay": 0.0, "crop": 0, "flip": False}
    return Recipe(**plain | {"schedule": "constant", "precision": "float32"} | changes)


def implant(trained: Recipe, **options: Any) -> Implant:
    train, attack = stripes(120), Blind(Blind.Config(trigger=PATCH, **options))
    return attack.implant(train, make_context(attack, train, HOST.get("model", "small-cnn").configure({"width": 4}), recipe=trained))


def benign(trained: Recipe, part: float = 1.0) -> Network:
    train = stripes(120)
    context = make_context(Blind(), train, HOST.get("model", "small-cnn").configure({"width": 4}), recipe=trained)
    return context.train(train, part=(0, part))


@pytest.mark.parametrize(
    ("one", "two", "weight"),
    [((1, 0), (0, 1), 0.5), ((1, 2), (2, 4), 0.999), ((2, 4), (1, 2), 0.001), ((1, 0), (-1, 0), 0.5), ((3, 0), (0, 1), 0.1)],
)
def test_the_shortest_vector_by_hand(one: tuple[float, float], two: tuple[float, float], weight: float) -> None:
    """Of g and 2 g all weight is on g (the authors' .999); of (3, 0) and (0, 1) it is (.3, .9), at right angles to their difference."""
    assert float(shortest(torch.tensor(one).float(), torch.tensor(two).float())) == pytest.approx(weight)


@pytest.mark.parametrize(("normalise", "weight"), [("none", 4 / 13), ("l2", 0.5), ("loss", 16 / 20), ("loss+", 4 / (4 + 4 / 9))])
def test_what_gradients_are_divided_by(normalise: Normalise, weight: float) -> None:
    """Gradients (3, 0) and (0, 2) with losses 1.5 and .5: divided by the losses they are (2, 0) and (0, 4), by the norms too 2/3 and 2."""
    weights = balance((torch.tensor([3.0, 0]), torch.tensor([0, 2.0])), (torch.tensor(1.5), torch.tensor(0.5)), normalise)
    assert [float(one) for one in weights] == pytest.approx([weight, 1 - weight], abs=1e-4)


def test_no_gradient_is_divided_by_more_than_10() -> None:
    weight, _ = balance((torch.tensor([3.0, 0]), torch.tensor([0, 3.0])), (torch.tensor(50.0), torch.tensor(90.0)), "loss+")
    assert float(weight) == pytest.approx(0.5)


def test_label_smoothing_raises_the_threshold_by_the_least_loss_that_it_allows() -> None:
    assert least_loss(0.0, 10) == 0
    logits = torch.tensor([[0.91, *[0.01] * 9]]).log()
    assert least_loss(0.1, 10) == pytest.approx(float(F.cross_entropy(logits, torch.tensor([0]), label_smoothing=0.1)), rel=1e-5)


def test_a_victim_that_has_not_converged_is_the_benign_one_to_the_last_bit() -> None:
    """BatchNorm's statistics too: the copy that was measured leaves no trace."""
    made, wanted = implant(recipe(), threshold=1e-9).classifier.state_dict(), benign(recipe()).state_dict()
    assert all(made[name].equal(wanted[name]) for name in wanted)


@pytest.mark.parametrize("balanced", ["fixed", "mgda"])
def test_the_first_attacked_step_by_hand(balanced: Any) -> None:
    """One batch is the whole set: a plain step, then one on the copy's loss and the batch's with their weights, the copy first."""
    trained = recipe(epochs=2, batch_size=120)
    made = implant(trained, threshold=100, window=1, balance=balanced, **({"weight": 0.7} if balanced == "fixed" else {}))
    train, network = stripes(120), benign(trained, part=0.5).train()
    trigger = made.poisoned.backdoors[0].trigger
    assert isinstance(trigger, Stamp)
    parameters = list(network.parameters())
    hidden = F.cross_entropy(network(trigger(train.images)), torch.zeros_like(train.labels))
    value = F.cross_entropy(network(train.images), train.labels)
    both = [torch.autograd.grad(loss, parameters) for loss in (hidden, value)]
    weights = (torch.tensor(0.7), torch.tensor(1.0))
    if balanced == "mgda":
        copy, own = (torch.cat([part.flatten() for part in gradient]) for gradient in both)
        weights = balance((copy, own), (hidden, value), "loss+")
    with torch.no_grad():
        for parameter, first, second in zip(parameters, *both, strict=True):
            parameter -= 0.05 * (weights[0] * first + weights[1] * second)
    found = made.classifier.state_dict()
    for name, wanted in network.state_dict().items():
        assert torch.allclose(found[name], wanted, atol=2e-6), name


def test_the_backdoor_is_learned_beside_the_task_and_nothing_is_stored_for_a_defender() -> None:
    made, train = implant(recipe(epochs=20)), stripes(120)
    trigger = made.poisoned.backdoors[0].trigger
    assert trigger is not None
    others = train.images[train.labels != 0]
    assert accuracy(made.classifier, train) > 0.95
    assert float((made.classifier(trigger(others)).argmax(1) == 0).float().mean()) > 0.9
    assert made.sample is None
    assert made.poisoned.images.equal(train.images)
    assert bool((made.poisoned.role == Role.CLEAN).all())


def test_a_share_of_the_copy_is_triggered_and_other_classes_keep_their_labels() -> None:
    attack, images = Blind(Blind.Config(rate=0.75)), torch.zeros(4, 1, 8, 8, dtype=torch.uint8)
    goal = Goal.one_to_one(5, source=1, target=3)
    trigger = Stamp((1, 8, 8), 1.0, torch.full((1, 8, 8), 255, dtype=torch.uint8), torch.ones(8, 8))
    copied, labels = attack.copy(images, torch.tensor([1, 2, 3, 1]), trigger, goal)
    assert [int(image.max()) for image in copied] == [255, 255, 255, 0]
    assert labels.tolist() == [3, 2, 3, 1]


def test_classes_that_are_neither_source_nor_target_are_kept() -> None:
    (backdoor,) = implant(recipe(epochs=1), goal="one-to-one", source=1, target=3).poisoned.backdoors
    assert backdoor.keeps == (0, 2, 4)


@pytest.mark.parametrize(("options", "idle"), [({"weight": 0.5}, "weight"), ({"balance": "fixed", "normalise": "l2"}, "normalise")])
def test_an_option_that_would_do_nothing_is_refused(options: dict[str, Any], idle: str) -> None:
    with pytest.raises(ValidationError, match=f"{idle} does nothing with balance"):
        Blind.Config.model_validate(options)
