"""Example shrink: quantise the input, with a classifier class of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from gatecrash import Classifier, Defense, Evidence, Give, Need, Options, Outcome, Reference, hookimpl


class FewLevels(Classifier):
    """Rounds the pixels to a few grey levels before `inner` sees them."""

    def __init__(self, inner: Classifier, levels: int) -> None:
        super().__init__()
        self.inner, self.levels, self.num_classes = inner, levels, inner.num_classes

    def config(self) -> dict[str, Any]:
        return {"inner": self.inner, "levels": self.levels}

    def forward(self, images: Tensor) -> Tensor:
        pixels = images / 255 if images.dtype == torch.uint8 else images
        steps = self.levels - 1
        logits: Tensor = self.inner((pixels * steps).round() / steps)
        return logits


class ExampleShrink(Defense):
    """Feature squeezing by colour depth (section 3.1 of the paper), which removes faint patterns."""

    name = "example-shrink"
    summary = "round the pixels to a few grey levels"
    reference = Reference(
        "Xu, Evans and Qi, Feature Squeezing: Detecting Adversarial Examples in Deep Neural Networks",
        2018,
        "https://arxiv.org/abs/1704.01155",
    )
    needs = frozenset({Need.MODEL})
    gives = frozenset({Give.CLASSIFIER})

    class Config(Options):
        """How many levels."""

        levels: int = Field(8, ge=2, le=256, description="grey levels that are left")

    config: Config

    def defend(self, evidence: Evidence) -> Outcome:
        return Outcome(classifier=FewLevels(evidence.classifier, self.config.levels).eval())


@hookimpl
def register_defenses(register: Callable[[type[Defense]], None]) -> None:
    register(ExampleShrink)
