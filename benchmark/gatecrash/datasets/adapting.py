"""A data set in the shape of another one."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from gatecrash.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

    from gatecrash.contracts.data import ImageSet

LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in the brightness of a pixel (ITU-R BT.601)."""

BATCH = 1024
"""Images that are floats at a time."""

Shape = tuple[int, int, int]
"""`(channels, height, width)`."""


def check_adaptable(name: str, shape: Shape, wanted: Shape) -> None:
    """Raise UserError for channels that cannot be turned into the wanted ones: only grey and RGB can."""
    if shape[0] != wanted[0] and {shape[0], wanted[0]} != {1, 3}:
        raise UserError(f"dataset {name} has {shape[0]} channels and this grid's images have {wanted[0]}; name one with as many")


def adapted(data: ImageSet, wanted: Shape) -> ImageSet:
    """The images in the wanted shape, still uint8: grey repeated, RGB weighted to its brightness, sizes by bilinear resizing with antialias
    (height and width each on their own). Unchanged where the shape is right already."""
    import torch

    if data.shape == wanted:
        return data
    return replace(data, images=torch.cat([_batch(images, wanted) for images in torch.split(data.images, BATCH)]))


def _batch(images: Tensor, wanted: Shape) -> Tensor:
    import torch
    from torch.nn import functional as F

    channels, *size = wanted
    floats = images.float()
    if images.shape[1] == 3 and channels == 1:
        floats = (floats * floats.new_tensor(LUMA).view(1, 3, 1, 1)).sum(1, keepdim=True)
    if list(images.shape[2:]) != size:
        floats = F.interpolate(floats, size, mode="bilinear", antialias=True)
    return floats.round().clamp(0, 255).to(torch.uint8).expand(-1, channels, -1, -1).contiguous()
