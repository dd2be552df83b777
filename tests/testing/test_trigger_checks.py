"""Each check of a trigger plugin catches one that breaks its promise."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pydantic import Field
from torch import Tensor

from gatecrash import FloatTrigger, Options, Reference, Trigger, TriggerContext, TriggerMaker
from gatecrash.testing import CheckFailed, checks_for, parametrize_with_checks
from gatecrash.testing.check import Check


class Shade(FloatTrigger):
    """Adds a pattern."""

    pattern: Tensor

    def __init__(self, shape: list[int], pattern: Tensor | None = None) -> None:
        super().__init__()
        self.register_buffer("pattern", torch.zeros(shape) if pattern is None else pattern)

    def config(self) -> dict[str, Any]:
        return {"shape": list(self.pattern.shape)}

    def transform(self, images: Tensor) -> Tensor:
        return images + self.pattern


class Sound(TriggerMaker):
    """Random grey, drawn once."""

    name = "shade"
    summary = "adds random grey"
    reference = Reference("A paper", 2024, "https://example.org")

    class Config(Options):
        """Height."""

        upside_down: bool = Field(False, description="turn the pattern round")

    config: Config

    def make(self, ctx: TriggerContext) -> Trigger:
        pattern = torch.rand(ctx.shape, generator=ctx.stream("grey")) / 2
        return Shade(list(ctx.shape), pattern.flip(1) if self.config.upside_down else pattern)


class Dicing(Sound):
    def make(self, ctx: TriggerContext) -> Trigger:
        return Shade(list(ctx.shape), torch.rand(ctx.shape) / 2)


class Crowd(Shade):
    """Brighter in bright company."""

    def transform(self, images: Tensor) -> Tensor:
        return images + images.mean()


class Companionable(Sound):
    def make(self, ctx: TriggerContext) -> Trigger:
        return Crowd(list(ctx.shape))


class Unshaped(Shade):
    """Forgets its pattern."""

    def __init__(self, pattern: Tensor | None = None) -> None:
        FloatTrigger.__init__(self)
        self.pattern = torch.zeros(()) if pattern is None else pattern

    def config(self) -> dict[str, Any]:
        return {}


class Forgetful(Sound):
    def make(self, ctx: TriggerContext) -> Trigger:
        return Unshaped(torch.full(ctx.shape, 0.3))


class DigitsOnly(Sound):
    def make(self, ctx: TriggerContext) -> Trigger:
        return Shade([1, 16, 16], torch.full((1, 16, 16), 0.3))


class Choosy(Sound):
    def make(self, ctx: TriggerContext) -> Trigger:
        if self.config.upside_down:
            raise KeyError("pattern")
        return super().make(ctx)


class Misspelt(Sound):
    deviations = {"act-per-image": "why not"}


BROKEN_TRIGGERS: list[tuple[str, type[TriggerMaker], str]] = [
    ("is-deterministic", Dicing, "got other tensors in the trigger, the trigger of training images"),
    ("acts-per-image", Companionable, "expected the trigger to give each image the same in every batch"),
    ("survives-storage", Forgetful, "expected the trigger to act the same after it was stored"),
    ("works-on-other-images", DigitsOnly, "the trigger to finish"),
    ("every-choice-works", Choosy, "expected upside_down=True to work: .*KeyError"),
    ("honours-the-device", Forgetful, "a tensor in a plain attribute, pattern"),
    ("deviations-are-known", Misspelt, "did you mean 'acts-per-image'"),
]


@pytest.mark.parametrize(("name", "maker", "said"), BROKEN_TRIGGERS)
def test_a_broken_trigger_is_caught(name: str, maker: type[TriggerMaker], said: str) -> None:
    (check,) = (check for check in checks_for(maker()) if check.name == name)
    with pytest.raises(CheckFailed, match=said):
        check(maker())


@parametrize_with_checks([Sound()])
def test_the_sound_trigger_that_the_broken_ones_differ_from_passes(plugin: TriggerMaker, check: Check) -> None:
    check(plugin)
