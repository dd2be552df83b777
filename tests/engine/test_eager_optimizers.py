"""The optimisers of trainings are torch's to the last digit, without its compiler."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gatecrash.contracts.recipe import recipe_from
from gatecrash.engine.eager_optimizers import SGD, AdamW
from gatecrash.engine.optimizer import make_optimizer

Make = Callable[[Any], torch.optim.Optimizer]
PAIRS: dict[str, tuple[Make, Make]] = {
    "sgd": (
        lambda parameters: SGD(parameters, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.01, fused=True),
        lambda parameters: torch.optim.SGD(parameters, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.01, fused=True),
    ),
    "adamw": (
        lambda parameters: AdamW(parameters, lr=0.01, betas=(0.8, 0.999), fused=True),
        lambda parameters: torch.optim.AdamW(parameters, lr=0.01, betas=(0.8, 0.999), fused=True),
    ),
}


def trained(make: Make, *, interrupted: bool = False) -> list[Tensor]:
    """The weights after ten steps; `interrupted`: with another optimiser from the fifth on, which was given the state of the first."""
    torch.manual_seed(0)
    network, images = nn.Linear(5, 3), torch.randn(8, 5)
    optimizer = make(network.parameters())
    for step in range(10):
        if interrupted and step == 5:
            state = optimizer.state_dict()
            optimizer = make(network.parameters())
            optimizer.load_state_dict(state)
        optimizer.zero_grad(set_to_none=True)
        network(images).square().mean().backward()
        optimizer.step()
    return [parameter.detach() for parameter in network.parameters()]


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize("interrupted", [False, True])
def test_steps_are_those_of_torch_to_the_last_digit(name: str, interrupted: bool) -> None:
    ours, theirs = PAIRS[name]
    for own, expected in zip(trained(ours, interrupted=interrupted), trained(theirs, interrupted=interrupted), strict=True):
        assert torch.equal(own, expected)
        assert not own.requires_grad


def test_hooks_on_steps_are_called_and_a_closure_has_gradients() -> None:
    called: list[str] = []
    weight = nn.Parameter(torch.ones(1))
    optimizer = SGD([weight], lr=0.5)
    optimizer.register_step_pre_hook(lambda *_: called.append("before"))
    optimizer.register_step_post_hook(lambda *_: called.append("after"))

    def closure() -> float:
        loss = (weight * weight).sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return float(loss.detach())

    assert optimizer.step(closure) == 1.0
    assert weight.item() == 0.0  # 1 - 0.5 * 2
    assert called == ["before", "after"]


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_a_recipe_s_optimizer_is_one_of_torch(optimizer: str) -> None:
    made = make_optimizer(nn.Linear(2, 2), recipe_from({"optimizer": optimizer}))
    assert isinstance(made, {"sgd": torch.optim.SGD, "adamw": torch.optim.AdamW}[optimizer])


def test_training_a_network_does_not_import_torch_s_compiler() -> None:
    code = (
        "import sys, torch\n"
        "from gatecrash.engine.eager_optimizers import SGD, AdamW\n"
        "for make in (SGD, AdamW):\n"
        "    network = torch.nn.Linear(2, 2)\n"
        "    optimizer = make(network.parameters(), lr=0.1, fused=True)\n"
        "    network(torch.ones(1, 2)).sum().backward()\n"
        "    optimizer.step()\n"
        "    optimizer.zero_grad()\n"
        "    optimizer.load_state_dict(optimizer.state_dict())\n"
        "print('torch._dynamo' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
