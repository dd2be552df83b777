"""Transformations of test images that a photo may go through before a classifier sees it: does the accuracy, does the trigger survive?

Every test image, clean or triggered (the trigger comes first), is changed as uint8 and stays uint8 of its shape. How an image is changed
depends on the transformation and on the image's place in the test set alone: its clean and its triggered versions, all cells, all seeds and
all devices have the same draws. Course notes on data poisoning name rotation by 15 degrees, colour jitter, blur, crop and JPEG, and call a
trigger robust that keeps an ASR above 80%; the amounts that they leave open are torchvision's examples and are stated with each function.

All but one are batched tensor code on the images' device. JPEG goes through Pillow's codec (libjpeg-turbo) on the CPU, image by image:
what is measured is then what a file does to an image, with its chroma subsampling and its integer arithmetic, and not a model of it. CPU
and GPU runs get the same bytes. (torchvision's codec takes lists, but on a CPU goes through them one by one too, and is deprecated.)
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from gatecrash.contracts.image_draws import image_draws
from gatecrash.contracts.randomness import seed_of

Draw = Callable[[int], Tensor]
"""`draw(count)`: float32 [n, count] in [0, 1), uniform, a row for each image."""
Transformation = Callable[[Tensor, Draw], Tensor]
"""Of images uint8 [n, C, H, W]: uint8 of the same shape."""

VALUES = 1 << 21
"""Pixel values that are changed at a time."""
GREY = (0.299, 0.587, 0.114)
"""Luma of red, green and blue (ITU-R BT.601), as in torchvision."""


def transformed(name: str, images: Tensor, sources: Tensor) -> Tensor:
    """uint8 [N, C, H, W] on the images' device: the images under that transformation, by `TRANSFORMATIONS`.

    `sources` (int64 [N], on the CPU) are their places in the test set: images of one place have the same draws.
    """
    change, seed = TRANSFORMATIONS[name], seed_of("robustness", name)
    made = torch.empty_like(images)
    size = max(1, VALUES // max(1, images[0].numel() if len(images) else 1))
    for start in range(0, len(images), size):
        numbers = _bytes(sources[start : start + size].to(images.device))
        made[start : start + size] = change(images[start : start + size], partial(image_draws, numbers, seed=seed))
    return made


def _bytes(numbers: Tensor) -> Tensor:
    """uint8 [n, 1, 1, 8] for int64 [n]: the form in which `image_draws` takes what its draws belong to."""
    return ((numbers[:, None] >> torch.arange(0, 64, 8, device=numbers.device)) & 255).to(torch.uint8)[:, None, None]


def _rounded(values: Tensor) -> Tensor:
    return values.round().clamp(0, 255).to(torch.uint8)


def rotated(images: Tensor, draw: Draw) -> Tensor:
    """Turned about the centre by an angle from [-15, 15] degrees, bilinear; black where there is no image."""
    angle = torch.deg2rad(30 * draw(1)[:, 0] - 15)
    height, width = images.shape[-2:]
    cosine, sine = (turn[:, None, None] for turn in (angle.cos(), angle.sin()))
    # In coordinates from -1 to 1 along each side, whatever its length.
    across, down = ((2 * torch.arange(side, device=images.device) + 1) / side - 1 for side in (width, height))
    across, down = across[None, None, :], down[None, :, None]
    grid = torch.stack([cosine * across - sine * height / width * down, sine * width / height * across + cosine * down], 3)
    return _rounded(F.grid_sample(images.float(), grid, mode="bilinear", padding_mode="zeros", align_corners=False))


def jittered(images: Tensor, draw: Draw) -> Tensor:
    """Brightness, contrast (about the image's mean grey) and, with three channels, saturation, each times a factor from [0.8, 1.2]."""
    brightness, contrast, saturation = (0.8 + 0.4 * draw(3)).T[:, :, None, None, None]
    changed = (images.float() * brightness).clamp(0, 255)
    mean = _grey(changed).mean((1, 2, 3), keepdim=True)
    changed = (mean + (changed - mean) * contrast).clamp(0, 255)
    grey = _grey(changed)
    return _rounded(grey + (changed - grey) * saturation if images.shape[1] == len(GREY) else changed)


def _grey(images: Tensor) -> Tensor:
    """float [n, 1, H, W]."""
    if images.shape[1] != len(GREY):
        return images.mean(1, keepdim=True)
    return (images * torch.tensor(GREY, device=images.device)[:, None, None]).sum(1, keepdim=True)


def blurred(images: Tensor, draw: Draw) -> Tensor:
    """A Gaussian of 3x3 pixels with a standard deviation of 1; borders repeated."""
    del draw
    side = torch.tensor([-0.5, 0.0, -0.5]).exp().tolist()  # exp(-x^2 / 2) at -1, 0 and 1
    padded = F.pad(images.float(), (1, 1, 1, 1), mode="replicate")
    height, width = images.shape[-2:]
    across = sum(weight * padded[..., place : place + width] for place, weight in enumerate(side)) / sum(side)
    return _rounded(sum(weight * across[..., place : place + height, :] for place, weight in enumerate(side)) / sum(side))


def shifted(images: Tensor, draw: Draw) -> Tensor:
    """Moved by whole pixels, up to an eighth of each side (as a crop of an image with a black border); black where there is no image."""
    height, width = images.shape[-2:]
    down, right = ((2 * (side // 8) + 1) * draws for side, draws in zip((height, width), draw(2).T, strict=True))
    padded = F.pad(images, (width // 8, width // 8, height // 8, height // 8))
    return _windows(padded, down.long(), right.long(), height, width)


def cropped(images: Tensor, draw: Draw) -> Tensor:
    """A random part of 7/8 of each side, enlarged to the image's size, bilinear."""
    height, width = images.shape[-2:]
    sizes = [side - side // 8 for side in (height, width)]
    top, left = ((side - size + 1) * draws for side, size, draws in zip((height, width), sizes, draw(2).T, strict=True))
    part = _windows(images, top.long(), left.long(), *sizes)
    return _rounded(F.interpolate(part.float(), (height, width), mode="bilinear", align_corners=False))


def _windows(images: Tensor, top: Tensor, left: Tensor, height: int, width: int) -> Tensor:
    """The part of each image from its row `top` and its column `left` (int64 [n]) on: [n, C, height, width]."""
    rows = top[:, None] + torch.arange(height, device=images.device)
    columns = left[:, None] + torch.arange(width, device=images.device)
    every = torch.arange(len(images), device=images.device)[:, None, None]
    return images.permute(0, 2, 3, 1)[every, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def jpeg(images: Tensor, draw: Draw, quality: int) -> Tensor:
    """Saved as a JPEG file and read again; images of neither one nor three channels as one grey file for each channel."""
    del draw
    coloured = images.shape[1] == len(GREY)
    pixels = images.permute(0, 2, 3, 1) if coloured else images.flatten(0, 1)
    read = torch.from_numpy(np.stack([_saved_and_read(each, quality) for each in pixels.contiguous().cpu().numpy()]))
    return (read.permute(0, 3, 1, 2) if coloured else read.view(images.shape)).contiguous().to(images.device)


def _saved_and_read(pixels: NDArray[np.uint8], quality: int) -> NDArray[np.uint8]:
    """uint8 [H, W, 3] or, grey, [H, W]."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file))


def rescaled(images: Tensor, draw: Draw) -> Tensor:
    """Scaled to half of each side and back, bilinear, with antialiasing on the way down."""
    del draw
    height, width = images.shape[-2:]
    small = F.interpolate(images.float(), (max(1, height // 2), max(1, width // 2)), mode="bilinear", antialias=True)
    return _rounded(F.interpolate(small, (height, width), mode="bilinear", align_corners=False))


def noisy(images: Tensor, draw: Draw) -> Tensor:
    """Gaussian noise with a standard deviation of 5% of the range, for each pixel and channel."""
    count = images[0].numel()
    first, second = draw(2 * count).chunk(2, 1)
    normal = (-2 * (1 - first).log()).sqrt() * (2 * torch.pi * second).cos()  # Box and Muller 1958; 1 - first is never 0
    return _rounded(images.float() + 0.05 * 255 * normal.view(images.shape))


TRANSFORMATIONS: Mapping[str, Transformation] = {
    "rotation": rotated,
    "jitter": jittered,
    "blur": blurred,
    "shift": shifted,
    "crop": cropped,
    "jpeg-90": partial(jpeg, quality=90),
    "jpeg-70": partial(jpeg, quality=70),
    "jpeg-50": partial(jpeg, quality=50),
    "scaling": rescaled,
    "noise": noisy,
}
"""By name; `options.TRANSFORMED` has the names in order. Raise `versions.ROBUSTNESS_VERSION` with any change."""
