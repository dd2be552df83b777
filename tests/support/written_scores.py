"""Detectors of inputs whose every score is written down, and ones that misbehave."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from gatecrash import InputDetector


class ScoreTable(InputDetector):
    """Scores by number of image (its pixel (0, 0)), and by whether pixel (0, 1) is marked; see `written_answers`."""

    scores: Tensor

    def __init__(self, threshold: float, max_images: int | None = None) -> None:
        super().__init__()
        self.threshold, self.max_images = threshold, max_images
        self.register_buffer("scores", torch.zeros(2, 256))

    def config(self) -> dict[str, Any]:
        return {"threshold": self.threshold, "max_images": self.max_images}

    def score(self, images: Tensor) -> Tensor:
        return self.scores[(images[:, 0, 0, 1] == 255).long(), images[:, 0, 0, 0].long()]


def score_table(clean: list[float], marked: list[float], threshold: float = 0.5, max_images: int | None = None) -> ScoreTable:
    detector = ScoreTable(threshold, max_images)
    for row, scores in enumerate((clean, marked)):
        detector.scores[row, : len(scores)] = torch.tensor(scores)
    return detector


class Brightness(InputDetector):
    """The mean pixel, in [0, 1]; suspect above a half."""

    threshold = 0.5

    def score(self, images: Tensor) -> Tensor:
        return images.flatten(1).float().mean(1) / 255


def misbehaving_detector(misbehave: Callable[[Tensor], Tensor]) -> Brightness:
    """Brightness with something done to the scores of each batch."""
    detector = Brightness()
    honest = detector.score
    detector.score = lambda images: misbehave(honest(images))  # type: ignore[method-assign]
    return detector
