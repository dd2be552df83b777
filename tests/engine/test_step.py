"""Steps of one's own: two passes, bounds on weights, gradients of single images, a second network with its own optimiser."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from gatecrash import ContractError, Network
from support.small_training import network, recipe, run, toy_set, weights

Closure = Callable[[], Tensor]


def test_the_default_step_written_out_is_the_default_step() -> None:
    def step(net: Network, optimizer: torch.optim.Optimizer, closure: Closure, *_batch: Tensor) -> Tensor:
        value = closure()
        optimizer.step()
        return value

    plain, written = network(dropout=0.3), network(dropout=0.3)
    histories = run(plain, recipe(lookahead=True)), run(written, recipe(lookahead=True), step=step)
    assert torch.equal(weights(plain), weights(written))
    assert histories[0].losses == histories[1].losses


def test_sharpness_aware_minimisation_takes_the_gradient_of_a_second_pass() -> None:
    """Foret et al. 2021, algorithm 1, against the same step by hand."""
    radius = 0.05

    def perturbed(net: nn.Module) -> list[Tensor]:
        gradients = [parameter.grad.clone() for parameter in net.parameters() if parameter.grad is not None]
        norm = torch.stack([gradient.norm() for gradient in gradients]).norm()
        return [radius * gradient / norm for gradient in gradients]

    def step(net: Network, optimizer: torch.optim.Optimizer, closure: Closure, *_batch: Tensor) -> Tensor:
        value = closure()
        changes = perturbed(net)
        with torch.no_grad():
            for parameter, change in zip(net.parameters(), changes, strict=True):
                parameter += change
        closure()
        with torch.no_grad():
            for parameter, change in zip(net.parameters(), changes, strict=True):
                parameter -= change
        optimizer.step()
        return value

    net, by_hand = network(), network().train()
    run(net, recipe(epochs=1, batch_size=64, momentum=0.0), step=step, diverges=True)

    images, labels = toy_set()
    F.cross_entropy(by_hand(images), labels).backward()
    changes = perturbed(by_hand)
    start = [parameter.detach().clone() for parameter in by_hand.parameters()]
    with torch.no_grad():
        for parameter, change in zip(by_hand.parameters(), changes, strict=True):
            parameter += change
    by_hand.zero_grad()
    F.cross_entropy(by_hand(images), labels).backward()
    for found, before, parameter in zip(net.parameters(), start, by_hand.parameters(), strict=True):
        torch.testing.assert_close(found.detach(), before - 0.1 * parameter.grad, rtol=1e-3, atol=1e-6)


def test_weights_can_be_kept_within_bounds() -> None:
    def step(net: Network, optimizer: torch.optim.Optimizer, closure: Closure, *_batch: Tensor) -> Tensor:
        value = closure()
        optimizer.step()
        with torch.no_grad():
            net.head.weight.clamp_(-0.01, 0.01)
        return value

    net = network()
    run(net, step=step)
    assert float(net.head.weight.detach().abs().max()) == pytest.approx(0.01)


def test_gradients_of_single_images_can_be_clipped() -> None:
    """As in DP-SGD (Abadi et al. 2016): a step is never longer than rate * bound, and `closure` is not called at all."""
    bound, lengths = 0.1, []

    def step(net: Network, optimizer: torch.optim.Optimizer, _closure: Closure, images: Tensor, labels: Tensor, _rows: Tensor) -> Tensor:
        net.eval()  # BatchNorm would let the images of a batch see each other
        weights = {name: parameter.detach() for name, parameter in net.named_parameters()}

        def loss(values: dict[str, Tensor], image: Tensor, label: Tensor) -> Tensor:
            return F.cross_entropy(functional_call(net, values, (image[None],)), label[None])

        gradients = vmap(grad(loss), in_dims=(None, 0, 0))(weights, images, labels)
        norms = torch.stack([gradient.flatten(1).norm(dim=1) for gradient in gradients.values()]).norm(dim=0)
        shares = (bound / norms).clamp(max=1)
        for name, parameter in net.named_parameters():
            parameter.grad = torch.einsum("b,b...->...", shares, gradients[name]) / len(images)
        lengths.append(float(torch.stack([parameter.grad.norm() for parameter in net.parameters()]).norm()))
        optimizer.step()
        return F.cross_entropy(net(images), labels).detach()

    run(network(), recipe(epochs=8, momentum=0.0, lr=1.0), step=step)
    assert 0 < max(lengths) <= bound * 1.0001


def test_a_generator_is_trained_by_an_optimiser_of_its_own_through_augmented_images() -> None:
    """As in LIRA and Input-Aware: the trigger is float, after augmentation, and learns with the victim."""
    pattern = torch.zeros(1, 3, 8, 8, requires_grad=True)
    own = torch.optim.SGD([pattern], lr=5.0)

    def on_batch(images: Tensor, labels: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        chosen = (rows % 2 == 0).view(-1, 1, 1, 1)
        clean = images.float() / 255
        return torch.where(chosen, (clean + 0.2 * torch.tanh(pattern)).clamp(0, 1), clean), labels.masked_fill(rows % 2 == 0, 0)

    def step(_net: Network, optimizer: torch.optim.Optimizer, closure: Closure, *_batch: Tensor) -> Tensor:
        own.zero_grad()
        value = closure()
        optimizer.step()
        own.step()
        return value

    net = network()
    history = run(net, recipe(epochs=6, crop=1), on_batch=on_batch, when="after", step=step)
    assert history.losses[-1] < history.losses[0] / 2
    assert float(pattern.detach().abs().max()) > 0


@pytest.mark.parametrize(
    ("hook", "message"),
    [
        ({"step": lambda *_: None}, "a step must return the loss to report, a scalar tensor; got NoneType"),
        ({"step": lambda *_: torch.zeros(3)}, r"got a tensor \[3\]"),
        ({"loss": lambda net, images, labels, rows: net(images)}, r"a loss must be a scalar tensor; got a tensor \[16, 4\]"),
        ({"views": 2}, "views=2 gives images .* which needs a loss="),
        ({"views": 0, "loss": lambda *_: None}, "at least 1; got 0"),
        ({"when": "during"}, "when= is 'before' or 'after' augmentation; got 'during'"),
        ({"batches": "poisoned"}, "batches= is 'shuffled' or 'poisson'; got 'poisoned'"),
    ],
)
def test_a_broken_hook_is_named(hook: dict[str, Any], message: str) -> None:
    with pytest.raises(ContractError, match=message):
        run(network(), **hook)
