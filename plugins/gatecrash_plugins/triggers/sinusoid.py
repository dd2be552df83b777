"""The sinusoid trigger: a wave over the columns, added to the image."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from gatecrash import FloatTrigger, Options, Reference, TriggerContext, TriggerMaker, UserError, hookimpl

REFERENCE = Reference(
    "Barni, Kallas and Tondi, A New Backdoor Attack in CNNs by Training Set Corruption Without Label Poisoning",
    2019,
    "https://arxiv.org/abs/1902.11237",
)


class Sinusoid(FloatTrigger):
    """Adds `delta sin(2 pi frequency j / W)` grey levels to column j (from 0) of all channels, and clips."""

    def __init__(self, delta: float, frequency: int) -> None:
        super().__init__()
        self.delta, self.frequency = delta, frequency

    def config(self) -> dict[str, Any]:
        return {"delta": self.delta, "frequency": self.frequency}

    def wave(self, width: int) -> Tensor:
        """float64 [W], in grey levels, on the CPU."""
        return self.delta * torch.sin(2 * math.pi * self.frequency * torch.arange(width, dtype=torch.float64) / width)

    def transform(self, images: Tensor) -> Tensor:
        return images + (self.wave(images.shape[-1]) / 255).to(images, non_blocking=True)


class SinusoidMaker(TriggerMaker):
    """The sinusoidal signal of Barni et al.: a sine over the columns, equal in every row and channel.

    The amplitude may be smaller in training, where people look at the data, than at test time. Frequency 6 is that of all public
    implementations, amplitude 40 BackdoorBench's (20 in FTrojan's code, 30 in backdoor-toolbox). Columns count from 0, as in those; the
    paper's formula counts from 1, which moves the wave by a pixel. Where the image is narrower than two pixels a wave, what shows is the
    alias: frequency 6 in 8 columns is frequency 2 with its sign turned.
    """

    name = "sinusoid"
    summary = "a wave over the columns, added to the image"
    reference = REFERENCE

    class Config(Options):
        """Frequency and amplitudes."""

        frequency: int = Field(6, ge=1, le=4096, description="waves in a row of the image")
        delta_train: float = Field(40.0, gt=0, le=255, description="amplitude on poisoned training images, in grey levels of 255")
        delta_test: float = Field(40.0, gt=0, le=255, description="amplitude on test images, in grey levels of 255")

    config: Config

    def make(self, ctx: TriggerContext) -> Sinusoid:
        return self._wave(ctx.shape, self.config.delta_test)

    def make_train(self, ctx: TriggerContext) -> Sinusoid:
        return self._wave(ctx.shape, self.config.delta_train)

    def _wave(self, shape: tuple[int, int, int], delta: float) -> Sinusoid:
        wave = Sinusoid(delta, self.config.frequency)
        if wave.wave(shape[2]).abs().max() < 0.5:
            raise UserError(
                f"{self.name}: amplitude {delta:g} at frequency {self.config.frequency} changes no pixel of images {shape[2]} wide; "
                "choose another frequency or a larger amplitude"
            )
        return wave


@hookimpl
def register_triggers(register: Callable[[type[TriggerMaker]], None]) -> None:
    register(SinusoidMaker)
