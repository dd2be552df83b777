"""Cognitive Distillation: an input of which a small part is enough for the classifier's whole answer carries a trigger."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from gatecrash import Classifier, Defense, Evidence, Give, InputDetector, Need, Options, Outcome, Reference, hookimpl

TOGETHER = 16
"""Images in each search, black ones at the end if need be. The search amplifies rounding errors, and these differ between batch sizes: with
always as many images, an image's score is the same whatever it is shown with."""


class CognitivePattern(InputDetector):
    """Minus the mean of the smallest mask, in [-1, 0], under which the classifier's logits stay what they are.

    `colours` float32 [steps, C] in [0, 1] is what shows through the mask in each step: drawn once and the same for every image, so that a
    score depends on its image alone. `sparsity`, `smoothness` and `lr` are as in `CognitiveDistillation.Config`.
    """

    colours: Tensor
    max_images = 2000  # each costs as many passes forwards and backwards as there are steps

    def __init__(
        self, classifier: Classifier, shape: list[int], threshold: float, sparsity: float = 0.01, smoothness: float = 10.0, lr: float = 0.1
    ) -> None:
        super().__init__()
        self.classifier, self.threshold = classifier, threshold
        self.sparsity, self.smoothness, self.lr = sparsity, smoothness, lr
        self.register_buffer("colours", torch.zeros(shape))

    def config(self) -> dict[str, Any]:
        return {
            "classifier": self.classifier,
            "shape": list(self.colours.shape),
            "threshold": self.threshold,
            "sparsity": self.sparsity,
            "smoothness": self.smoothness,
            "lr": self.lr,
        }

    def score(self, images: Tensor) -> Tensor:
        return -self.masks(images).mean((1, 2, 3))

    def masks(self, images: Tensor) -> Tensor:
        """float32 [N, 1, H, W] in [0, 1], one mask for all channels of an image."""
        filled = torch.cat([images, images.new_zeros(-len(images) % TOGETHER, *images.shape[1:])])
        parts = (filled[start : start + TOGETHER] for start in range(0, len(filled), TOGETHER))
        return torch.cat([self.search(part.float() / 255) for part in parts])[: len(images)]

    @torch.enable_grad()
    def search(self, pixels: Tensor) -> Tensor:
        """The masks for images float32 [N, C, H, W] in [0, 1]."""
        with torch.no_grad():
            logits = self.classifier(pixels).float()
        raw = torch.ones_like(pixels[:, :1]).requires_grad_()
        optimizer = torch.optim.Adam([raw], lr=self.lr, betas=(0.1, 0.1))
        for colour in self.colours:
            mask = opened(raw)
            seen = self.classifier(pixels * mask + (1 - mask) * colour.view(1, -1, 1, 1)).float()
            loss = (seen - logits).abs().mean(1) + self.sparsity * mask.sum((1, 2, 3)) + self.smoothness * variation(mask)
            # The sum, not the mean: what an image's mask becomes does not depend on how many others there are.
            (raw.grad,) = torch.autograd.grad(loss.sum(), raw)
            optimizer.step()
        return opened(raw).detach()


def opened(raw: Tensor) -> Tensor:
    """Any number -> (0, 1)."""
    return (raw.tanh() + 1) / 2


def variation(mask: Tensor) -> Tensor:
    """Squared differences of neighbours [N], over the mask's size."""
    down, across = mask.diff(dim=2).square(), mask.diff(dim=3).square()
    return (down.sum((1, 2, 3)) + across.sum((1, 2, 3))) / mask[0].numel()


class CognitiveDistillation(Defense):
    """The mask that keeps the logits (CD-L, section 3 of the paper), found anew for each input by gradient descent.

    The loss of a mask m for an image x: the mean absolute change of the logits when x m + (1 - m) colour is shown, with a random colour in
    each step, + `sparsity` |m|_1 + `smoothness` times the squared variation. Adam with betas 0.1, 0.1, 100 steps. Triggered images need
    little of themselves: an image is rejected whose |m|_1 lies below the clean hold-out's mean by `deviations` standard deviations.

    Defaults: the paper's and those of the authors' example (their script of analysis has smoothness 1). Deviations: the colours are drawn
    once, not for each image and call; the network normalises what it is shown inside the search too, which the authors' loop leaves out;
    the statistics come from the hold-out, not from training rows known to be clean. Beside the authors' code with the same colours, each
    image alone: masks equal to 5e-6 but for what the search makes of rounding errors (docs/measured/cognitive-distillation.md).
    """

    name = "cognitive-distillation"
    summary = "rejects inputs of which a small part gives the whole answer"
    reference = Reference("Huang et al., Distilling Cognitive Backdoor Patterns within an Image", 2023, "https://arxiv.org/abs/2301.10908")
    needs = frozenset({Need.MODEL, Need.CLEAN_DATA})
    gives = frozenset({Give.DETECTOR})

    class Config(Options):
        """The search for a mask, and what is too small."""

        steps: int = Field(100, ge=1, le=10_000, description="steps of the search for an image's mask")
        lr: float = Field(0.1, gt=0, le=10, description="learning rate of the search (Adam)")
        sparsity: float = Field(0.01, ge=0, le=100, description="weight of the sum of the mask (the paper's alpha)")
        smoothness: float = Field(10.0, ge=0, le=1000, description="weight of the mask's squared variation, per pixel (the paper's beta)")
        deviations: float = Field(
            1.0, ge=0, le=100, description="standard deviations of clean masks below whose mean a mask's sum is suspect (the paper's gamma)"
        )

    config: Config

    def defend(self, evidence: Evidence) -> Outcome:
        config, shape = self.config, [self.config.steps, evidence.shape[0]]
        detector = CognitivePattern(evidence.classifier, shape, 0.0, config.sparsity, config.smoothness, config.lr)
        detector = detector.to(evidence.device).eval()
        detector.colours.copy_(torch.rand(shape, generator=evidence.stream("colours")))
        scores = torch.cat([detector.score(images) for images in evidence.batches(evidence.clean.images)]).double()
        spread = float(scores.std()) if len(scores) > 1 else 0.0
        detector.threshold = float(scores.mean()) + config.deviations * spread
        mean = float(scores.mean()) * -math.prod(evidence.shape[1:])
        record = {"mean": round(mean, 3), "deviation": round(spread * math.prod(evidence.shape[1:]), 3)}
        return Outcome(detector=detector, tables={"clean-masks": [record]})


@hookimpl
def register_defenses(register: Callable[[type[Defense]], None]) -> None:
    register(CognitiveDistillation)
