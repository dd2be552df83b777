"""The training set on the device, given out in augmented batches."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice, pairwise
from typing import Any, Literal

import torch
from torch import Tensor

from gatecrash.contracts.classifier import Network
from gatecrash.contracts.patched import Patched, taken
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


def check_data(network: Network, images: Tensor | Patched, labels: Tensor) -> None:
    """Raise ContractError for images and labels that the network cannot be trained on."""
    if images.dtype != torch.uint8 or images.ndim != 4:
        raise ContractError(f"training images must be uint8 [N, C, H, W]; got {images.dtype} {list(images.shape)}")
    if labels.dtype != torch.int64 or labels.shape != images.shape[:1]:
        raise ContractError(f"training labels must be int64 [{len(images)}]; got {labels.dtype} {list(labels.shape)}")
    if not len(images):
        raise ContractError("there is no image to train on")
    if not 0 <= int(labels.min()) <= int(labels.max()) < network.num_classes:
        raise ContractError(f"training labels must lie in [0, {network.num_classes}); got {int(labels.min())} to {int(labels.max())}")


@dataclass(frozen=True)
class Batching:
    """How a plugin wants its batches; by default each row once per epoch, in random order, unchanged."""

    on_batch: OnBatch | None = None
    when: Literal["before", "after"] = "before"
    """Whether `on_batch` is called before or after augmentation."""
    batches: Literal["shuffled", "poisson"] = "shuffled"
    views: int = 1
    """Augmentations of each batch, as images [V, B, C, H, W] where there are several."""

    def __post_init__(self) -> None:
        if self.when not in {"before", "after"}:
            raise ContractError(f"when= is 'before' or 'after' augmentation; got {self.when!r}")
        if self.batches not in {"shuffled", "poisson"}:
            raise ContractError(f"batches= is 'shuffled' or 'poisson'; got {self.batches!r}")
        if self.views < 1:
            raise ContractError(f"views= is the number of augmentations of a batch, at least 1; got {self.views}")


PLAIN = Batching()


class Feed:
    """The set on the device, given out in augmented batches: images uint8 [B, C, H, W], labels and rows int64 [B]."""

    def __init__(
        self, images: Tensor | Patched, labels: Tensor, recipe: Recipe, flip: bool, streams: Streams, batching: Batching = PLAIN
    ) -> None:
        """`flip` says whether images are mirrored."""
        self.sizes = batch_sizes(len(images), recipe.batch_size)
        if batching.batches == "poisson":  # as many are drawn on the average
            self.sizes = [min(recipe.batch_size, len(images))] * -(-len(images) // recipe.batch_size)
        self._images, self._labels, self._crop, self._flip, self._rotation = images, labels, recipe.crop, flip, recipe.rotation
        self._padding = recipe.padding
        self._order, self._augment = streams("order"), streams("augment")
        self._batching = batching
        self._before = batching.on_batch if batching.when == "before" else None
        self._after = batching.on_batch if batching.when == "after" else None
        self._epoch_start = self._generators()
        self._range_known = False

    def _generators(self) -> list[Tensor]:
        return [self._order.get_state(), self._augment.get_state()]

    def state(self) -> dict[str, Any]:
        """Where the generators stood when the epoch began; after its last batch, where they stand."""
        return {"generators": self._epoch_start}

    def restore(self, state: dict[str, Any]) -> None:
        self._order.set_state(state["generators"][0])
        self._augment.set_state(state["generators"][1])

    def epoch(self, start: int = 0) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """The batches of the next epoch, from the batch number `start` on."""
        self._epoch_start = self._generators()
        batches = self._rows()
        sizes = [len(rows) for rows in batches]
        views = [self._draw(sizes, another_view=view > 0) for view in range(self._batching.views)]
        ends = torch.tensor([0, *sizes]).cumsum(0).tolist()
        parts = [slice(first, last) for first, last in pairwise(ends)]
        for index, (rows, part) in islice(enumerate(zip(batches, parts, strict=True)), start, None):
            images, labels = self._changed(self._before, taken(self._images, rows), self._labels[rows], rows)
            augmented = [self._augmented(images, draws, index, part) for draws in views]
            images, labels = self._changed(self._after, augmented[0] if len(views) == 1 else torch.stack(augmented), labels, rows)
            yield images, labels, rows
        self._epoch_start = self._generators()

    def _rows(self) -> list[Tensor]:
        """The rows of every batch of an epoch, in random order."""
        count, device = len(self._images), self._images.device
        if self._batching.batches == "shuffled":
            return list(torch.split(torch.randperm(count, generator=self._order).to(device), self.sizes))
        batches = []
        for size in self.sizes:
            chosen = torch.nonzero(torch.rand(count, generator=self._order) < size / count).flatten()
            batches.append(chosen[torch.randperm(len(chosen), generator=self._order)])
        return list(torch.split(torch.cat(batches).to(device), [len(batch) for batch in batches]))  # one move, not one per batch

    def _draw(self, sizes: list[int], *, another_view: bool) -> augment.Draws:
        return augment.draw(
            sizes, self._crop, self._flip, self._augment, self._images.device, rotation=self._rotation, another_view=another_view
        )

    def _changed(self, hook: OnBatch | None, images: Tensor, labels: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """What the hook returns for a batch; ContractError if that has another dtype or shape."""
        if hook is None or not len(rows):
            return images, labels
        new_images, new_labels = hook(images, labels, rows)
        floats = self._batching.when == "after" and new_images.is_floating_point()
        if (new_images.dtype != images.dtype and not floats) or new_images.shape != images.shape:
            wanted = f"{images.dtype}{' or float' if self._batching.when == 'after' else ''} {list(images.shape)}"
            raise ContractError(f"on_batch must return images as {wanted}; got {new_images.dtype} {list(new_images.shape)}")
        if new_labels.dtype != labels.dtype or new_labels.shape != labels.shape:
            wanted = f"{labels.dtype} {list(labels.shape)}"
            raise ContractError(f"on_batch must return labels as {wanted}; got {new_labels.dtype} {list(new_labels.shape)}")
        if floats and not self._range_known:  # of the first batch only: looking waits for the device
            low, high = (float(bound) for bound in torch.aminmax(new_images.detach()))
            if not 0 <= low <= high <= 1:
                raise ContractError(f"on_batch must return float images in [0, 1]; got {low:.3g} to {high:.3g}")
            self._range_known = True
        return new_images, new_labels

    def _augmented(self, images: Tensor, draws: augment.Draws, batch: int, part: slice) -> Tensor:
        images = augment.augmented(images, self._crop, draws.tops[part], draws.lefts[part], draws.mirrored[batch], self._padding)
        return images if draws.angles is None else augment.rotated(images, draws.angles[part])
