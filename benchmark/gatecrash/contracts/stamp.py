"""`Stamp`, the trigger that mixes a fixed pattern into the image, and functions that make its masks and patterns.

A stamped image is `x' = (1 - mask) x + mask ((1 - alpha) x + alpha pattern)`: BadNets (Gu et al. 2017) with alpha = 1, Blend (Chen et al.
2017) with a mask of ones.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from gatecrash.contracts.config import Content, file_hash
from gatecrash.contracts.picture import is_turned, open_image
from gatecrash.contracts.trigger import Trigger
from gatecrash.errors import UserError


class Stamp(Trigger):
    """Mixes a fixed pattern into each image at a fixed place.

    `pattern` uint8 [C, H, W] and `mask` float [H, W] in [0, 1] are buffers; `alpha` in (0, 1] is how much of the pattern shows.
    """

    pattern: Tensor
    mask: Tensor

    def __init__(self, shape: tuple[int, int, int], alpha: float, pattern: Tensor | None = None, mask: Tensor | None = None) -> None:
        super().__init__()
        self.shape, self.alpha = tuple(shape), alpha
        channels, height, width = self.shape
        self.register_buffer("pattern", torch.zeros(channels, height, width, dtype=torch.uint8) if pattern is None else pattern)
        self.register_buffer("mask", torch.zeros(height, width) if mask is None else mask.float())

    def config(self) -> dict[str, Any]:
        return {"shape": list(self.shape), "alpha": self.alpha}

    def forward(self, images: Tensor) -> Tensor:
        weight = self.alpha * self.mask
        mixed = images * (1 - weight) + weight * self.pattern
        return mixed.round_().clamp_(0, 255).to(torch.uint8)


Place = Literal["bottom-right", "bottom-left", "top-right", "top-left", "center", "four-corners"]
"""Where a patch lies; `four-corners` places one in each corner."""


def patch_mask(shape: tuple[int, int, int], size: int, place: Place, inset: int) -> Tensor:
    """float [H, W]: ones where a `size` x `size` patch lies, `inset` pixels from the border (in the center it has none).

    Raises UserError if the patch does not fit.
    """
    _, height, width = shape
    side = {"center": size, "four-corners": 2 * (size + inset)}.get(place, size + inset)
    if side > min(height, width):
        raise UserError(
            f"a {size}x{size} patch at {place} with inset {inset} does not fit an image of {height}x{width}; choose a smaller size or inset"
        )
    mask = torch.zeros(height, width)
    for top, left in _corners(shape, size, place, inset):
        mask[top : top + size, left : left + size] = 1
    return mask


def patch_pattern(shape: tuple[int, int, int], patch: Tensor, place: Place, inset: int) -> Tensor:
    """[C, H, W]: `patch` [C, s, s] (uint8 pixels, or float opacities) copied to its place(s); zeros elsewhere.

    Of four corners the left ones show the patch mirrored, so that a random flip in training leaves the trigger as it is (as in the code
    published with Turner et al. 2019).
    """
    size = patch.shape[-1]
    pattern = torch.zeros(shape, dtype=patch.dtype)
    for top, left in _corners(shape, size, place, inset):
        mirrored = place == "four-corners" and left == inset
        pattern[:, top : top + size, left : left + size] = patch.flip(2) if mirrored else patch
    return pattern


def place_patch(shape: tuple[int, int, int], patch: Tensor, opacity: Tensor, place: Place, inset: int) -> tuple[Tensor, Tensor]:
    """A patch (uint8 [C, s, s]) and how opaque it is (float [s, s]) at its place(s): pattern uint8 [C, H, W] and mask float [H, W].

    Raises UserError if the patch does not fit.
    """
    mask = patch_mask(shape, patch.shape[-1], place, inset)
    mask *= patch_pattern((1, *shape[1:]), opacity[None], place, inset)[0]
    return patch_pattern(shape, patch, place, inset), mask


PatchName = Literal["white", "checkerboard", "turner", "art"]
"""A patch's pattern: `white`; `checkerboard`, ours; or published ones of 3x3 pixels that look much like it:

`turner`: what the code of Turner et al. 2019 stamps into CIFAR-10 (github.com/MadryLab/label-consistent-backdoor-code, poison_attack.py):
five pixels white and four black, as a checkerboard but for the top left one, which is black.

`art`: `add_pattern_bd` of IBM's Adversarial Robustness Toolbox (art.attacks.poisoning.perturbations): four pixels white, the other five as
they were. It lies there one pixel from the border (`distance` 2, here inset 1).
"""

_PUBLISHED = {"turner": ("001", "010", "101"), "art": ("  1", " 1 ", "1 1")}
"""White (1), black (0) and untouched pixels, from above."""


def named_patch(name: PatchName, channels: int, size: int) -> tuple[Tensor, Tensor]:
    """A patch by its name: uint8 [C, size, size] of 0 and 255, and where it is stamped: float [size, size] of 0 and 1.

    Published patterns are enlarged (nearest pixel) to `size`; UserError below their 3 pixels.
    """
    if name == "white":
        return torch.full((channels, size, size), 255, dtype=torch.uint8), torch.ones(size, size)
    if name == "checkerboard":
        return checkerboard(channels, size), torch.ones(size, size)
    if size < len(_PUBLISHED[name]):
        raise UserError(f"the pattern {name} has 3x3 pixels; choose size 3 or more, not {size}")
    nearest = torch.arange(size) * 3 // size
    cells = torch.tensor([[ord(cell) for cell in row] for row in _PUBLISHED[name]])[nearest][:, nearest]
    white = ((cells == ord("1")) * 255).to(torch.uint8)
    return white.expand(channels, size, size).clone(), (cells != ord(" ")).float()


def checkerboard(channels: int, size: int) -> Tensor:
    """uint8 [C, size, size] of 0 and 255 by turns, white at the bottom right pixel. No publication's: those are in `named_patch`."""
    cells = torch.arange(size)
    white = (cells[:, None] + cells[None, :]) % 2 == 0
    if not white[-1, -1]:
        white = ~white
    return (white * 255).to(torch.uint8).expand(channels, size, size).clone()


def _image_key(path: Path) -> str:
    """The file's hash; marked where the picture is not what versions before transparency and orientation counted made of the file."""
    with suppress(UserError):
        image = open_image(path)
        transparent = image.mode == "RGBA" and image.getchannel("A").getextrema() != (255, 255)
        if transparent or is_turned(path):
            return f"{file_hash(path)}, as seen"
    return file_hash(path)


ImageFile = Annotated[Path, Content(_image_key)]
"""Type of an option that is an image file for `read_image` or `read_sticker`; it enters keys by the hash of its content."""


def read_image(path: Path, shape: tuple[int, int, int]) -> Tensor:
    """uint8 [C, H, W] from an image file, as grey levels (one channel) or RGB (three), resized (bilinear) to `shape`.

    Raises UserError naming a file that cannot be decoded or has transparent pixels (see `read_sticker`), and for images of other numbers
    of channels.
    """
    pattern, mask = read_sticker(path, shape)
    if not bool((mask == 1).all()):
        raise UserError(f"the image {path} has transparent pixels, which this trigger cannot leave out; give one without transparency")
    return pattern


def read_sticker(path: Path, shape: tuple[int, int, int]) -> tuple[Tensor, Tensor]:
    """`(pattern, mask)` from an image file: uint8 [C, H, W] as from `read_image`, and how opaque it is, float [H, W] in [0, 1].

    Without transparency in the file the mask is ones. Raises UserError naming a file that cannot be decoded or is transparent everywhere,
    and for images of other numbers of channels.
    """
    channels, height, width = shape
    if channels not in (1, 3):
        raise UserError(f"{path} cannot be a pattern for images of {channels} channels; files give 1 (grey) or 3 (RGB)")
    mode = "L" if channels == 1 else "RGB"
    image = open_image(path)
    if image.mode != "RGBA" or image.getchannel("A").getextrema() == (255, 255):
        image = image.convert(mode)
    image = image.resize((width, height), Image.Resampling.BILINEAR)
    opacity = np.asarray(image.getchannel("A")) if image.mode == "RGBA" else np.full((height, width), 255, np.uint8)
    if not opacity.any():
        raise UserError(f"the image {path} is transparent everywhere at {height}x{width} pixels; give one that shows something")
    pixels = np.asarray(image.convert(mode))
    pattern = torch.from_numpy(pixels.copy()).view(height, width, channels).permute(2, 0, 1).contiguous()
    return pattern, torch.from_numpy(opacity / np.float32(255))


def _corners(shape: tuple[int, int, int], size: int, place: Place, inset: int) -> list[tuple[int, int]]:
    _, height, width = shape
    top, left, bottom, right = inset, inset, height - inset - size, width - inset - size
    return {
        "bottom-right": [(bottom, right)],
        "bottom-left": [(bottom, left)],
        "top-right": [(top, right)],
        "top-left": [(top, left)],
        "center": [((height - size) // 2, (width - size) // 2)],
        "four-corners": [(top, left), (top, right), (bottom, left), (bottom, right)],
    }[place]
