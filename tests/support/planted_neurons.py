"""Networks whose neurons are known, and evidence for ANP on them."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gatecrash import Backbone, Evidence, ImageSet, Network, Point, Recipe
from gatecrash.testing import make_evidence
from gatecrash_plugins.defenses.anp import ANP

TRIGGER_NEURON = 1


class Planted(Backbone):
    """Images [1, 1, 3]: pixel 0 or 2 tells the class, pixel 1 is the trigger; neuron c reads pixel c.

    Neuron 1 is silent for a clean pixel 1 (0.2: 5 * 0.2 - 1.1 < 0) and sends a triggered image (1.0) to class 0. A relative change of 0.4
    wakes it on clean images too.
    """

    def __init__(self, norm: bool = True) -> None:
        super().__init__()
        self._norm = norm
        self.conv = nn.Conv2d(1, 3, (1, 3), bias=not norm)
        self.norm = nn.BatchNorm2d(3) if norm else nn.Identity()
        self.point = Point(3)
        self.head = nn.Linear(3, 2)
        with torch.no_grad():
            self.conv.weight.copy_(torch.diag(torch.tensor([1.0, 5.0, 1.0])).view(3, 1, 1, 3))
            bias = self.norm.bias if isinstance(self.norm, nn.BatchNorm2d) else self.conv.bias
            assert bias is not None
            bias.copy_(torch.tensor([0.1, -1.1, 0.1]))
            self.head.weight.copy_(torch.tensor([[4.0, 20.0, -4.0], [-4.0, -20.0, 4.0]]))
            self.head.bias.zero_()

    def config(self) -> dict[str, Any]:
        return {"norm": self._norm}

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.point(F.relu(self.norm(self.conv(images)))).flatten(1))
        return logits


class OneNeuron(Backbone):
    """Logits [2 m x + 1, 0] for one pixel x: a BatchNorm with weight 2 and bias 1."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(1)
        self.head = nn.Linear(1, 2)
        with torch.no_grad():
            self.norm.weight.fill_(2.0)
            self.norm.bias.fill_(1.0)
            self.head.weight.copy_(torch.tensor([[1.0], [0.0]]))
            self.head.bias.zero_()

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.norm(images).flatten(1))
        return logits


class NoNeurons(Backbone):
    """Linear."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(3, 2)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(images.flatten(1))
        return logits


def planted(norm: bool = True) -> Network:
    return Network(Planted(norm), [0.0], [1.0]).eval()


def images_of(labels: Tensor, triggered: bool = False) -> Tensor:
    """Pixel 0 or 2 is white for class 0 or 1, pixel 1 is 51 (0.2) or, with the trigger, white."""
    images = torch.zeros(len(labels), 1, 1, 3, dtype=torch.uint8)
    images[torch.arange(len(labels)), 0, 0, 2 * labels] = 255
    images[:, 0, 0, 1] = 255 if triggered else 51
    return images


def clean_data(per_class: int = 10) -> ImageSet:
    labels = torch.arange(2 * per_class) % 2
    return ImageSet(images_of(labels), labels, ("zero", "one"))


def one_pixel(label: int) -> ImageSet:
    return ImageSet(torch.full((1, 1, 1, 1), 255, dtype=torch.uint8), torch.tensor([label]), ("zero", "one"))


def config(**options: Any) -> ANP.Config:
    """With the network's own statistics, where one neuron's mask says nothing of the others and can be worked out by hand."""
    return ANP.Config.model_validate({"iterations": 30, "statistics": "running", **options})


def evidence_for(defense: ANP, network: Network, clean: ImageSet, seed: int = 0) -> Evidence:
    """In float32 on every machine: the numbers are worked out by hand."""
    return make_evidence(defense, network, clean, seed=seed, recipe=Recipe(epochs=1, precision="float32"))


def masks(outcome: Any) -> dict[tuple[str, int], float]:
    return {(row["layer"], row["neuron"]): row["mask"] for row in outcome.tables["neurons"]}


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))
