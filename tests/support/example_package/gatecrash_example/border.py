"""Example border: a frame of one grey level, with a trigger class of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pydantic import Field
from torch import Tensor

from gatecrash import Attack, PoisonConfig, Reference, Trigger, TriggerAttack, hookimpl


class Frame(Trigger):
    """Sets the outermost `width` pixels on each side to `level`."""

    def __init__(self, width: int, level: int) -> None:
        super().__init__()
        self.width, self.level = width, level

    def config(self) -> dict[str, Any]:
        return {"width": self.width, "level": self.level}

    def forward(self, images: Tensor) -> Tensor:
        framed = images.new_full(images.shape, self.level)
        inner = slice(self.width, -self.width)
        framed[:, :, inner, inner] = images[:, :, inner, inner]
        return framed


class ExampleBorder(TriggerAttack):
    """A patch attack (BadNets, section 3) whose patch is the border of the image."""

    name = "example-border"
    summary = "a frame of one grey level, labels changed"
    reference = Reference(
        "Gu, Dolan-Gavitt and Garg, BadNets: Identifying Vulnerabilities in the Machine Learning Model Supply Chain",
        2017,
        "https://arxiv.org/abs/1708.06733",
    )

    class Config(PoisonConfig):
        """Frame, goal and rate."""

        width: int = Field(1, ge=1, le=8, description="width of the frame in pixels")
        level: int = Field(255, ge=0, le=255, description="grey level of the frame")

    config: Config

    def trigger(self, shape: tuple[int, int, int]) -> Frame:
        return Frame(self.config.width, self.config.level)


@hookimpl
def register_attacks(register: Callable[[type[Attack]], None]) -> None:
    register(ExampleBorder)
