"""The training set on the device, given out in augmented batches."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from gatecrash.contracts.classifier import Network
from gatecrash.contracts.randomness import Streams
from gatecrash.contracts.recipe import Recipe
from gatecrash.contracts.train import OnBatch
from gatecrash.engine import augmentation as augment
from gatecrash.errors import ContractError


def batch_sizes(count: int, batch_size: int) -> list[int]:
    """Sizes of the batches of one epoch: all images, the last batch incomplete, a single left-over image in the batch before."""
    sizes = [min(batch_size, count - start) for start in range(0, count, batch_size)]
    if len(sizes) > 1 and sizes[-1] == 1 < batch_size:
        sizes[-2:] = [batch_size + 1]
    return sizes


def check_data(network: Network, images: Tensor, labels: Tensor) -> None:
    """Raise ContractError for images and labels that the network cannot be trained on."""
    if images.dtype != torch.uint8 or images.ndim != 4:
        raise ContractError(f"training images must be uint8 [N, C, H, W]; got {images.dtype} {list(images.shape)}")
    if labels.dtype != torch.int64 or labels.shape != images.shape[:1]:
        raise ContractError(f"training labels must be int64 [{len(images)}]; got {labels.dtype} {list(labels.shape)}")
    if not len(images):
        raise ContractError("there is no image to train on")
    if not 0 <= int(labels.min()) <= int(labels.max()) < network.num_classes:
        raise ContractError(f"training labels must lie in [0, {network.num_classes}); got {int(labels.min())} to {int(labels.max())}")


class Feed:
    """The set on the device, given out in augmented batches: images uint8 [B, C, H, W], labels and rows int64 [B]."""

    def __init__(
        self,
        images: Tensor,
        labels: Tensor,
        recipe: Recipe,
        flip: bool,
        streams: Streams,
        on_batch: OnBatch | None,
    ) -> None:
        self.sizes = batch_sizes(len(images), recipe.batch_size)
        self._images, self._labels, self._crop, self._flip, self._on_batch = images, labels, recipe.crop, flip, on_batch
        self._order, self._augment = streams("order"), streams("augment")
        # Images that `on_batch` changes cannot be padded in advance.
        self._windows = augment.windows(images, recipe.crop) if on_batch is None else None
        self._epoch_start = self._generators()

    def _generators(self) -> list[Tensor]:
        return [self._order.get_state(), self._augment.get_state()]

    def state(self) -> dict[str, Any]:
        """Where the generators stood when the epoch began."""
        return {"generators": self._epoch_start}

    def restore(self, state: dict[str, Any]) -> None:
        self._order.set_state(state["generators"][0])
        self._augment.set_state(state["generators"][1])

    def epoch(self, start: int = 0) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """The batches of the next epoch, from the batch number `start` on."""
        device = self._images.device
        self._epoch_start = self._generators()
        order = torch.randperm(len(self._images), generator=self._order).to(device)
        draws = augment.draw(self.sizes, self._crop, self._flip, self._augment, device)
        batches = zip(*(torch.split(part, self.sizes) for part in (order, draws.tops, draws.lefts)), draws.mirrored, strict=True)
        for rows, tops, lefts, mirrored in islice(batches, start, None):
            windows, picks, labels = self._windows, rows, self._labels[rows]
            if windows is None:
                images, labels = self._changed(rows, labels)
                windows, picks = augment.windows(images, self._crop), torch.arange(len(rows), device=device)
            yield augment.augmented(windows, picks, tops, lefts, mirrored), labels, rows

    def _changed(self, rows: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """What `on_batch` returns for a batch; ContractError if that has another dtype or shape."""
        assert self._on_batch is not None
        images = self._images[rows]
        new_images, new_labels = self._on_batch(images, labels, rows)
        for what, new, old in (("images", new_images, images), ("labels", new_labels, labels)):
            if new.dtype != old.dtype or new.shape != old.shape:
                raise ContractError(f"on_batch must return {what} as {old.dtype} {list(old.shape)}; got {new.dtype} {list(new.shape)}")
        return new_images, new_labels
