"""Adap-Patch: poison shows one of four faint patches, covers too, and test images two of them in full."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor
from torch.nn import functional as F

from gatecrash import Attack, CoverConfig, ImageFile, Reference, Trigger, TriggerAttack, hookimpl, named_patch, place_patch, read_sticker
from gatecrash_plugins.attacks._some_of import SomeOf

Opacity = Annotated[float, Field(gt=0, le=1)]
Number = Annotated[int, Field(ge=1, le=4)]


class AdapPatch(TriggerAttack):
    """Adaptive-Patch (section 4 of the paper): poison and covers alike show one of four patches, faintly; covers keep their label.

    Test images show two patches at full opacity. Rates, opacities, sizes and places are those of the authors' code for CIFAR-10
    (github.com/vtu81/backdoor-toolbox, images of 32 pixels; sizes follow the image's, with 3 pixels at least).

    Otherwise than there: their patches are pictures (a phoenix, a browser's sign, a watermark; the third is black and white corners), ours
    have colours drawn from a seed, unless files are given; the test shows patch 1 where training images have it, not at the bottom left as
    well; poison is not drawn from the target class; each image draws its patch from its own pixels, so that quarters are not exact. On
    GTSRB the authors test patches 2 and 4. docs/measured/adap-patch.md compares with the authors' code.
    """

    name = "adap-patch"
    summary = "one of four faint patches on training images, two full ones at test time, with covers"
    reference = Reference(
        "Qi, Xie, Li, Mahloujifar and Mittal, Revisiting the Assumption of Latent Separability for Backdoor Defenses",
        2023,
        "https://openreview.net/forum?id=_wSHsgrVali",
    )

    class Config(CoverConfig):
        """Patches, goal and rates."""

        poison_rate: float = Field(0.003, gt=0, le=1, description="poisoned share of the whole training set")
        cover_rate: float = Field(0.006, ge=0, lt=1, description="covers' share of the whole training set: they keep their label")
        alphas_train: tuple[Opacity, Opacity, Opacity, Opacity] = Field(
            (0.5, 0.2, 0.5, 0.3), description="opacities of the four patches on poisoned and cover images"
        )
        alpha_test: float = Field(1.0, gt=0, le=1, description="opacity of the patches on test images")
        tested: tuple[Number, ...] = Field((1, 3), min_length=1, max_length=4, description="patches on test images, by number from 1")
        pattern_seed: int = Field(0, ge=0, lt=2**63, description="seed of the patches and draws; the run's seed does not change it")
        image_1: ImageFile | None = Field(None, description="image file that shows patch 1 in its place, transparent around it")
        image_2: ImageFile | None = Field(None, description="image file that shows patch 2 in its place, transparent around it")
        image_3: ImageFile | None = Field(None, description="image file that shows patch 3 in its place, transparent around it")
        image_4: ImageFile | None = Field(None, description="image file that shows patch 4 in its place, transparent around it")

        @model_validator(mode="after")
        def _each_is_tested_once(self) -> Self:
            if len(set(self.tested)) < len(self.tested):
                raise ValueError("tested names a patch twice")
            return self

    config: Config

    def trigger(self, shape: tuple[int, int, int]) -> Trigger:
        numbers = self.config.tested
        return self._layers(shape, numbers, (self.config.alpha_test,) * len(numbers), len(numbers))

    def train_trigger(self, shape: tuple[int, int, int]) -> Trigger:
        return self._layers(shape, (1, 2, 3, 4), self.config.alphas_train, 1)

    def _layers(self, shape: tuple[int, int, int], numbers: tuple[int, ...], alphas: tuple[float, ...], shown: int) -> SomeOf:
        patterns, masks = zip(*(self._patch(shape, number) for number in numbers), strict=True)
        weights = torch.stack(masks) * torch.tensor(alphas)[:, None, None]
        return SomeOf(shape, len(numbers), shown, self.config.pattern_seed, False, torch.stack(patterns), weights)

    def _patch(self, shape: tuple[int, int, int], number: int) -> tuple[Tensor, Tensor]:
        """Patch `number` in its place: uint8 [C, H, W], and how opaque it is there: float [H, W]."""
        config = self.config
        if (file := (config.image_1, config.image_2, config.image_3, config.image_4)[number - 1]) is not None:
            return read_sticker(file, shape)

        def pixels(of_32: int) -> int:
            return round(of_32 * min(shape[1:]) / 32)

        size = max(3, pixels((5, 13, 3, 8)[number - 1]))
        if number == 1:
            return place_patch(shape, self._picture(shape[0], size, 1), torch.ones(size, size), "bottom-right", 0)
        if number == 2:
            return place_patch(shape, self._picture(shape[0], size, 2), _disc(size), "top-right", pixels(1))
        if number == 3:
            return place_patch(shape, *named_patch("turner", shape[0], size), "four-corners", 0)
        return place_patch(shape, self._picture(shape[0], size, 4), torch.ones(size, size), "bottom-right", pixels(3))

    def _picture(self, channels: int, size: int, number: int) -> Tensor:
        """uint8 [C, size, size]: smooth colours between 4 x 4 drawn ones, each channel from 0 to 255."""
        generator = torch.Generator().manual_seed(self.config.pattern_seed)
        drawn = torch.rand(4, channels, 4, 4, generator=generator, dtype=torch.float64)[number - 1]
        smooth = F.interpolate(drawn[None], (size, size), mode="bilinear", align_corners=True)[0]
        low, high = smooth.amin((1, 2), keepdim=True), smooth.amax((1, 2), keepdim=True)
        return ((smooth - low) / (high - low) * 255).round().to(torch.uint8)


def _disc(size: int) -> Tensor:
    """float [size, size]: ones in the largest disc."""
    away = (torch.arange(size) - (size - 1) / 2).square()
    return (away[:, None] + away <= (size / 2) ** 2).float()


@hookimpl
def register_attacks(register: Callable[[type[Attack]], None]) -> None:
    register(AdapPatch)
