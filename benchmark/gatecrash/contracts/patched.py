"""Images of which some rows are exchanged, without a second copy of the others."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Patched:
    """The images of `base`, uint8 [N, C, H, W], but for the rows that `patch`, uint8 [n, C, H, W], has instead.

    `place`, int64 [N], says which of the patch's images a row is, -1 where it is that of `base`. All are on one device.
    """

    base: Tensor
    patch: Tensor
    place: Tensor

    @classmethod
    def of(cls, images: Tensor | Patched, rows: Tensor, exchanged: Tensor) -> Patched:
        """The images with `exchanged` in these rows (int64 [n], each once); neither is changed."""
        device = images.device
        base, patch, place = (
            (images.base, images.patch, images.place)
            if isinstance(images, Patched)
            else (images, images[:0], torch.full((len(images),), -1, device=device))
        )
        placed = place.index_copy(0, rows.to(device), torch.arange(len(patch), len(patch) + len(rows), device=device))
        return cls(base, torch.cat([patch, exchanged.to(base).expand(len(rows), *base.shape[1:])]), placed)

    def __len__(self) -> int:
        return len(self.base)

    @property
    def shape(self) -> torch.Size:
        return self.base.shape

    @property
    def ndim(self) -> int:
        return self.base.ndim

    @property
    def dtype(self) -> torch.dtype:
        return self.base.dtype

    @property
    def device(self) -> torch.device:
        return self.base.device

    def take(self, rows: Tensor) -> Tensor:
        """uint8 [B, C, H, W]: a copy of these rows (int64 [B])."""
        return self._patched(self.base.index_select(0, rows), self.place[rows])

    def whole(self) -> Tensor:
        """uint8 [N, C, H, W]: a copy of all rows."""
        return self._patched(self.base.clone(), self.place)

    def _patched(self, images: Tensor, place: Tensor) -> Tensor:
        rows = torch.nonzero(place >= 0).flatten()
        return images.index_copy_(0, rows, self.patch[place[rows]])


def taken(images: Tensor | Patched, rows: Tensor) -> Tensor:
    """uint8 [B, C, H, W]: a copy of these rows (int64 [B], on the device of the images)."""
    return images.take(rows) if isinstance(images, Patched) else images.index_select(0, rows)


def part(images: Tensor | Patched, rows: slice) -> Tensor:
    """uint8 [B, C, H, W]: consecutive rows, to be read only."""
    return images.take(torch.arange(rows.start, rows.stop, device=images.device)) if isinstance(images, Patched) else images[rows]


def resident(images: Tensor | Patched, device: torch.device) -> Tensor | Patched:
    """The images on the device. On a CPU they stay as they are; on others looking up which rows are exchanged would wait for the device, so
    that they are one tensor there."""
    if isinstance(images, Tensor):
        return images.to(device)
    if device.type == "cpu" and images.device.type == "cpu":
        return images
    if images.device == device:
        return images.whole()
    rows = torch.nonzero(images.place >= 0).flatten()
    return images.base.to(device).index_copy_(0, rows.to(device), images.patch[images.place[rows]].to(device))
