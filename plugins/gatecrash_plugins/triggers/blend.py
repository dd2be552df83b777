"""The blend trigger: one pattern mixed into the whole image."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from gatecrash import ImageFile, Options, Reference, Stamp, TriggerContext, TriggerMaker, hookimpl, read_sticker


class BlendMaker(TriggerMaker):
    """`x' = (1 - alpha) x + alpha pattern` over the whole image.

    The pattern may be weaker in training, where people look at the data, than at test time. It is drawn from a seed of its own, so that all
    runs of a grid face the same trigger.
    """

    name = "blend"
    summary = "a faint pattern over the whole image"
    reference = Reference(
        "Chen, Liu, Li, Lu and Song, Targeted Backdoor Attacks on Deep Learning Systems Using Data Poisoning",
        2017,
        "https://arxiv.org/abs/1712.05526",
    )

    class Config(Options):
        """Pattern and opacities."""

        pattern: Literal["gaussian", "uniform", "given"] = Field(
            "gaussian",
            description="noise per value (gaussian: mean 127.5, deviation 64, clipped; uniform: 0 to 255), or given: the image file",
        )
        pattern_seed: int = Field(0, ge=0, lt=2**63, description="seed of the noise; the run's seed does not change it")
        image: ImageFile | None = Field(
            None, description="image file for pattern given, resized to the images; its transparent pixels change nothing"
        )
        alpha_train: float = Field(0.2, gt=0, le=1, description="opacity of the pattern on poisoned training images")
        alpha_test: float = Field(0.2, gt=0, le=1, description="opacity of the pattern on test images")

        @model_validator(mode="after")
        def _image_fits_pattern(self) -> Self:
            if self.pattern == "given" and self.image is None:
                raise ValueError("pattern given needs an image file")
            if self.pattern != "given" and self.image is not None:
                raise ValueError(f"image is for pattern given only, not {self.pattern}")
            return self

    config: Config

    def make(self, ctx: TriggerContext) -> Stamp:
        return self._stamp(ctx.shape, self.config.alpha_test)

    def make_train(self, ctx: TriggerContext) -> Stamp:
        return self._stamp(ctx.shape, self.config.alpha_train)

    def _stamp(self, shape: tuple[int, int, int], alpha: float) -> Stamp:
        if self.config.image is not None:
            pattern, mask = read_sticker(self.config.image, shape)
            return Stamp(shape, alpha, pattern, mask)
        return Stamp(shape, alpha, self._noise(shape), torch.ones(shape[1:]))

    def _noise(self, shape: tuple[int, int, int]) -> Tensor:
        """uint8 [C, H, W]."""
        generator = torch.Generator().manual_seed(self.config.pattern_seed)
        if self.config.pattern == "uniform":
            return torch.randint(256, shape, generator=generator, dtype=torch.uint8)
        noise = 127.5 + 64 * torch.randn(shape, generator=generator, dtype=torch.float64)
        return noise.round().clamp(0, 255).to(torch.uint8)


@hookimpl
def register_triggers(register: Callable[[type[TriggerMaker]], None]) -> None:
    register(BlendMaker)
