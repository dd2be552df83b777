"""Crop and mirroring: hand-worked windows, fair draws, and what a crop does to a corner trigger."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from gatecrash.engine.augmentation import augmented, draw, rotated, windows

CPU = torch.device("cpu")


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def counting_images(count: int, channels: int, height: int, width: int) -> Tensor:
    return (torch.arange(count * channels * height * width) % 251 + 1).to(torch.uint8).view(count, channels, height, width)


def test_a_crop_is_a_window_of_the_zero_padded_image() -> None:
    crops = windows(torch.tensor([[[[1, 2], [3, 4]]]], dtype=torch.uint8), crop=1)

    assert crops[0, 0, 0].tolist() == [[[0, 0], [0, 1]]]
    assert crops[0, 1, 1].tolist() == [[[1, 2], [3, 4]]]
    assert crops[0, 1, 2].tolist() == [[[2, 0], [4, 0]]]
    assert crops[0, 2, 0].tolist() == [[[0, 3], [0, 0]]]


def test_a_crop_may_be_a_window_of_the_image_with_its_edges_repeated() -> None:
    crops = windows(torch.tensor([[[[1, 2, 5], [3, 4, 6]]]], dtype=torch.uint8), crop=1, padding="edge")

    assert crops[0, 0, 0].tolist() == [[[1, 1, 2], [1, 1, 2]]]
    assert crops[0, 1, 1].tolist() == [[[1, 2, 5], [3, 4, 6]]]
    assert crops[0, 2, 2].tolist() == [[[4, 6, 6], [4, 6, 6]]]


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 4), st.integers(1, 3), st.integers(2, 6), st.integers(2, 6), st.integers(0, 3), st.integers(0, 2**31), st.booleans())
def test_augmented_agrees_with_slicing_one_image_at_a_time(
    count: int, channels: int, height: int, width: int, crop: int, seed: int, flip: bool
) -> None:
    images = counting_images(count, channels, height, width)
    rows = torch.randperm(count, generator=generator(seed))
    draws = draw([count], crop, flip, generator(seed), CPU)

    batch = augmented(images[rows], crop, draws.tops, draws.lefts, draws.mirrored[0])

    padded = F.pad(images, (crop, crop, crop, crop))
    for place, row in enumerate(rows.tolist()):
        top, left = int(draws.tops[place]), int(draws.lefts[place])
        expected = padded[row, :, top : top + height, left : left + width]
        assert torch.equal(batch[place], expected.flip(2) if place < draws.mirrored[0] else expected)


def test_mirroring_a_batch_leaves_the_set_alone() -> None:
    images = counting_images(3, 1, 4, 4)
    before = images.clone()
    augmented(images, 0, torch.zeros(3, dtype=torch.int64), torch.zeros(3, dtype=torch.int64), mirrored=3)
    assert torch.equal(images, before)


def test_all_windows_are_equally_likely() -> None:
    draws = draw([10_000], 2, False, generator(), CPU)
    counts = torch.bincount(draws.tops * 5 + draws.lefts, minlength=25)
    expected, deviation = 10_000 / 25, (10_000 * (1 / 25) * (24 / 25)) ** 0.5
    assert len(counts) == 25
    assert (counts - expected).abs().max() < 4.5 * deviation


def test_without_a_crop_images_stay_where_they_are() -> None:
    draws = draw([5, 2], 0, False, generator(), CPU)
    assert draws.tops.tolist() == draws.lefts.tolist() == [0] * 7
    assert draws.mirrored == [0, 0]


def test_each_image_is_mirrored_with_probability_one_half() -> None:
    mirrored = torch.tensor(draw([64] * 1000, 0, True, generator(), CPU).mirrored, dtype=torch.float64)
    # Binomial(64, 1/2): mean 32, variance 16.
    assert mirrored.mean().item() == pytest.approx(32, abs=4.5 * (16 / 1000) ** 0.5)
    assert mirrored.var().item() == pytest.approx(16, rel=0.25)


@pytest.mark.parametrize("mirror", [False, True])
def test_a_padded_crop_of_4_loses_a_corner_trigger_in_39_5_percent_of_draws_and_keeps_it_whole_in_31(mirror: bool) -> None:
    """The figures behind "augmentation decides the attack success rate": 3x3 pixels in the corner of a 32x32 image."""
    image = torch.zeros(1, 1, 32, 32, dtype=torch.uint8)
    image[..., 29:, 29:] = 1
    offsets = torch.cartesian_prod(torch.arange(9), torch.arange(9))

    crops = augmented(image.expand(81, -1, -1, -1), 4, offsets[:, 0], offsets[:, 1], mirrored=81 if mirror else 0)

    visible = crops.flatten(1).sum(1)
    assert int((visible == 0).sum()) == 32  # 32/81 = 39.5%
    assert int((visible == 9).sum()) == 25  # 25/81 = 30.9%


@pytest.mark.parametrize("turns", [0, 1, 2, 3])
def test_quarter_turns_are_those_of_the_picture(turns: int) -> None:
    images = counting_images(2, 3, 6, 6)
    angles = torch.full((2,), turns * math.pi / 2)
    assert torch.equal(rotated(images, angles), images.rot90(turns, (2, 3)))


def test_half_a_turn_and_none_keep_every_pixel_of_an_oblong_image() -> None:
    images = counting_images(2, 1, 4, 10)
    assert torch.equal(rotated(images, torch.tensor([0.0, math.pi])), torch.stack([images[0], images[1].flip(1, 2)]))


def test_a_bar_in_an_oblong_image_turns_without_being_stretched() -> None:
    image = torch.zeros(1, 1, 9, 21, dtype=torch.uint8)
    image[:, :, 4, 7:14] = 255  # seven pixels, lying in the centre
    upright = torch.zeros(1, 1, 9, 21, dtype=torch.uint8)
    upright[:, :, 1:8, 10] = 255
    assert torch.equal(rotated(image, torch.tensor([math.pi / 2])), upright)


def test_angles_are_uniform_either_way_and_drawn_only_where_asked_for() -> None:
    draws = draw([10_000], 2, True, generator(), CPU, rotation=30)
    assert draws.angles is not None
    degrees = draws.angles.rad2deg()
    assert -30 <= float(degrees.min()) < -29 < 29 < float(degrees.max()) <= 30
    assert float(degrees.mean()) == pytest.approx(0, abs=4.5 * 30 / 3**0.5 / 100)
    plain = draw([10_000], 2, True, generator(), CPU)
    assert plain.angles is None
    assert torch.equal(plain.tops, draws.tops)
    assert plain.mirrored == draws.mirrored


def test_another_view_mirrors_images_of_its_own_choice() -> None:
    one = draw([64] * 100, 0, True, generator(), CPU)
    two = draw([64] * 100, 0, True, generator(1), CPU, another_view=True)
    first = torch.cat([torch.arange(64) < count for count in one.mirrored])
    second = torch.cat([torch.as_tensor(mask) for mask in two.mirrored])
    assert float((first == second).double().mean()) == pytest.approx(0.5, abs=4.5 * 0.5 / 80)
    images = counting_images(2, 1, 2, 2)
    places = torch.zeros(2, dtype=torch.int64)
    some = augmented(images, 0, places, places, torch.tensor([False, True]))
    assert torch.equal(some, torch.stack([images[0], images[1].flip(2)]))
