"""The frequency trigger by hand: which coefficients change, in which channels, rounding and clipping."""

from __future__ import annotations

from typing import Any

import pytest
import scipy.fft
import torch
from pydantic import ValidationError
from torch import Tensor

from gatecrash import TriggerContext, UserError
from gatecrash.contracts.portable import rebuild, spec_of, state_of
from gatecrash_plugins.triggers.frequency import TO_RGB, Frequency, FrequencyMaker, cosines

SHAPES = [(3, 32, 32), (3, 8, 12), (3, 12, 8)]


def made(shape: tuple[int, int, int], **options: Any) -> Frequency:
    return FrequencyMaker(FrequencyMaker.Config(**options)).make(TriggerContext(shape))


def to_ycrcb(images: Tensor) -> Tensor:
    """float64 [..., 3, H, W] without the offset of 128."""
    return torch.einsum("yc,...chw->...yhw", torch.tensor(TO_RGB, dtype=torch.float64).inverse(), images.double())


def transformed(planes: Tensor) -> Tensor:
    return torch.from_numpy(scipy.fft.dctn(planes.numpy(), axes=(-2, -1), norm="ortho"))


@pytest.mark.parametrize("size", [1, 2, 7, 32])
def test_the_matrix_is_the_orthonormal_dct(size: int) -> None:
    identity = torch.eye(size, dtype=torch.float64)
    assert torch.allclose(cosines(size), torch.from_numpy(scipy.fft.dct(identity.numpy(), axis=0, norm="ortho")), atol=1e-12)
    assert torch.allclose(cosines(size) @ cosines(size).T, identity, atol=1e-12)


@pytest.mark.parametrize("shape", SHAPES)
def test_two_coefficients_of_the_chroma_are_raised_and_no_other(shape: tuple[int, int, int]) -> None:
    _, height, width = shape
    expected = torch.zeros(3, height, width, dtype=torch.float64)
    expected[1:, height // 2 - 1, width // 2 - 1] = expected[1:, -1, -1] = 30
    assert torch.allclose(transformed(to_ycrcb(255 * made(shape).pattern)), expected, atol=1e-4)


def test_the_last_and_the_middle_are_those_published_for_32_pixels() -> None:
    assert made((3, 32, 32)).pattern.equal(made((3, 32, 32), window=32, positions=((15, 15), (31, 31))).pattern)


def test_an_image_goes_through_the_transform_and_back_as_published() -> None:
    """YCrCb, DCT, plus the magnitude, inverse DCT, RGB: for images of which nothing is clipped."""
    images = torch.randint(60, 190, (4, 3, 32, 32), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    spectrum = transformed(to_ycrcb(images))
    spectrum[:, 1:, 15, 15] += 30
    spectrum[:, 1:, 31, 31] += 30
    planes = torch.from_numpy(scipy.fft.idctn(spectrum.numpy(), axes=(-2, -1), norm="ortho"))
    expected = torch.einsum("cy,nyhw->nchw", torch.tensor(TO_RGB, dtype=torch.float64), planes)
    assert (255 * made((3, 32, 32)).transform(images / 255) - expected).abs().max() < 1e-3


def test_no_magnitude_gives_equal_bytes() -> None:
    levels = torch.arange(256, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, 4, 5)
    assert Frequency((3, 4, 5))(levels).equal(levels)


def test_white_and_black_are_clipped_and_never_wrap() -> None:
    shape = (3, 8, 12)
    trigger = made(shape, magnitude=400)
    white, black = (torch.full((1, *shape), level, dtype=torch.uint8) for level in (255, 0))
    up = trigger.pattern[None] > 0
    assert (trigger(white)[up] == 255).all()
    assert (trigger(black)[~up] == 0).all()
    assert (trigger(white)[~up] < 255).any()


def test_all_channels_means_luma_as_well() -> None:
    spectrum = transformed(to_ycrcb(255 * made((3, 8, 8), channels="all").pattern))
    assert torch.allclose(spectrum[:, 7, 7], torch.full((3,), 30, dtype=torch.float64), atol=1e-4)


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_other_numbers_of_channels_have_no_chroma_and_each_gets_the_coefficients(channels: int) -> None:
    trigger = made((channels, 8, 6), positions=((0, 0),), magnitude=10 * (8 * 6) ** 0.5)  # the mean: 10 levels up
    grey = torch.full((2, channels, 8, 6), 100, dtype=torch.uint8)
    assert (trigger(grey) == 110).all()


def test_windows_repeat_over_the_image() -> None:
    pattern = made((3, 8, 12), window=4).pattern
    assert pattern.equal(made((3, 4, 4)).pattern.repeat(1, 2, 3))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"window": 5}, "windows of 5x5 do not fill an image of 8x12"),
        ({"positions": ((8, 0),)}, r"no coefficient \(8, 0\) in a window of 8x12"),
        ({"positions": ((0, -1),)}, r"no coefficient \(0, -1\)"),
        ({"magnitude": 0.5}, "changes no pixel"),
    ],
)
def test_what_cannot_work_is_refused_when_planning(options: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        FrequencyMaker(FrequencyMaker.Config(**options)).check((3, 8, 12))


@pytest.mark.parametrize("options", [{"magnitude": 0}, {"window": 1}, {"positions": ()}, {"channels": "luma"}])
def test_options_are_bounded(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        FrequencyMaker.Config(**options)


def test_it_is_rebuilt_from_its_stored_form() -> None:
    images = torch.randint(256, (4, 3, 8, 12), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    trigger = made((3, 8, 12))
    again = rebuild(spec_of(trigger), state_of(trigger))
    assert isinstance(again, Frequency)
    assert again(images).equal(trigger(images))
