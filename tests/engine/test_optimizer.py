"""Learning rates of every step, and which parameters decay and move."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from gatecrash.engine.optimizer import learning_rates, make_optimizer
from support.small_training import network, recipe, run, toy_set


def test_a_one_cycle_schedule_is_two_straight_lines_without_a_step_at_zero() -> None:
    options = recipe(schedule="one-cycle", warmup=0.25, lr=1.0)
    assert learning_rates(options, 7) == pytest.approx([1 / 2, 1, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6])
    assert learning_rates(recipe(schedule="one-cycle", warmup=0.0, lr=1.0), 3) == pytest.approx([3 / 4, 2 / 4, 1 / 4])
    assert learning_rates(options, 1) == pytest.approx([2 / 3])


def test_a_cosine_schedule_falls_from_the_peak_towards_zero() -> None:
    assert learning_rates(recipe(schedule="cosine", lr=1.0), 4) == pytest.approx([1, (1 + 0.5**0.5) / 2, 0.5, (1 - 0.5**0.5) / 2])
    assert learning_rates(recipe(lr=0.3), 2) == [0.3, 0.3]


def test_weight_decay_spares_biases_and_norms_where_the_recipe_says_so() -> None:
    def decays(**changes: Any) -> list[tuple[float, set[int]]]:
        groups = make_optimizer(network(), recipe(weight_decay=0.1, **changes)).param_groups
        return [(group["weight_decay"], {parameter.ndim for parameter in group["params"]}) for group in groups]

    assert decays() == [(0.1, {1, 2, 4})]
    assert decays(decay_norms=False) == [(0.1, {2, 4}), (0.0, {1})]


def test_biases_have_a_rate_of_their_own_and_decay_as_before() -> None:
    options = recipe(lr=0.1, weight_decay=0.01, bias_lr=64.0, schedule="constant", momentum=0.0, epochs=1, batch_size=64)
    net, images, labels = network(), *toy_set()
    before = {name: parameter.detach().clone() for name, parameter in net.named_parameters()}
    F.cross_entropy(net.train()(images), labels).backward()
    gradients = {name: parameter.grad for name, parameter in net.named_parameters()}

    net = network()
    run(net, options, loss=lambda net, images, labels, _rows: F.cross_entropy(net(images), labels))  # one step

    for name, parameter in net.named_parameters():
        rate = 6.4 if name.endswith("bias") else 0.1
        expected = before[name] - rate * gradients[name] - 0.1 * 0.01 * before[name]
        torch.testing.assert_close(parameter.detach(), expected, rtol=1e-4, atol=1e-6)
