"""Triggers by hand: which pixels change, to what, and that nothing else does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from gatecrash import PatchName, Place, Stamp, UserError, checkerboard, named_patch, patch_mask, patch_pattern, read_image, read_sticker
from gatecrash.contracts.portable import rebuild, spec_of, state_of

PATCH = torch.tensor([[[1, 2], [3, 4]]], dtype=torch.uint8)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randint(256, shape, generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


def white_square(alpha: float = 1.0) -> Stamp:
    """A 2x2 white patch in the bottom right corner of a 5x5 image."""
    return Stamp((1, 5, 5), alpha, torch.full((1, 5, 5), 255, dtype=torch.uint8), patch_mask((1, 5, 5), 2, "bottom-right", 0))


def test_checkerboard_alternates_with_white_at_the_bottom_right() -> None:
    assert checkerboard(1, 3).tolist() == [[[255, 0, 255], [0, 255, 0], [255, 0, 255]]]
    assert checkerboard(2, 2).tolist() == [[[255, 0], [0, 255]]] * 2


def shown(name: PatchName, size: int = 3) -> list[str]:
    """White 1, black 0, untouched `.`."""
    patch, opacity = named_patch(name, 2, size)
    assert patch[0].equal(patch[1])
    assert set(patch.unique().tolist()) <= {0, 255}
    return [
        "".join("." if not mask else str(value // 255) for value, mask in zip(*rows, strict=True))
        for rows in zip(patch[0].tolist(), opacity.tolist(), strict=True)
    ]


def test_patterns_by_name_are_those_of_their_sources() -> None:
    assert shown("white", 2) == ["11", "11"]
    assert shown("checkerboard") == ["101", "010", "101"]
    # Offsets from the bottom right pixel, as published; Turner et al. give all nine, ART four white ones (with its distance taken off).
    turner = {(-1, -1): 1, (-1, -2): 0, (-1, -3): 1, (-2, -1): 0, (-2, -2): 1, (-2, -3): 0, (-3, -1): 1, (-3, -2): 0, (-3, -3): 0}
    art = {(-1, -1): 1, (-2, -2): 1, (-1, -3): 1, (-3, -1): 1}
    for name, pixels in (("turner", turner), ("art", art)):
        assert shown(name) == ["".join(str(pixels.get((y, x), ".")) for x in (-3, -2, -1)) for y in (-3, -2, -1)]


def test_published_patterns_are_enlarged_and_not_reduced() -> None:
    assert shown("art", 6) == ["....11", "....11", "..11..", "..11..", "11..11", "11..11"]
    assert shown("turner", 4) == ["0001", "0001", "0010", "1101"]
    with pytest.raises(UserError, match="the pattern turner has 3x3 pixels; choose size 3 or more, not 2"):
        named_patch("turner", 1, 2)


@pytest.mark.parametrize(
    ("place", "rows", "columns"),
    [
        ("top-left", [1, 2], [1, 2]),
        ("top-right", [1, 2], [4, 5]),
        ("bottom-left", [3, 4], [1, 2]),
        ("bottom-right", [3, 4], [4, 5]),
        ("center", [2, 3], [2, 3]),
    ],
)
def test_patch_lies_inset_from_the_border_at_its_place(place: Place, rows: list[int], columns: list[int]) -> None:
    mask = patch_mask((1, 6, 7), 2, place, 1)
    assert torch.nonzero(mask).tolist() == [[row, column] for row in rows for column in columns]
    assert mask.sum() == 4


def test_four_corners_show_the_patch_and_its_mirror_image() -> None:
    pattern = patch_pattern((1, 5, 5), PATCH, "four-corners", 0)
    assert pattern.tolist() == [
        [
            [2, 1, 0, 1, 2],
            [4, 3, 0, 3, 4],
            [0, 0, 0, 0, 0],
            [2, 1, 0, 1, 2],
            [4, 3, 0, 3, 4],
        ]
    ]
    assert pattern.flip(2).equal(pattern)  # a random flip leaves the trigger as it is
    assert patch_mask((1, 5, 5), 2, "four-corners", 0).sum() == 16


def test_a_single_patch_is_not_mirrored() -> None:
    assert patch_pattern((1, 3, 3), PATCH, "bottom-left", 0).tolist() == [[[0, 0, 0], [1, 2, 0], [3, 4, 0]]]


@pytest.mark.parametrize(
    ("size", "place", "inset", "fits"),
    [
        (5, "bottom-right", 0, True),
        (5, "bottom-right", 1, False),
        (2, "four-corners", 0, True),
        (2, "four-corners", 1, False),
        (3, "four-corners", 0, False),
        (5, "center", 4, True),
        (6, "center", 0, False),
    ],
)
def test_a_patch_that_does_not_fit_is_refused(size: int, place: Place, inset: int, fits: bool) -> None:
    if fits:
        assert patch_mask((1, 5, 5), size, place, inset).any()
    else:
        with pytest.raises(UserError, match=rf"{size}x{size} patch at {place} with inset {inset} does not fit an image of 5x5"):
            patch_mask((1, 5, 5), size, place, inset)


@pytest.mark.parametrize(
    ("image", "pattern", "alpha", "mask", "mixed"),
    [
        (100, 255, 1.0, 1.0, 255),
        (100, 255, 0.2, 1.0, 131),  # 80 + 51
        (255, 0, 0.2, 1.0, 204),
        (10, 0, 0.15, 1.0, 8),  # 8.5 goes to the even neighbour, as in IEEE 754
        (11, 0, 0.25, 1.0, 8),  # 8.25
        (200, 100, 0.5, 0.5, 175),  # a quarter of the pattern
        (200, 100, 1.0, 0.0, 200),
    ],
)
def test_stamp_mixes_in_pixel_units_and_rounds(image: int, pattern: int, alpha: float, mask: float, mixed: int) -> None:
    stamp = Stamp((1, 1, 1), alpha, torch.full((1, 1, 1), pattern, dtype=torch.uint8), torch.full((1, 1), mask))
    stamped = stamp(torch.full((1, 1, 1, 1), image, dtype=torch.uint8))
    assert stamped.dtype == torch.uint8
    assert stamped.item() == mixed


def test_pixels_outside_the_mask_stay_byte_identical_and_the_original_untouched() -> None:
    images = noise(20, 1, 5, 5)
    before = images.clone()
    stamped = white_square(0.3)(images)
    outside = patch_mask((1, 5, 5), 2, "bottom-right", 0) == 0
    assert stamped[:, :, outside].equal(images[:, :, outside])
    assert not stamped.equal(images)
    assert images.equal(before)


@given(st.integers(0, 255), st.integers(0, 255), st.floats(0.01, 1))
def test_a_mixed_pixel_lies_between_image_and_pattern(image: int, pattern: int, alpha: float) -> None:
    stamp = Stamp((1, 1, 1), alpha, torch.full((1, 1, 1), pattern, dtype=torch.uint8), torch.ones(1, 1))
    mixed = int(stamp(torch.full((1, 1, 1, 1), image, dtype=torch.uint8)))
    assert min(image, pattern) <= mixed <= max(image, pattern)
    assert abs(mixed - ((1 - alpha) * image + alpha * pattern)) <= 0.5 + 1e-4


def test_a_stamped_image_does_not_depend_on_its_batch() -> None:
    images = noise(9, 1, 5, 5)
    stamp = white_square(0.37)
    together = stamp(images)
    order = torch.randperm(9, generator=torch.Generator().manual_seed(1))
    assert stamp(images[order]).equal(together[order])
    assert torch.cat([stamp(image[None]) for image in images]).equal(together)


def test_stamp_is_rebuilt_from_its_stored_form() -> None:
    stamp = Stamp((3, 4, 4), 0.4, noise(3, 4, 4), torch.rand(4, 4))
    again = rebuild(spec_of(stamp), state_of(stamp))
    images = noise(5, 3, 4, 4, seed=2)
    assert isinstance(again, Stamp)
    assert again(images).equal(stamp(images))


def test_an_image_file_becomes_pixels_of_the_wanted_shape(tmp_path: Path) -> None:
    path = tmp_path / "pattern.png"
    Image.fromarray(np.array([[[255, 0, 0], [0, 0, 255]]], dtype=np.uint8)).save(path)  # one red, one blue pixel
    assert read_image(path, (3, 1, 2)).tolist() == [[[255, 0]], [[0, 0]], [[0, 255]]]
    assert read_image(path, (1, 1, 2)).tolist() == [[[76, 29]]]  # ITU-R 601 luma
    assert read_image(path, (3, 6, 4)).shape == (3, 6, 4)
    assert read_image(path, (3, 6, 4))[0, 0].tolist() == sorted(read_image(path, (3, 6, 4))[0, 0].tolist(), reverse=True)


def test_a_sticker_is_pixels_and_how_opaque_they_are(tmp_path: Path) -> None:
    path = tmp_path / "sticker.png"
    Image.fromarray(np.array([[[255, 0, 0, 255], [0, 0, 255, 51]]], dtype=np.uint8)).save(path)
    pattern, mask = read_sticker(path, (3, 1, 2))
    assert pattern.tolist() == [[[255, 0]], [[0, 0]], [[0, 255]]]
    assert mask.tolist() == [[1, pytest.approx(0.2)]]
    assert mask.dtype == torch.float32


def test_the_colour_of_transparent_pixels_does_not_show_when_a_sticker_is_resized(tmp_path: Path) -> None:
    path = tmp_path / "sticker.png"
    pixels = np.full((8, 8, 4), (0, 255, 0, 0), dtype=np.uint8)  # invisible green
    pixels[2:6, 2:6] = (255, 0, 0, 255)
    Image.fromarray(pixels).save(path)
    pattern, mask = read_sticker(path, (3, 5, 5))
    assert 0 < mask.sum() < 25
    assert (pattern[1] == 0).all()


def test_a_file_without_transparency_is_opaque_whether_it_has_an_alpha_channel_or_not(tmp_path: Path) -> None:
    image = Image.fromarray(noise(7, 9, 3).numpy())
    image.save(tmp_path / "plain.png")
    image.convert("RGBA").save(tmp_path / "alpha.png")
    for channels in (1, 3):
        (plain, mask), (alpha, same) = (read_sticker(tmp_path / f"{name}.png", (channels, 5, 4)) for name in ("plain", "alpha"))
        assert plain.equal(alpha)
        assert plain.equal(read_image(tmp_path / "alpha.png", (channels, 5, 4)))
        assert mask.equal(torch.ones(5, 4))
        assert same.equal(mask)


def test_an_invisible_sticker_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "sticker.png"
    Image.new("RGBA", (2, 2), (255, 0, 0, 0)).save(path)
    with pytest.raises(UserError, match="is transparent everywhere"):
        read_sticker(path, (3, 4, 4))


def test_an_unusable_image_file_is_one_line_that_names_it(tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"\x89PNG no image")
    deep = tmp_path / "deep.png"
    Image.fromarray(np.full((2, 2), 40_000, dtype=np.uint16)).save(deep)
    grey = tmp_path / "grey.png"
    Image.new("L", (2, 2)).save(grey)
    sticker = tmp_path / "sticker.png"
    Image.new("LA", (2, 2), (9, 254)).save(sticker)
    for path, channels, reason in [
        (tmp_path / "missing.png", 1, "No such file"),
        (broken, 1, "its content is not"),
        (deep, 1, "16 bits per channel"),
        (grey, 2, "2 channels"),
        (sticker, 1, "has transparent pixels"),
    ]:
        with pytest.raises(UserError, match=reason) as caught:
            read_image(path, (channels, 4, 4))
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)
