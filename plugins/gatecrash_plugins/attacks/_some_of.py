"""The trigger of adaptive poisoning: of several layers each image shows some, drawn from its own pixels."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from gatecrash import Trigger, image_draws


class SomeOf(Trigger):
    """Mixes `shown` of K layers into each image, one after another: `x' = x + weight (pattern - x)`, rounded once at the end.

    `patterns` uint8 [P, C, H, W] holds one pattern for all layers or one for each; `weights` float [K, H, W] in [0, 1]. Which layers an
    image gets belongs to its pixels (`image_draws` with `seed`); with `shown` = K all images get all.
    """

    patterns: Tensor
    weights: Tensor

    def __init__(
        self,
        shape: tuple[int, int, int],
        layers: int,
        shown: int,
        seed: int,
        one_pattern: bool = False,
        patterns: Tensor | None = None,
        weights: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.shape, self.layers, self.shown, self.seed, self.one_pattern = tuple(shape), layers, shown, seed, one_pattern
        stored = (1 if one_pattern else layers, *self.shape)
        self.register_buffer("patterns", torch.zeros(stored, dtype=torch.uint8) if patterns is None else patterns.reshape(stored))
        self.register_buffer("weights", torch.zeros(layers, *self.shape[1:]) if weights is None else weights)

    def config(self) -> dict[str, Any]:
        return {
            "shape": list(self.shape),
            "layers": self.layers,
            "shown": self.shown,
            "seed": self.seed,
            "one_pattern": self.one_pattern,
        }

    def chosen(self, images: Tensor) -> Tensor:
        """bool [N, K]: the layers that each image gets, `shown` in every row."""
        return image_draws(images, self.layers, self.seed).argsort(1).argsort(1) < self.shown

    def forward(self, images: Tensor) -> Tensor:
        mixed, chosen = images.float(), self.chosen(images).float()
        for layer, (pattern, weight) in enumerate(zip(self.patterns.expand(self.layers, *self.shape), self.weights, strict=True)):
            mixed = mixed + chosen[:, layer, None, None, None] * weight * (pattern - mixed)
        return mixed.round_().clamp_(0, 255).to(torch.uint8)
