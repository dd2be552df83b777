"""Triggers are applied image by image; one that uses the batch or gives no image is named."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gatecrash import Backdoor, ContractError, Trigger
from gatecrash.contracts.backdoor import Goal
from gatecrash.evaluation.exam import evaluate
from gatecrash.evaluation.triggering import apply_trigger
from support.written_answers import ONE, Wrapper, photos


class Function(Trigger):
    def __init__(self, function: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, images: Tensor) -> Any:
        return self.function(images)


def function(trigger: Callable[[Tensor], Any]) -> Backdoor:
    return Backdoor("suspect", Goal.all_to_all(3), Function(trigger))


@pytest.mark.parametrize(
    "uses_the_batch",
    [
        lambda images: (images.float() * 0.5 + images.float().mean(0) * 0.5).to(torch.uint8),
        lambda images: images.flip(0),
        lambda images: images // (1 + torch.arange(len(images), dtype=torch.uint8).view(-1, 1, 1, 1) % 2),
        lambda images: images ^ (len(images) % 251),
        lambda images: torch.randint_like(images, 0, 255),
    ],
    ids=["mean", "neighbour", "position", "size", "random"],
)
@pytest.mark.parametrize("n", [2, 30, 300])
def test_a_trigger_that_uses_the_batch_is_caught_by_name(uses_the_batch, n):
    with pytest.raises(ContractError, match="trigger of backdoor 'suspect' uses the batch"):
        evaluate(Wrapper(), photos(n), [function(uses_the_batch)], device="cpu")


@pytest.mark.parametrize(
    ("broken", "complaint"),
    [
        (lambda images: images.float(), r"uint8 \[8, 1, 4, 4\]; got torch.float32 \[8, 1, 4, 4\]"),
        (lambda images: images[:, :, :3], r"got torch.uint8 \[8, 1, 3, 4\]"),
        (lambda images: images[:1], r"got torch.uint8 \[1, 1, 4, 4\]"),
        (lambda images: None, "got NoneType"),
    ],
)
def test_a_trigger_that_gives_no_image_is_named(broken, complaint):
    with pytest.raises(ContractError, match="trigger of backdoor 'suspect' must give .*" + complaint):
        evaluate(Wrapper(), photos(8), [function(broken)], device="cpu")


def test_float_noise_in_a_generated_trigger_is_no_offence():
    def generator(images):
        noisy = images.clone()
        noisy[:, 0, 0, 0] = (images[:, 0, 0, 0].clamp(1, 250) // 2) + (len(images) > 40) * (images[:, 0, 1, 1] < 10).to(torch.uint8)
        return noisy

    images = photos(300).images
    assert apply_trigger(function(generator), images, device="cpu").shape == images.shape


def test_a_trigger_is_applied_image_by_image_and_the_originals_stay():
    images = photos(50).images
    before = images.clone()
    triggered = apply_trigger(ONE, images, device="cpu", batch_size=7)
    assert torch.equal(images, before)
    assert (triggered[:, 0, 0, 1] == 255).all()
    triggered[:, 0, 0, 1] = before[:, 0, 0, 1]
    assert torch.equal(triggered, before)


def test_a_dropout_in_a_trigger_network_is_off():
    trigger = Function(nn.Dropout(0.5))
    trigger.function = nn.Sequential(nn.Flatten(2), nn.Unflatten(2, (4, 4)), nn.Dropout(0.5))
    planted = Backdoor("generator", Goal.all_to_all(3), trigger.train())
    images = photos(20).images
    assert torch.equal(apply_trigger(planted, images, device="cpu"), images)
    assert trigger.training
