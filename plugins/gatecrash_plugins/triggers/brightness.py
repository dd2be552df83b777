"""The brightness trigger: brighter images are the trigger, nothing is stamped."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pydantic import Field
from torch import Tensor

from gatecrash import FloatTrigger, Options, Reference, TriggerContext, TriggerMaker, hookimpl


class Brightness(FloatTrigger):
    """x' = factor x, clipped to [0, 1]."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def config(self) -> dict[str, Any]:
        return {"factor": self.factor}

    def transform(self, images: Tensor) -> Tensor:
        return images * self.factor


class BrightnessMaker(TriggerMaker):
    """Multiplies all pixels: a semantic trigger, that is a property which clean images can have as well (Bagdasaryan et al., who choose
    images that have one already, such as green cars).

    Brightness and its factor are a course's. Random brightness in training would teach the network to ignore it. Validated by hand-worked
    pixels.
    """

    name = "brightness"
    summary = "all pixels times a factor"
    reference = Reference(
        "Bagdasaryan, Veit, Hua, Estrin and Shmatikov, How To Backdoor Federated Learning", 2020, "https://arxiv.org/abs/1807.00459"
    )

    class Config(Options):
        """How much brighter."""

        factor: float = Field(1.3, ge=0, le=10, description="what all pixels are multiplied by; below 1 images get darker")

    config: Config

    def make(self, ctx: TriggerContext) -> Brightness:
        del ctx
        return Brightness(self.config.factor)


@hookimpl
def register_triggers(register: Callable[[type[TriggerMaker]], None]) -> None:
    register(BrightnessMaker)
