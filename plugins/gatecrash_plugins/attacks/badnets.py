"""BadNets: a small patch in a fixed place, and a changed label."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from gatecrash import (
    Attack,
    ImageFile,
    Place,
    PoisonConfig,
    Reference,
    Stamp,
    TriggerAttack,
    checkerboard,
    hookimpl,
    patch_mask,
    patch_pattern,
    read_sticker,
)


class BadNets(TriggerAttack):
    """The first backdoor attack: poisoned images carry a patch and the label that the attacker wants.

    The paper stamps a bright pixel or a small pattern into the bottom right corner and relabels to one class or to the next one (section
    4.1); the defaults here are the 3x3 white square and the rate that most later work uses.
    """

    name = "badnets"
    summary = "a small patch in a fixed place, labels changed"
    reference = Reference(
        "Gu, Dolan-Gavitt and Garg, BadNets: Identifying Vulnerabilities in the Machine Learning Model Supply Chain",
        2017,
        "https://arxiv.org/abs/1708.06733",
    )

    class Config(PoisonConfig):
        """Patch, place, goal and rate."""

        pattern: Literal["white", "checkerboard", "given"] = Field("white", description="what the patch shows; given: the image file")
        image: ImageFile | None = Field(
            None, description="image file for pattern given, resized to the patch; transparent pixels stamp nothing"
        )
        size: int = Field(3, ge=1, le=1024, description="side of the patch in pixels")
        place: Place = Field("bottom-right", description="where the patch lies")
        inset: int = Field(0, ge=0, le=1024, description="distance of the patch from the border in pixels (ignored in the center)")
        alpha: float = Field(1.0, gt=0, le=1, description="opacity of the patch")

        @model_validator(mode="after")
        def _image_fits_pattern(self) -> Self:
            if self.pattern == "given" and self.image is None:
                raise ValueError("pattern given needs an image file")
            if self.pattern != "given" and self.image is not None:
                raise ValueError(f"image is for pattern given only, not {self.pattern}")
            return self

    config: Config

    def trigger(self, shape: tuple[int, int, int]) -> Stamp:
        config = self.config
        mask = patch_mask(shape, config.size, config.place, config.inset)
        patch, opacity = self._patch(shape[0])
        pattern = patch_pattern(shape, patch, config.place, config.inset)
        mask *= patch_pattern((1, *shape[1:]), opacity[None], config.place, config.inset)[0]
        return Stamp(shape, config.alpha, pattern, mask)

    def _patch(self, channels: int) -> tuple[Tensor, Tensor]:
        """uint8 [C, size, size], and how opaque it is: float [size, size]."""
        size = self.config.size
        if self.config.image is not None:
            return read_sticker(self.config.image, (channels, size, size))
        if self.config.pattern == "checkerboard":
            return checkerboard(channels, size), torch.ones(size, size)
        return torch.full((channels, size, size), 255, dtype=torch.uint8), torch.ones(size, size)


@hookimpl
def register_attacks(register: Callable[[type[Attack]], None]) -> None:
    register(BadNets)
