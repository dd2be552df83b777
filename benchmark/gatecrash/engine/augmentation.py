"""Random crop and mirroring of a resident data set, one gather per batch.

The set is zero-padded once (in pixels, as torchvision's RandomCrop does before normalisation). A crop is then a window of the padded
image, and all windows together are a strided view of it, so cropping a batch is a single indexing call that copies only what it returns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Draws:
    """The random choices of one epoch, in the order in which images are visited.

    `tops` and `lefts` int64 [N] in [0, 2 crop]: the window's corner in the padded image (`crop` leaves the image where it was).
    `mirrored`: how many images, from the front, each batch mirrors.
    """

    tops: Tensor
    lefts: Tensor
    mirrored: Sequence[int]


def draw(sizes: Sequence[int], crop: int, flip: bool, generator: torch.Generator, device: torch.device) -> Draws:
    """Choices for batches of these sizes: uniform windows, each image mirrored with probability 1/2 where `flip`.

    The number of mirrored images of a batch is drawn, not which: the images come in random order, so mirroring the first k with k
    binomial mirrors each one independently, and on the device it is a slice instead of a selection.
    """
    count = sum(sizes)
    offsets = torch.randint(0, 2 * crop + 1, (2, count), generator=generator) if crop else torch.zeros(2, count, dtype=torch.int64)
    mirrored = [0] * len(sizes)
    if flip:
        heads = torch.randint(0, 2, (count,), generator=generator)
        mirrored = [int(part.sum()) for part in torch.split(heads, list(sizes))]
    tops, lefts = offsets.to(device)
    return Draws(tops, lefts, mirrored)


def windows(images: Tensor, crop: int) -> Tensor:
    """uint8 [N, C, H, W] -> view [N, 2 crop + 1, 2 crop + 1, C, H, W] of the zero-padded set: every crop of every image."""
    height, width = images.shape[2:]
    padded = F.pad(images, (crop, crop, crop, crop)).contiguous() if crop else images.contiguous()
    row, channel, line, pixel = padded.stride()
    shape = (len(padded), 2 * crop + 1, 2 * crop + 1, padded.shape[1], height, width)
    return padded.as_strided(shape, (row, line, pixel, channel, line, pixel))


def augmented(crops: Tensor, rows: Tensor, tops: Tensor, lefts: Tensor, mirrored: int) -> Tensor:
    """uint8 [B, C, H, W]: the images `rows` of `crops` (see `windows`) at these windows, the first `mirrored` of them mirrored."""
    # Without padding there is one window per image, and selecting whole images is faster than looking windows up.
    images = crops[rows, tops, lefts] if crops.shape[1] > 1 else crops[:, 0, 0].index_select(0, rows)
    if mirrored:
        images[:mirrored] = images[:mirrored].flip(3)
    return images
