"""The training engine as attacks and defenses call it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from torch import Tensor

from gatecrash.contracts.classifier import Network
from gatecrash.contracts.data import ImageSet, Poisoned
from gatecrash.contracts.recipe import Recipe

OnBatch = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]
"""(images uint8 [B, C, H, W], labels int64 [B], rows int64 [B]) -> images and labels to train on, before augmentation."""


Loss = Callable[[Network, Tensor, Tensor, Tensor], Tensor]
"""(network, images, labels, rows) -> scalar loss, after augmentation; replaces cross-entropy."""


class Train(Protocol):
    """The training engine, with the recipe, device and random streams of this run already set."""

    def __call__(
        self,
        data: Poisoned | ImageSet,
        *,
        network: Network | None = None,
        recipe: Recipe | None = None,
        on_batch: OnBatch | None = None,
        loss: Loss | None = None,
    ) -> Network:
        """Train `network` (in place; by default a new model) on `data` and return it in eval mode."""
