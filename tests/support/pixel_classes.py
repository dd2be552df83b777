"""Classes that light up a pixel each, a network whose features are pixels, and rows of one class that look like another's."""

from __future__ import annotations

import torch
from torch import Tensor

from gatecrash import Backbone, ImageSet, Model
from support.planted_networks import OneToOne

CLASSES = 10
POISON = 12


class Pixels(Model):
    """Features are pixels."""

    name = "pixels"
    summary = "features are pixels"

    def build(self, num_classes: int, shape: tuple[int, int, int]) -> Backbone:
        return OneToOne(torch.eye(num_classes, shape[2]).tolist(), [0.0] * num_classes, [1.0] * shape[2])


def draw(counts: list[int], seed: int, least: int = 0) -> ImageSet:
    """Class c lights up pixel c; the last pixel is dark for all of them, and every pixel has noise from `least` on."""
    labels = torch.repeat_interleave(torch.arange(CLASSES), torch.tensor(counts))
    images = torch.randint(least, 30, (len(labels), 1, 1, CLASSES + 1), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)
    images[torch.arange(len(labels)), 0, 0, labels] += 200
    return ImageSet(images, labels, tuple("abcdefghij"))


def planted(poison: int = POISON, clean: int = 30, seed: int = 0, least: int = 0) -> tuple[ImageSet, Tensor]:
    """A shuffled training set; `poison` more rows of class 3 look like class 5 and light up the last pixel; which rows these are."""
    data = draw([clean] * 5 + [clean + poison] + [clean] * 4, seed, least)
    bad = torch.zeros(len(data), dtype=torch.bool)
    bad[5 * clean : 5 * clean + poison] = True
    images, labels = data.images.clone(), torch.where(bad, 3, data.labels)
    images[bad, 0, 0, -1] += 200
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(seed))
    return ImageSet(images[order], labels[order], data.classes), bad[order]
