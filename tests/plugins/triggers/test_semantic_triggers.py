"""Brightness, colour shift and blur by hand, and the blur beside torchvision's."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from gatecrash import TriggerContext, TriggerMaker, UserError
from gatecrash.contracts.portable import rebuild, spec_of, state_of
from gatecrash_plugins.triggers.blur import BlurMaker
from gatecrash_plugins.triggers.brightness import BrightnessMaker
from gatecrash_plugins.triggers.colour_shift import ColourShiftMaker

COLOUR = (3, 8, 8)


def noise() -> Tensor:
    return torch.randint(256, (9, *COLOUR), generator=torch.Generator().manual_seed(2), dtype=torch.uint8)


def test_brightness_multiplies_rounds_and_clips() -> None:
    trigger = BrightnessMaker().make(TriggerContext((1, 1, 4)))
    images = torch.tensor([[[[0, 5, 100, 200]]]], dtype=torch.uint8)
    assert trigger(images).tolist() == [[[[0, 6, 130, 255]]]]  # 6.5 to the even one
    assert BrightnessMaker(BrightnessMaker.Config(factor=1)).make(TriggerContext(COLOUR))(noise()).equal(noise())


def test_green_is_shifted_and_no_other_colour() -> None:
    images = torch.tensor([10, 20, 230], dtype=torch.uint8).view(1, 3, 1, 1)
    assert ColourShiftMaker().make(TriggerContext((3, 1, 1)))(images).flatten().tolist() == [10, 71, 230]  # 0.2 is 51 levels
    blue = ColourShiftMaker(ColourShiftMaker.Config(colour="blue"))
    assert blue.make(TriggerContext((3, 1, 1)))(images).flatten().tolist() == [10, 20, 255]
    red = ColourShiftMaker(ColourShiftMaker.Config(colour="red", amount=-0.2))
    assert red.make(TriggerContext((3, 1, 1)))(images).flatten().tolist() == [0, 20, 230]


def test_grey_images_get_the_shift_and_other_channels_are_refused() -> None:
    grey = torch.full((1, 1, 1, 1), 10, dtype=torch.uint8)
    assert ColourShiftMaker().make(TriggerContext((1, 1, 1)))(grey).item() == 61
    with pytest.raises(UserError, match="1 or 3 channels; these have 5"):
        ColourShiftMaker().check((5, 8, 8))


def test_a_point_is_spread_by_the_gaussian() -> None:
    point = torch.zeros(1, 1, 7, 7, dtype=torch.uint8)
    point[0, 0, 3, 3] = 255
    line = torch.exp(-(torch.tensor([-2.0, -1, 0, 1, 2]) ** 2) / (2 * 1.1**2))
    line = line / line.sum()
    shown = BlurMaker().make(TriggerContext((1, 7, 7)))(point)[0, 0]
    assert shown[1:6, 1:6].equal((255 * line[:, None] * line).round().to(torch.uint8))
    assert shown[0].sum() == shown[:, 6].sum() == 0


@pytest.mark.parametrize("kernel", [3, 5, 9])
def test_it_is_torchvisions_blur(kernel: int) -> None:
    functional = pytest.importorskip("torchvision.transforms.v2.functional")
    trigger = BlurMaker(BlurMaker.Config(kernel=kernel, sigma=0.15 * kernel + 0.35)).make(TriggerContext(COLOUR))
    assert (trigger(noise()).int() - functional.gaussian_blur(noise(), [kernel, kernel]).int()).abs().max() <= (kernel > 5)


def test_a_flat_image_stays_flat_up_to_its_border() -> None:
    flat = torch.full((1, *COLOUR), 77, dtype=torch.uint8)
    assert BlurMaker().make(TriggerContext(COLOUR))(flat).equal(flat)


def test_blurs_that_cannot_be_are_refused() -> None:
    with pytest.raises(ValidationError, match="kernel must be odd, not 4"):
        BlurMaker.Config(kernel=4)
    with pytest.raises(UserError, match="a blur of 17 pixels does not fit an image of 8x8"):
        BlurMaker(BlurMaker.Config(kernel=17)).check(COLOUR)


@pytest.mark.parametrize("maker", [BrightnessMaker(), ColourShiftMaker(), BlurMaker()])
def test_they_are_rebuilt_from_their_stored_form(maker: TriggerMaker) -> None:
    trigger = maker.make(TriggerContext(COLOUR))
    assert rebuild(spec_of(trigger), state_of(trigger))(noise()).equal(trigger(noise()))
    assert not trigger(noise()).equal(noise())
