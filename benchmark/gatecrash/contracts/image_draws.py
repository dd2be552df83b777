"""Random numbers that belong to an image: what a trigger draws for it depends on its pixels alone."""

from __future__ import annotations

import torch
from torch import Tensor

_GOLDEN = -7046029254386353131  # 2^64 over the golden ratio, odd, as a signed 64-bit integer


def image_draws(images: Tensor, count: int, seed: int = 0) -> Tensor:
    """float32 [N, count] in [0, 1), uniform, for images uint8 [N, C, H, W]; `seed` in [0, 2^63).

    Equal images have equal draws, whatever batch they are in and wherever it lies, so that a trigger with random parts is the same function
    for every caller; images that differ in one pixel, and other seeds, have unrelated ones. The first of `count` numbers do not depend on
    `count`. A counter-based generator of 64-bit integers (SplitMix64: Steele, Lea and Flood 2014), exact on every device.
    """
    pixels = images.flatten(1).long() + 1
    weights = _mixed((torch.arange(pixels.shape[1], device=images.device) + 1) * _GOLDEN + seed) | 1
    states = _mixed((pixels * weights).sum(1) ^ _mixed(torch.full((1,), seed, device=images.device)))
    numbers = _mixed(states[:, None] + (torch.arange(count, device=images.device) + 1) * _GOLDEN)
    return (_shifted(numbers, 40)).float() / (1 << 24)


def _shifted(numbers: Tensor, bits: int) -> Tensor:
    """Logical shift to the right of int64, whose own shift keeps the sign."""
    return (numbers >> bits) & ((1 << (64 - bits)) - 1)


def _mixed(numbers: Tensor) -> Tensor:
    """SplitMix64's output function."""
    numbers = (numbers ^ _shifted(numbers, 30)) * -4658895280553007687
    numbers = (numbers ^ _shifted(numbers, 27)) * -7723592293110705685
    return numbers ^ _shifted(numbers, 31)
