"""A net with a planted shortcut from a white corner to one class, and Neural Cleanse on it."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from gatecrash import Backbone, Classifier, Defense, Evidence, ImageSet, Network, Outcome, Point, Stamp
from gatecrash.testing import make_evidence
from gatecrash_plugins.defenses.neural_cleanse import NeuralCleanse

CLASSES = 5
SIDE = 8
TARGET = 2


class PlantedNet(Backbone):
    """Class k is the brightest of K horizontal stripes (rows k); a white 2x2 corner of the last rows adds `shortcut` to the target's logit.

    Features are K stripe sums and one corner detector that no dark corner lets through.
    """

    def __init__(self, shortcut: float) -> None:
        super().__init__()
        self.shortcut = shortcut
        self.read = nn.Conv2d(1, CLASSES + 1, SIDE)
        self.point = Point(CLASSES + 1)
        self.head = nn.Linear(CLASSES + 1, CLASSES)
        with torch.no_grad():
            self.read.weight.zero_()
            self.read.bias.zero_()
            for label in range(CLASSES):
                self.read.weight[label, 0, label] = 1 / SIDE
            self.read.weight[CLASSES, 0, -2:, -2:] = 1.0
            self.read.bias[CLASSES] = -1.0
            self.head.weight.copy_(torch.cat([20 * torch.eye(CLASSES), torch.zeros(CLASSES, 1)], 1))
            self.head.weight[TARGET, CLASSES] = shortcut
            self.head.bias.zero_()

    def config(self) -> dict[str, Any]:
        return {"shortcut": self.shortcut}

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.point(self.read(images).relu()).flatten(1))
        return logits


def planted(shortcut: float = 15.0) -> Network:
    return Network(PlantedNet(shortcut), [0.0], [1.0]).eval()


def stripes(count: int = 60, classes: int = CLASSES) -> ImageSet:
    """Grey noise with one bright row per class; the corner stays dark."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 60, (count, 1, SIDE, SIDE), generator=generator, dtype=torch.uint8)
    labels = torch.arange(count) % classes
    images[torch.arange(count), 0, labels] += 150
    return ImageSet(images, labels, tuple(f"stripe {label}" for label in range(classes)))


def corner() -> Stamp:
    """The trigger that was planted."""
    mask = torch.zeros(SIDE, SIDE)
    mask[-2:, -2:] = 1
    return Stamp((1, SIDE, SIDE), 1.0, torch.full((1, SIDE, SIDE), 255, dtype=torch.uint8), mask)


QUICK: dict[str, Any] = {"searches": 1, "rounds": 60, "batch_size": 60, "lr": 0.3, "cost": 0.01, "patience": 3}


def defend(defense: Defense, classifier: Classifier, data: ImageSet | None = None) -> tuple[Outcome, Evidence]:
    evidence = make_evidence(defense, classifier, data or stripes())
    outcome = defense.defend(evidence)
    outcome.check(frozenset(defense.gives), None, CLASSES)
    return outcome, evidence


def success(network: nn.Module, stamp: Stamp, data: ImageSet) -> float:
    images = data.images[data.labels != TARGET]
    with torch.no_grad():
        return float((network(stamp(images)).argmax(1) == TARGET).float().mean())


def accuracy(network: nn.Module, data: ImageSet) -> float:
    with torch.no_grad():
        return float((network(data.images).argmax(1) == data.labels).float().mean())


@cache
def unlearned() -> Outcome:
    """What Neural Cleanse makes of the planted net, with the repair `unlearn`; computed once, not to be changed."""
    return defend(NeuralCleanse(NeuralCleanse.Config(**QUICK, unlearn_lr=0.01)), planted())[0]
