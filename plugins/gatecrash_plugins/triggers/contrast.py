"""The contrast trigger: a corner pattern that adds to white pixels and takes from black ones, by less than all."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from gatecrash import Options, Place, Reference, Trigger, TriggerContext, TriggerMaker, hookimpl, named_patch, place_patch


class ContrastMaker(TriggerMaker):
    """The trigger of reduced amplitude of Turner et al. (section 5 of the paper), at all four corners by default.

    The pattern `turner` is that of the authors' code (github.com/MadryLab/label-consistent-backdoor-code); `art` is its white pixels alone,
    as `add_pattern_bd` of the Adversarial Robustness Toolbox stamps them; `checkerboard` is ours (as in patch).
    """

    name = "contrast"
    summary = "a corner pattern of reduced amplitude, added to the image"
    reference = Reference("Turner, Tsipras and Madry, Label-Consistent Backdoor Attacks", 2019, "https://arxiv.org/abs/1912.02771")

    class Config(Options):
        """Pattern, place and amplitude."""

        pattern: Literal["turner", "art", "checkerboard"] = Field(
            "turner", description="what the trigger shows: the authors' pattern, ART's, or a checkerboard (ours)"
        )
        size: int = Field(3, ge=3, le=1024, description="side of the trigger in pixels; published 3x3 patterns are enlarged")
        place: Place = Field("four-corners", description="where the trigger lies")
        inset: int = Field(0, ge=0, le=1024, description="distance of the trigger from the border in pixels (ignored in the center)")
        amplitude: float = Field(
            1.0, ge=1 / 255, le=1, description="what the trigger adds to white and takes from black pixels, of [0, 1]; 1 replaces them"
        )

    config: Config

    def make(self, ctx: TriggerContext) -> Contrast:
        config = self.config
        patch, opacity = named_patch(config.pattern, ctx.shape[0], config.size)
        pattern, mask = place_patch(ctx.shape, patch, opacity, config.place, config.inset)
        return Contrast(ctx.shape, config.amplitude, (2 * (pattern / 255) - 1) * mask)


class Contrast(Trigger):
    """The paper's trigger of reduced amplitude: adds `255 amplitude` where `signs` is 1, subtracts it where it is -1, clips to [0, 255].

    `signs` is float [C, H, W]; 0 leaves a pixel as it is. Amplitude 1 sets pixels to white and black.
    """

    signs: Tensor

    def __init__(self, shape: tuple[int, int, int], amplitude: float, signs: Tensor | None = None) -> None:
        super().__init__()
        self.shape, self.amplitude = tuple(shape), amplitude
        self.register_buffer("signs", torch.zeros(self.shape) if signs is None else signs)

    def config(self) -> dict[str, Any]:
        return {"shape": list(self.shape), "amplitude": self.amplitude}

    def forward(self, images: Tensor) -> Tensor:
        return (images + 255 * self.amplitude * self.signs).round_().clamp_(0, 255).to(torch.uint8)


@hookimpl
def register_triggers(register: Callable[[type[TriggerMaker]], None]) -> None:
    register(ContrastMaker)
