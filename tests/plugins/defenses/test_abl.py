"""Anti-Backdoor Learning: ascent by hand, what is isolated, and a backdoor of the digits that is forgotten."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from gatecrash import Role
from gatecrash.contracts.recipe import recipe_from
from gatecrash.host.loading import load_plugins
from gatecrash.testing import make_evidence
from gatecrash_plugins.defenses.abl import ABL, ascend


class Says:
    """Classifies every image with these logits."""

    def __init__(self, logits: Tensor) -> None:
        self.logits = logits

    def __call__(self, images: Tensor) -> Tensor:
        return self.logits[: len(images)]


IMAGES, LABELS = torch.zeros(2, 1, 1, 1, dtype=torch.uint8), torch.tensor([0, 0])


def gradient(loss: Any) -> list[float]:
    """Of the loss by the first class's logit, for an image of loss log 2 and one of loss log(1 + 1/4)."""
    logits = torch.tensor([[0.0, 0.0], [math.log(4), 0.0]], requires_grad=True)
    loss(Says(logits), IMAGES, LABELS, LABELS).backward()
    assert logits.grad is not None
    return logits.grad[:, 0].tolist()


@pytest.mark.parametrize("ascent", ["local", "flooding"])
def test_losses_below_gamma_are_raised_and_others_lowered(ascent: str) -> None:
    """The gradient of cross-entropy by the true logit is p - 1: -1/2 and -1/5, halved by the mean over two images."""
    held = ABL(ABL.Config.model_validate({"ascent": ascent, "gamma": 0.5})).held_up
    assert gradient(held) == pytest.approx([-0.25, +0.1])  # log 2 = 0.69 is above gamma, log 1.25 = 0.22 below
    assert gradient(ascend) == pytest.approx([+0.25, +0.1])


def test_the_loss_near_gamma_is_the_papers() -> None:
    logits = torch.tensor([[0.0, 0.0], [math.log(4), 0.0]])
    above, below = math.log(2), math.log(1.25)
    for ascent, expected in (("local", (above - below) / 2), ("flooding", (above + (0.5 - below) + 0.5) / 2)):
        held = ABL(ABL.Config.model_validate({"ascent": ascent})).held_up
        assert float(held(Says(logits), IMAGES, LABELS, LABELS)) == pytest.approx(expected)  # type: ignore[arg-type]


def test_the_backdoor_of_the_digits_is_isolated_and_forgotten(badnets_on_digits: Any) -> None:
    victim, defense = badnets_on_digits, ABL()
    model = load_plugins(installed=False).get("model", "small-cnn").configure({"width": 8})
    data, recipe = victim.poisoned.as_image_set(victim.clean.classes), recipe_from("tiny")
    outcome = defense.defend(make_evidence(defense, victim.network, victim.clean, training_data=data, model=model, recipe=recipe))
    outcome.check(defense.gives, len(data), data.num_classes)
    assert outcome.suspects is not None
    assert outcome.suspicion is not None
    suspects = outcome.suspects
    assert int(suspects.sum()) == round(0.01 * len(data))
    assert float(outcome.suspicion[suspects].min()) >= float(outcome.suspicion[~suspects].max())
    assert float((victim.poisoned.role[suspects] == Role.POISON).double().mean()) > 0.8
    assert victim.asr(outcome.classifier) < 0.5 < victim.asr(victim.network)
