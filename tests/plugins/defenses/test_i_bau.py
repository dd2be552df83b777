"""I-BAU: the hypergradient against its closed form, and which images get the perturbation."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gatecrash import ImageSet, Network
from gatecrash.testing import make_evidence
from gatecrash_plugins.defenses.i_bau import IBAU, hypergradient, pixels, project
from support.planted_neurons import clean_data, planted

A = torch.tensor([[2.0, 0.5], [0.5, 1.0]])
B = torch.tensor([[1.0, 0.0, -1.0], [0.0, 2.0, 1.0]])
WANTED = torch.tensor([1.0, -1.0])


def on_quadratics(iterations: int, delta: Tensor, weights: Tensor, step_size: float = 0.1) -> Tensor:
    """inner = d'Ad / 2 - d'Bw, lowest at A^-1 B w; outer = |d - WANTED|^2 / 2 + |w|^2 / 2."""
    weights = weights.clone().requires_grad_()

    def inner(delta: Tensor) -> Tensor:
        return delta @ A @ delta / 2 - delta @ B @ weights

    def outer(delta: Tensor) -> Tensor:
        return (delta - WANTED).square().sum() / 2 + weights.square().sum() / 2

    return hypergradient(inner, outer, delta, [weights], iterations, step_size)[0]


def test_the_hypergradient_of_a_quadratic_problem_is_the_closed_form() -> None:
    weights = torch.tensor([0.3, -0.2, 0.5])
    delta = torch.linalg.solve(A, B @ weights)
    exact = weights + B.T @ torch.linalg.solve(A, delta - WANTED)
    torch.testing.assert_close(on_quadratics(400, delta, weights), exact)
    moved = weights.clone().requires_grad_()  # and it is the gradient of what the weights do through the minimum
    best = torch.linalg.solve(A, B @ moved)
    ((best - WANTED).square().sum() / 2 + moved.square().sum() / 2).backward()
    torch.testing.assert_close(exact, moved.grad)


def test_few_iterations_are_the_start_of_its_series() -> None:
    weights, delta = torch.tensor([0.3, -0.2, 0.5]), torch.tensor([0.7, 0.1])
    slope = delta - WANTED
    step = torch.eye(2) - 0.1 * A
    torch.testing.assert_close(on_quadratics(1, delta, weights), weights + 0.1 * B.T @ slope)
    torch.testing.assert_close(on_quadratics(3, delta, weights), weights + 0.1 * B.T @ (slope + step @ slope + step @ step @ slope))


def test_weights_that_do_not_move_the_search_get_the_plain_gradient() -> None:
    weight = torch.tensor([2.0], requires_grad=True)
    (found,) = hypergradient(lambda d: d.square().sum(), lambda d: (d * weight).sum(), torch.tensor([3.0]), [weight], 5, 0.1)
    assert found.tolist() == [3.0]


@pytest.mark.parametrize(("length", "expected"), [(5.0, 5.0), (10.0, 10.0), (40.0, 10.0)])
def test_the_ball(length: float, expected: float) -> None:
    direction = torch.full((1, 2, 2), 0.5)
    torch.testing.assert_close(project(length * direction, 10.0), expected * direction)
    assert not bool(project(torch.zeros(1, 2, 2), 10.0).any())


class Seen:
    """The images of every pass through a network."""

    def __init__(self, network: nn.Module) -> None:
        self.inputs: list[Tensor] = []
        network.register_forward_pre_hook(lambda _network, inputs: self.inputs.append(inputs[0].detach().clone()))


def unlearned(rows: Tensor, first: Tensor, clean: ImageSet, delta: float = 0.25, **options: Any) -> list[Tensor]:
    """What the network sees in one step: the images of the outer loss, then those of the inner."""
    network = planted()
    seen, defense = Seen(network), IBAU(IBAU.Config(**options))
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    defense.unlearn(network, clean, rows, first, torch.full((1, 1, 3), delta), optimizer, torch.Generator().manual_seed(0))
    return seen.inputs


@pytest.mark.parametrize(
    ("options", "images", "expected"),
    [({}, 100, 100), ({"variant": "published"}, 100, 1), ({"variant": "published"}, 99, 0), ({"share": 0.29}, 100, 29)],
)
def test_who_gets_the_perturbation(options: dict[str, Any], images: int, expected: int) -> None:
    """The published 1% is one image of a hundred, and none of a smaller batch."""
    clean, rows = clean_data(50), torch.arange(images)
    outer = unlearned(rows, rows, clean, **options)[0]
    assert int((outer != pixels(clean, rows)).flatten(1).any(1).sum()) == expected


def test_perturbed_images_are_images_but_for_the_published_variant() -> None:
    clean, rows = clean_data(), torch.arange(20)
    outer, inner = unlearned(rows, rows, clean)
    torch.testing.assert_close(outer, (pixels(clean, rows) + 0.25).clamp(0, 1), atol=2e-6, rtol=0)
    assert outer.equal(inner)
    assert float(unlearned(rows, rows, clean, variant="published")[1].max()) == 1.25


def batches_of_inner_losses(variant: str) -> list[bool]:
    """Of a run in two batches: whether each step's inner loss is that of its own batch."""
    network, clean = planted(), clean_data()
    clean = ImageSet(clean.images + torch.arange(20, dtype=torch.uint8).view(-1, 1, 1, 1) % 50, clean.labels, clean.classes)  # all differ
    defense = IBAU(IBAU.Config.model_validate({"rounds": 1, "batch_size": 10, "share": 1, "variant": variant}))
    evidence = make_evidence(defense, network, clean)
    seen = Seen(evidence.network)
    defense.defend(evidence)
    steps = seen.inputs[4:8]  # behind the search, which passes each batch twice
    return [outer.equal(inner) for outer, inner in zip(steps[::2], steps[1::2], strict=True)]


def test_a_step_takes_the_search_on_its_own_batch() -> None:
    assert batches_of_inner_losses("paper") == [True, True]
    assert batches_of_inner_losses("published") == [True, False]  # always the first batch


def test_the_search_attacks_what_the_model_says() -> None:
    network, clean = planted(), clean_data()
    lies = ImageSet(clean.images, 1 - clean.labels, clean.classes)
    batches = [torch.tensor([0, 2, 1]), torch.tensor([4, 6, 3])]  # with as many images of each class the gradients would cancel
    defense = IBAU()
    found = defense.search(network, clean, batches)
    assert bool(found.any())
    assert found.equal(defense.search(network, lies, batches))


def test_one_step_of_the_search() -> None:
    """Of one batch, from 0: ten times the gradient of cross-entropy against the model's answer, black and white pixels included."""
    network, clean, rows = planted(), clean_data(), torch.tensor([0, 2, 1])
    images = pixels(clean, rows).requires_grad_()
    logits = network(images)
    F.cross_entropy(logits, logits.argmax(1)).backward()  # type: ignore[no-untyped-call]
    assert images.grad is not None
    assert bool(images.grad.any())
    torch.testing.assert_close(IBAU().search(network, clean, [rows]), 10 * images.grad.sum(0))


def norms(network: Network) -> dict[str, Tensor]:
    return {name: values.clone() for name, values in network.state_dict().items() if "running" in name}


def test_on_the_digits_the_perturbation_is_bounded_and_batchnorm_keeps_its_statistics(badnets_on_digits: Any) -> None:
    victim, defense = badnets_on_digits, IBAU(IBAU.Config(rounds=2, radius=1.0))
    outcome = defense.defend(make_evidence(defense, victim.network, victim.clean))
    outcome.check(defense.gives, None, victim.clean.num_classes)
    rows = outcome.tables["rounds"]
    assert all(row["norm"] <= 1.0001 for row in rows)
    assert any(row["norm_found"] > 1 for row in rows)
    assert isinstance(outcome.classifier, Network)
    before, after = norms(victim.network), norms(outcome.classifier)
    assert before
    assert all(values.equal(after[name]) for name, values in before.items())
    assert not outcome.classifier.training


def test_the_published_variant_has_no_ball(badnets_on_digits: Any) -> None:
    victim, defense = badnets_on_digits, IBAU(IBAU.Config(rounds=1, radius=0.01, variant="published"))
    (row,) = defense.defend(make_evidence(defense, victim.network, victim.clean)).tables["rounds"]
    assert row["norm"] == row["norm_found"] > 0.01
