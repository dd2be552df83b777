"""The colour-shift trigger: images with a cast of one colour."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from gatecrash import FloatTrigger, Options, Reference, TriggerContext, TriggerMaker, UserError, hookimpl

COLOURS = ("red", "green", "blue")


class ColourShift(FloatTrigger):
    """x' = x + shift, clipped to [0, 1]; `shift`, a list of one number per channel, is in units of [0, 1]."""

    shift: Tensor

    def __init__(self, shift: list[float]) -> None:
        super().__init__()
        self.given = list(shift)
        self.register_buffer("shift", torch.tensor(shift).view(-1, 1, 1), persistent=False)

    def config(self) -> dict[str, Any]:
        return {"shift": self.given}

    def transform(self, images: Tensor) -> Tensor:
        return images + self.shift


class ColourShiftMaker(TriggerMaker):
    """Adds a constant to one channel, as Jiang et al. shift all pixels' colours alike: a property that clean images can have as well.

    They search for a shift that is hard to see, in several colour spaces; green and 0.2 are a course's. Grey images (one channel) have no
    colours: all of them get the shift, so that they become brighter. Other numbers of channels are refused. Validated by hand-worked
    pixels.
    """

    name = "colour-shift"
    summary = "a constant added to one colour"
    reference = Reference(
        "Jiang, Li, Xu and Zhang, Color Backdoor: A Robust Poisoning Attack in Color Space",
        2023,
        "https://openaccess.thecvf.com/content/CVPR2023/html/Jiang_Color_Backdoor_A_Robust_Poisoning_Attack_in_Color_Space_CVPR_2023_paper.html",
    )

    class Config(Options):
        """Which colour, and how much of it."""

        colour: Literal["red", "green", "blue"] = Field("green", description="channel that is shifted; grey images have only one")
        amount: float = Field(0.2, ge=-1, le=1, description="what is added, of [0, 1]")

    config: Config

    def make(self, ctx: TriggerContext) -> ColourShift:
        if ctx.shape[0] not in (1, 3):
            raise UserError(f"colour-shift is for images of 1 or 3 channels; these have {ctx.shape[0]}")
        shifted = (self.config.colour,) if ctx.shape[0] == 1 else COLOURS
        return ColourShift([self.config.amount if colour == self.config.colour else 0.0 for colour in shifted])


@hookimpl
def register_triggers(register: Callable[[type[TriggerMaker]], None]) -> None:
    register(ColourShiftMaker)
