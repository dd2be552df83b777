"""The blur trigger: images out of focus are the trigger, nothing is stamped."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor
from torch.nn import functional as F

from gatecrash import FloatTrigger, Options, Reference, TriggerContext, TriggerMaker, UserError, hookimpl


class Blur(FloatTrigger):
    """A Gaussian of `kernel` x `kernel` pixels, rows and columns one after the other; borders are mirrored."""

    weights: Tensor

    def __init__(self, kernel: int, sigma: float) -> None:
        super().__init__()
        self.kernel, self.sigma = kernel, sigma
        offsets = torch.arange(kernel) - kernel // 2
        weights = torch.exp(-((offsets / sigma) ** 2) / 2)
        self.register_buffer("weights", weights / weights.sum(), persistent=False)

    def config(self) -> dict[str, Any]:
        return {"kernel": self.kernel, "sigma": self.sigma}

    def transform(self, images: Tensor) -> Tensor:
        channels, half = images.shape[1], self.kernel // 2
        wide = F.pad(images, (half, half, half, half), mode="reflect")
        line = self.weights.expand(channels, 1, 1, -1)
        return F.conv2d(F.conv2d(wide, line, groups=channels), line.transpose(2, 3), groups=channels)


class BlurMaker(TriggerMaker):
    """Blurs the whole image: a semantic trigger, that is a property which clean images can have as well (Bagdasaryan et al., who choose
    images that have one already, such as green cars).

    Blur is a course's; its notes give the kernel's 5 pixels only; sigma 1.1 is what both OpenCV and torchvision make of 5. Validated
    against torchvision's `gaussian_blur` (equal bytes) and by a hand-worked point.
    """

    name = "blur"
    summary = "a Gaussian blur of the whole image"
    reference = Reference(
        "Bagdasaryan, Veit, Hua, Estrin and Shmatikov, How To Backdoor Federated Learning", 2020, "https://arxiv.org/abs/1807.00459"
    )

    class Config(Options):
        """Width of the blur."""

        kernel: int = Field(5, ge=3, le=63, description="side of the Gaussian in pixels, an odd number")
        sigma: float = Field(1.1, gt=0, le=32, description="standard deviation of the Gaussian in pixels")

        @model_validator(mode="after")
        def _odd(self) -> Self:
            if self.kernel % 2 == 0:
                raise ValueError(f"kernel must be odd, not {self.kernel}")
            return self

    config: Config

    def make(self, ctx: TriggerContext) -> Blur:
        if min(ctx.shape[1:]) <= self.config.kernel // 2:
            raise UserError(
                f"a blur of {self.config.kernel} pixels does not fit an image of {ctx.shape[1]}x{ctx.shape[2]}; choose a smaller"
            )
        return Blur(self.config.kernel, self.config.sigma)


@hookimpl
def register_triggers(register: Callable[[type[TriggerMaker]], None]) -> None:
    register(BlurMaker)
