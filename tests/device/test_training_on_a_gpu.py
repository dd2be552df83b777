"""The engine on a simulated GPU: the numbers of the CPU, and no wait in any step."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from gatecrash import Network, Recipe
from gatecrash.contracts.randomness import Streams
from gatecrash.engine import watch
from gatecrash.engine.feed import Batching
from gatecrash.engine.training import Method, train
from gatecrash.testing.simulated_gpu import simulated_gpu
from support.small_training import network, recipe, toy_set, weights


def trained(device: str, options: Recipe, **method: Any) -> tuple[Tensor, tuple[float, ...]]:
    """Weights and losses of a training on the toy set, mirrored."""
    net, (images, labels) = network(), toy_set()
    batching = Batching(**{name: method.pop(name) for name in ("on_batch", "when", "batches", "views") if name in method})
    plan = Method(batching, diverges=True, **method)
    history = train(net, images, labels, options, streams=Streams("test", 0), flip=True, device=device, method=plan)
    return weights(net.cpu()), history.losses


def brightened(images: Tensor, labels: Tensor, _rows: Tensor) -> tuple[Tensor, Tensor]:
    return images // 2, labels


def two_views(net: Network, images: Tensor, labels: Tensor, _rows: Tensor) -> Tensor:
    return F.cross_entropy(net(images[0]), labels) + F.mse_loss(net(images[0]), net(images[1]))


def bounded(net: Network, optimizer: torch.optim.Optimizer, closure: Callable[[], Tensor], *_batch: Tensor) -> Tensor:
    value = closure()
    optimizer.step()
    with torch.no_grad():
        net.backbone.head.weight.clamp_(-1, 1)
    return value


WAYS: dict[str, dict[str, Any]] = {
    "plain": {},
    "augmented": {"options": recipe(crop=1, flip=True, rotation=10)},
    "adamw": {"options": recipe(optimizer="adamw", lr=0.01)},
    "lookahead": {"options": recipe(lookahead=True, label_smoothing=0.1)},
    "on_batch": {"on_batch": brightened, "options": recipe(crop=1, flip=True)},
    "on_batch after augmentation": {"on_batch": lambda x, y, _rows: (x / 255, y), "when": "after"},
    "views": {"views": 2, "loss": two_views, "options": recipe(flip=True)},
    "step": {"step": bounded},
    "poisson": {"batches": "poisson"},
}


@pytest.mark.parametrize("way", WAYS)
def test_a_training_has_the_numbers_of_the_cpu_and_as_many_waits_for_any_number_of_steps(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "REPORT_SECONDS", math.inf)
    method = dict(WAYS[way])
    options = method.pop("options", recipe()).model_copy(update={"epochs": 1})
    waits = []
    for batch_size in (32, 16):
        with simulated_gpu() as trace:
            found = trained("cuda", options.model_copy(update={"batch_size": batch_size}), **method)
        waits.append(Counter((wait.line, wait.reason) for wait in trace.waits))
        on_cpu = trained("cpu", options.model_copy(update={"batch_size": batch_size}), **method)
        assert found[0].equal(on_cpu[0])
        assert found[1] == on_cpu[1]
    assert waits[0] == waits[1]
