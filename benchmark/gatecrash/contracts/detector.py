"""Detectors of poisoned inputs: each image that reaches the deployed classifier gets a score, by which it is rejected or let through."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from gatecrash.contracts.classifier import Classifier
from gatecrash.contracts.portable import Portable

MARGIN = 10.0
"""The logit for rejection lies this far above or below all others."""


class InputDetector(Portable):
    """Images -> how suspect each of them is. A defense returns one as `Outcome.detector`.

    It is stored as any Portable: `config()` and tensors rebuild it, so the threshold stands in one of them. It may hold a classifier to
    look into (a Portable in its config).
    """

    threshold: float | Tensor
    """An image whose score lies above it is rejected: a number of `config()`, or a buffer of one element."""
    max_images: int | None = None
    """The evaluation shows at most so many test images, clean and triggered together, where a score costs seconds; None shows all."""

    def score(self, images: Tensor) -> Tensor:
        """float32 [N], higher is more suspect, for images uint8 [N, C, H, W] on the device of the detector's tensors.

        Every score is finite and depends on its own image alone, not on the rest of the batch, and is the same whenever it is asked for:
        what is drawn at random is drawn once, or from a seed in `config()`.
        """
        raise NotImplementedError(f"{type(self).__name__} defines no score()")  # pragma: no cover - abstract

    def forward(self, images: Tensor) -> Tensor:
        return self.score(images)

    def flags(self, scores: Tensor) -> Tensor:
        """bool [N]: which scores lie above the threshold."""
        return scores > float(self.threshold)


class Rejecting(Classifier):
    """A classifier behind a detector: K + 1 logits, of which the last is the largest exactly where the detector flags the image.

    This is what a user deploys of an `Outcome.detector`; the harness builds it. A classifier that rejects by itself goes on doing so.
    """

    def __init__(self, classifier: Classifier, detector: InputDetector) -> None:
        super().__init__()
        self.classifier, self.detector = classifier, detector
        self.num_classes = classifier.num_classes

    def config(self) -> dict[str, Any]:
        return {"classifier": self.classifier, "detector": self.detector}

    def forward(self, images: Tensor) -> Tensor:
        shown = images if images.dtype == torch.uint8 else (images.detach() * 255).round().clamp(0, 255).to(torch.uint8)
        return with_rejection(self.classifier(images), self.detector.flags(self.detector.score(shown)), self.num_classes)


def with_rejection(logits: Tensor, flagged: Tensor, num_classes: int) -> Tensor:
    """Logits [N, K + 1] whose last is the largest where `flagged` (bool [N]); elsewhere the smallest, or what it was if there was one."""
    kept = logits[:, num_classes] if logits.shape[1] > num_classes else logits.amin(1) - MARGIN
    reject = torch.where(flagged.to(logits.device), logits.amax(1) + MARGIN, kept)
    return torch.cat([logits[:, :num_classes], reject.unsqueeze(1)], dim=1)
