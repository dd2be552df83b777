"""Random crop, mirroring and rotation of a batch.

Images are padded with zeros (in pixels, as torchvision's RandomCrop does before normalisation) or with their edges. A crop is then a
window of the padded image, and all windows together are a strided view of it, so cropping a batch is a single indexing call. Only the
batch is padded: a padded copy of the set would be larger than the set.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Draws:
    """The random choices of one epoch, in the order in which images are visited.

    `tops` and `lefts` int64 [N] in [0, 2 crop]: the window's corner in the padded image (`crop` leaves the image where it was).
    `mirrored`: of each batch, how many images, from the front, are mirrored, or which (bool [B]). `angles` float32 [N], in radians.
    """

    tops: Tensor
    lefts: Tensor
    mirrored: Sequence[int | Tensor]
    angles: Tensor | None = None


def draw(
    sizes: Sequence[int],
    crop: int,
    flip: bool,
    generator: torch.Generator,
    device: torch.device,
    *,
    rotation: float = 0.0,
    another_view: bool = False,
) -> Draws:
    """Choices for batches of these sizes: uniform windows, each image mirrored with probability 1/2 where `flip`, and turned by up to
    `rotation` degrees either way.

    The number of mirrored images of a batch is drawn, not which: the images come in random order, so mirroring the first k with k
    binomial mirrors each one independently, and on the device it is a slice instead of a selection. In another view of images that a
    first one has mirrored in this way, that would mirror the same ones again, so there each image is chosen.
    """
    count = sum(sizes)
    offsets = torch.randint(0, 2 * crop + 1, (2, count), generator=generator) if crop else torch.zeros(2, count, dtype=torch.int64)
    mirrored: Sequence[int | Tensor] = [0] * len(sizes)
    if flip:
        heads = torch.randint(0, 2, (count,), generator=generator)
        parts = torch.split(heads.bool().to(device) if another_view else heads, list(sizes))
        mirrored = parts if another_view else [int(part.sum()) for part in parts]
    tops, lefts = offsets.to(device)
    angles = (2 * torch.rand(count, generator=generator) - 1).to(device) * math.radians(rotation) if rotation else None
    return Draws(tops, lefts, mirrored, angles)


def windows(images: Tensor, crop: int, padding: str = "zeros") -> Tensor:
    """uint8 [B, C, H, W] -> view [B, 2 crop + 1, 2 crop + 1, C, H, W] of the padded images: every crop of each."""
    height, width = images.shape[2:]
    if padding == "edge":  # torch's own replication knows no uint8
        rows, columns = ((torch.arange(-crop, side + crop, device=images.device)).clamp(0, side - 1) for side in (height, width))
        padded = images[:, :, rows[:, None], columns].contiguous()
    else:
        padded = F.pad(images, (crop, crop, crop, crop)).contiguous()
    row, channel, line, pixel = padded.stride()
    shape = (len(padded), 2 * crop + 1, 2 * crop + 1, padded.shape[1], height, width)
    return padded.as_strided(shape, (row, line, pixel, channel, line, pixel))


def augmented(images: Tensor, crop: int, tops: Tensor, lefts: Tensor, mirrored: int | Tensor, padding: str = "zeros") -> Tensor:
    """uint8 [B, C, H, W], in memory of its own: these windows of the images, those (or so many, from the front) mirrored."""
    rows = torch.arange(len(images), device=images.device)
    images = windows(images, crop, padding)[rows, tops, lefts] if crop else images.clone()
    if isinstance(mirrored, Tensor):
        return torch.where(mirrored.view(-1, 1, 1, 1), images.flip(3), images)
    if mirrored:
        images[:mirrored] = images[:mirrored].flip(3)
    return images


def rotated(images: Tensor, angles: Tensor) -> Tensor:
    """uint8 [B, C, H, W], each turned counter-clockwise about its centre by its angle (float32 [B], radians): bilinear, black outside."""
    height, width = images.shape[2:]
    if not len(images):
        return images
    cos, sin, zero = angles.cos(), angles.sin(), torch.zeros_like(angles)
    # Sampling coordinates run from -1 to 1 along either side, whatever its length.
    lines = torch.stack([cos, -sin * height / width, zero, sin * width / height, cos, zero], 1).view(-1, 2, 3)
    grid = F.affine_grid(lines, list(images.shape), align_corners=False)
    return F.grid_sample(images.float(), grid, mode="bilinear", padding_mode="zeros", align_corners=False).round().to(torch.uint8)
