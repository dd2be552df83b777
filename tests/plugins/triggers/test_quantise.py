"""Quantisation and dithering by hand and beside a plain loop, and negatives that carry another image's change."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from gatecrash import ContractError, ImageSet, TriggerContext
from gatecrash.contracts.portable import rebuild, spec_of, state_of
from gatecrash_plugins.triggers.quantise import Negative, Quantise, QuantiseMaker, dithered

EVERY_LEVEL = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
SHAPES = [(1, 8, 8), (3, 5, 9), (3, 9, 5), (1, 1, 6), (2, 6, 1), (1, 1, 1)]


def noise(shape: tuple[int, int, int], count: int = 3) -> Tensor:
    return torch.randint(256, (count, *shape), generator=torch.Generator().manual_seed(3), dtype=torch.uint8)


def pixel_by_pixel(images: Tensor, levels: int) -> Tensor:
    """Floyd and Steinberg's diffusion in the order of reading."""
    work = images.double()
    height, width = images.shape[2:]
    for y in range(height):
        for x in range(width):
            old = work[:, :, y, x].clone()
            new = (old / 255 * (levels - 1)).round() / (levels - 1) * 255
            work[:, :, y, x] = new
            for down, right, share in ((0, 1, 7), (1, -1, 3), (1, 0, 5), (1, 1, 1)):
                if y + down < height and 0 <= x + right < width:
                    work[:, :, y + down, x + right] += (old - new) * (share / 16)
    return work


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("levels", [2, 5, 32])
def test_the_order_of_diagonals_gives_what_the_order_of_reading_gives(shape: tuple[int, int, int], levels: int) -> None:
    assert dithered(noise(shape), levels).equal(pixel_by_pixel(noise(shape), levels))


def test_two_levels_are_black_and_white() -> None:
    made = Quantise(2, dither=False)(EVERY_LEVEL).flatten()
    assert (made[127], made[128]) == (0, 255)
    assert made.unique().tolist() == [0, 255]


@pytest.mark.parametrize(("levels", "first"), [(8, [0, 36, 73, 109]), (32, [0, 8, 16, 25])])
def test_levels_are_equally_spaced_and_rounded(levels: int, first: list[int]) -> None:
    made = Quantise(levels, dither=False)(EVERY_LEVEL).unique()
    assert len(made) == levels
    assert made.tolist()[:4] == first
    assert made[-1] == 255


def test_dithering_carries_the_error_on_by_hand() -> None:
    """Row 100, 100: 0, error 100; the right one becomes 143.75, white, error -111.25, of which 5/16 go down and 3/16 down and left."""
    made = dithered(torch.tensor([[[[100, 100], [100, 100]]]], dtype=torch.uint8), 2)[0, 0]
    # Below left: 100 + 31.25 - 20.859375 = 110.39, black. Below right: 100 + 6.25 - 34.765625 + 48.296 = 119.8, black.
    assert made.tolist() == [[0, 255], [0, 0]]


def test_dithering_keeps_the_mean_of_a_flat_row() -> None:
    row = torch.full((1, 1, 1, 256), 128, dtype=torch.uint8)
    assert Quantise(2, dither=True)(row).float().mean().item() == pytest.approx(128, abs=1)
    assert Quantise(2, dither=False)(row).float().mean() == 255


@pytest.mark.parametrize(("levels", "dither"), [(2, False), (8, False), (32, False), (100, False), (2, True), (4, True), (16, True)])
def test_a_second_time_changes_nothing(levels: int, dither: bool) -> None:
    """With dithering where the levels are whole numbers: the error of rounding to uint8 is diffused as any other."""
    once = Quantise(levels, dither)(noise((3, 9, 5)))
    assert Quantise(levels, dither)(once).equal(once)


def test_channels_and_images_do_not_touch_one_another() -> None:
    images, trigger = noise((3, 9, 5)), Quantise(4, dither=True)
    assert trigger(images).flip(0).equal(trigger(images.flip(0)))
    assert trigger(images)[:, 1:2].equal(trigger(images[:, 1:2]))
    assert trigger(images[:0]).shape == (0, 3, 9, 5)


def test_dithering_can_be_turned_off() -> None:
    """A public script reads the text False as true."""
    seen = TriggerContext((1, 16, 16))
    off = QuantiseMaker(QuantiseMaker.Config.model_validate({"dither": "False"})).make(seen)
    assert off(EVERY_LEVEL).equal(Quantise(32, dither=False)(EVERY_LEVEL))
    assert not QuantiseMaker().make(seen)(EVERY_LEVEL).equal(off(EVERY_LEVEL))


def test_a_negative_adds_the_change_of_the_donor_and_is_clipped() -> None:
    donors = torch.stack((torch.full((1, 2, 2), 200), torch.full((1, 2, 2), 90))).to(torch.uint8)  # + 55 and - 90 at two levels
    cover = Negative(Quantise(2, dither=False), (1, 2, 2), 2, donors)
    images = noise((1, 2, 2), 60)
    up = (cover.chosen(images) == 200).flatten(1).all(1)
    assert 15 < int(up.sum()) < 45
    assert cover(images[up]).equal((images[up].int() + 55).clamp(max=255).to(torch.uint8))
    assert cover(images[~up]).equal((images[~up].int() - 90).clamp(min=0).to(torch.uint8))


def test_no_image_gets_its_own_change() -> None:
    """It would be the poison itself, under its true label."""
    donors = noise((3, 4, 5), 7)
    cover = Negative(Quantise(4, dither=True), (3, 4, 5), 7, donors)
    assert (cover.chosen(donors) != donors).flatten(1).any(1).all()
    assert (cover(donors) != Quantise(4, dither=True)(donors)).flatten(1).any(1).all()


def train_set() -> ImageSet:
    return ImageSet(noise((3, 4, 5), 60), torch.arange(60) % 3, ("a", "b", "c"))


def test_donors_are_training_images_and_the_test_set_can_be_as_small_as_one_image() -> None:
    train = train_set()
    cover = QuantiseMaker(QuantiseMaker.Config(donors=10)).make_cover(TriggerContext(train.shape, train=train))
    assert len(cover.donors) == 10
    assert all((train.images == donor).flatten(1).all(1).any() for donor in cover.donors)
    assert cover(noise((3, 4, 5), 20))[:1].equal(cover(noise((3, 4, 5), 20)[:1]))


def test_equal_donors_count_once_and_one_is_too_few() -> None:
    train = ImageSet(torch.zeros(9, 1, 2, 2, dtype=torch.uint8), torch.zeros(9, dtype=torch.int64), ("a",))
    with pytest.raises(ContractError, match="two training images that differ"):
        QuantiseMaker().make_cover(TriggerContext(train.shape, train=train))
    with pytest.raises(ContractError, match="made from training images"):
        QuantiseMaker().make_cover(TriggerContext(train.shape))


@pytest.mark.parametrize("options", [{"levels": 1}, {"levels": 129}, {"donors": 1}])
def test_options_are_bounded(options: dict[str, int]) -> None:
    with pytest.raises(ValidationError):
        QuantiseMaker.Config.model_validate(options)


def test_both_are_rebuilt_from_their_stored_form() -> None:
    train = train_set()
    seen = TriggerContext(train.shape, train=train)
    for trigger in (QuantiseMaker().make(seen), QuantiseMaker().make_cover(seen)):
        again = rebuild(spec_of(trigger), state_of(trigger))
        assert isinstance(again, Quantise | Negative)
        assert again(train.images).equal(trigger(train.images))
