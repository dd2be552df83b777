"""The frequency trigger: a few coefficients of the image's cosine transform are raised."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from gatecrash import FloatTrigger, Options, Reference, TriggerContext, TriggerMaker, UserError, hookimpl

REFERENCE = Reference(
    "Wang, Yao, Xu, An, Tong and Wang, An Invisible Black-box Backdoor Attack through Frequency Domain",
    2022,
    "https://arxiv.org/abs/2111.10991",
)

TO_RGB = ((1.0, 1.403, 0.0), (1.0, -0.714, -0.344), (1.0, 0.0, 1.773))
"""Rows R, G, B of what Y, Cr and Cb contribute, as in OpenCV (ITU-R BT.601)."""


def cosines(size: int) -> Tensor:
    """float64 [size, size]: the orthonormal DCT-II as a matrix; row k is frequency k, and its transpose is the inverse."""
    places, frequencies = torch.arange(size, dtype=torch.float64) + 0.5, torch.arange(size, dtype=torch.float64)
    matrix = math.sqrt(2 / size) * torch.cos(math.pi * frequencies[:, None] * places / size)
    matrix[0] /= math.sqrt(2)
    return matrix


class Frequency(FloatTrigger):
    """Adds `pattern`, float [C, H, W] in [0, 1] pixel units, and clips.

    Raising coefficients of a linear transform is adding the images of those coefficients: one pattern for all images.
    """

    pattern: Tensor

    def __init__(self, shape: tuple[int, int, int], pattern: Tensor | None = None) -> None:
        super().__init__()
        self.shape = tuple(shape)
        self.register_buffer("pattern", torch.zeros(self.shape) if pattern is None else pattern)

    def config(self) -> dict[str, Any]:
        return {"shape": list(self.shape)}

    def transform(self, images: Tensor) -> Tensor:
        return images + self.pattern


class FrequencyMaker(TriggerMaker):
    """FTrojan's trigger: RGB to YCrCb, an orthonormal DCT-II of each window, `magnitude` added to a middle and the highest frequency of Cr
    and Cb, and back; clipped.

    Windows are the whole image by default, which for 32 x 32 pixels are the authors' windows and positions (15, 15) and (31, 31). Magnitude
    30 is BackdoorBench's for 32 pixels (20 and 50 in the authors' scripts); its effect on a pixel shrinks with the window's side. Images of
    one channel, or of any number but three, have no chroma: each channel gets the coefficients itself.

    Nothing is rounded on the way, where published code truncates YCrCb to uint8; what leaves [0, 255] is clipped, where its chroma wraps.
    """

    name = "frequency"
    summary = "two frequencies of the colours raised, over the whole image"
    reference = REFERENCE

    class Config(Options):
        """Frequencies and how much they are raised."""

        magnitude: float = Field(
            30.0, gt=0, le=100_000, description="what each coefficient of an orthonormal DCT is raised by, where pixels lie in [0, 255]"
        )
        window: int | None = Field(
            None, ge=2, le=4096, description="side of the windows in pixels, which must fill the image; by default the image is one window"
        )
        positions: tuple[tuple[int, int], ...] | None = Field(
            None,
            min_length=1,
            max_length=64,
            description="coefficients as (row, column) from 0; by default the middle one, (side / 2 - 1) each way, and the last one",
        )
        channels: Literal["chroma", "all"] = Field("chroma", description="of colour images: Cr and Cb alone, or Y as well")

    config: Config

    def make(self, ctx: TriggerContext) -> Frequency:
        pattern = self._gains(ctx.shape[0]).view(-1, 1, 1) * self._wave(*ctx.shape[1:])
        if pattern.abs().max() < 0.5 / 255:
            raise UserError(f"{self.name}: magnitude {self.config.magnitude:g} changes no pixel of images {ctx.shape}; choose a larger one")
        return Frequency(ctx.shape, pattern.float())

    def _gains(self, channels: int) -> Tensor:
        """float64 [C]: what each channel of the image gains where every raised channel gains 1."""
        if channels != 3:
            return torch.ones(channels, dtype=torch.float64)
        raised = torch.tensor([self.config.channels == "all", 1, 1], dtype=torch.float64)
        return torch.tensor(TO_RGB, dtype=torch.float64) @ raised

    def _wave(self, height: int, width: int) -> Tensor:
        """float64 [H, W]: what one raised channel gains, in [0, 1] pixel units."""
        rows, columns = (self.config.window or side for side in (height, width))
        if height % rows or width % columns:
            raise UserError(f"{self.name}: windows of {rows}x{columns} do not fill an image of {height}x{width}; leave window out")
        coefficients = torch.zeros(rows, columns, dtype=torch.float64)
        for row, column in self.config.positions or (((rows - 1) // 2, (columns - 1) // 2), (rows - 1, columns - 1)):
            if not (0 <= row < rows and 0 <= column < columns):
                raise UserError(f"{self.name}: there is no coefficient ({row}, {column}) in a window of {rows}x{columns}")
            coefficients[row, column] = self.config.magnitude / 255
        return (cosines(rows).T @ coefficients @ cosines(columns)).repeat(height // rows, width // columns)


@hookimpl
def register_triggers(register: Callable[[type[TriggerMaker]], None]) -> None:
    register(FrequencyMaker)
