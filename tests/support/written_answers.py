"""Classifiers whose every answer is written down, and ones that misbehave, with images and backdoors for them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from gatecrash import Backdoor, Classifier, ImageSet, Trigger
from gatecrash.records.victim import GoalRecord
from gatecrash.running.tasks.stored import goal_of

LN2 = math.log(2)
UNSEEN = -1
"""An answer that nobody must ask for."""


class Mark(Trigger):
    """Writes 255 into pixel (0, `column`)."""

    def __init__(self, column: int = 1) -> None:
        super().__init__()
        self.column = column

    def config(self) -> dict[str, Any]:
        return {"column": self.column}

    def forward(self, images: Tensor) -> Tensor:
        images[:, :, 0, self.column] = 255  # in place: the test set must not mind
        return images


class Table(Classifier):
    """Answers by number of image (its pixel (0, 0)) and by marked column (0: none); logits are ln 2 for the answer and 0 elsewhere."""

    answers: Tensor

    def __init__(self, num_classes: int, width: int) -> None:
        super().__init__()
        self.num_classes, self.width = num_classes, width
        self.register_buffer("answers", torch.full((4, 256), UNSEEN))

    def config(self) -> dict[str, Any]:
        return {"num_classes": self.num_classes, "width": self.width}

    def forward(self, images: Tensor) -> Tensor:
        marks = images[:, 0, 0, 1:4] == 255
        column = marks.long().argmax(1) + 1
        answer = self.answers[torch.where(marks.any(1), column, 0), images[:, 0, 0, 0].long()]
        assert (answer != UNSEEN).all(), "shown an image that is not part of the evaluation"
        return nn.functional.one_hot(answer, self.width) * LN2


def table(clean: list[int], *marked: list[int], num_classes: int = 3, reject: bool = False) -> Table:
    classifier = Table(num_classes, num_classes + reject)
    for column, answers in enumerate((clean, *marked)):
        classifier.answers[column, : len(answers)] = torch.tensor(answers)
    return classifier


def numbered(labels: list[int], num_classes: int = 3) -> ImageSet:
    """One 4x4 image per label; image i has i in its first pixel."""
    images = torch.zeros(len(labels), 1, 4, 4, dtype=torch.uint8)
    images[:, 0, 0, 0] = torch.arange(len(labels))
    return ImageSet(images, torch.tensor(labels, dtype=torch.int64), tuple(str(label) for label in range(num_classes)))


def backdoor(
    kind: str = "all-to-one", target: int | None = 0, source: int | None = None, column: int = 1, name: str = "mark", **parts: Any
) -> Backdoor:
    goal = goal_of(GoalRecord(kind=kind, num_classes=3, target=target, source=source))
    return Backdoor(name, goal, Mark(column), **parts)


TEST = numbered([0, 0, 1, 1, 2, 2])
ONE = backdoor()


class Wrapper(Classifier):
    """Base of classifiers that misbehave around three honest logits: mean, spread and brightest pixel of an image."""

    def __init__(self) -> None:
        super().__init__()
        self.num_classes = 3

    def forward(self, images: Tensor) -> Tensor:
        pixels = images.flatten(1).float() / 255
        return self.misbehave(torch.stack([pixels.mean(1), pixels.std(1), pixels.amax(1)], dim=1), images)

    def misbehave(self, logits: Tensor, images: Tensor) -> Tensor:
        return logits


def misbehaving(misbehave: Callable[[Tensor, Tensor], Tensor]) -> Wrapper:
    wrapper = Wrapper()
    wrapper.misbehave = misbehave  # type: ignore[method-assign]
    return wrapper


def photos(n: int, seed: int = 0) -> ImageSet:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (n, 1, 4, 4), generator=generator, dtype=torch.uint8)
    return ImageSet(images, torch.randint(0, 3, (n,), generator=generator), ("a", "b", "c"))
