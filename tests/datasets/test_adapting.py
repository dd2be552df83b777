"""A data set in the shape of another: by hand."""

from __future__ import annotations

import pytest
import torch

from gatecrash import ImageSet, UserError
from gatecrash.datasets.adapting import adapted, check_adaptable


def one_image(values: torch.Tensor) -> ImageSet:
    return ImageSet(values.to(torch.uint8)[None], torch.tensor([0]), ("a", "b"))


def test_the_right_shape_is_left_alone() -> None:
    data = one_image(torch.arange(12).view(3, 2, 2))
    assert adapted(data, (3, 2, 2)) is data


def test_grey_is_repeated_and_colour_is_weighted_to_its_brightness() -> None:
    grey = one_image(torch.tensor([[[7, 200]]]))
    assert adapted(grey, (3, 1, 2)).images.tolist() == [[[[7, 200]]] * 3]
    colour = one_image(torch.tensor([[[100]], [[50]], [[200]]]))
    assert adapted(colour, (1, 1, 1)).images.item() == round(0.299 * 100 + 0.587 * 50 + 0.114 * 200)


def test_smaller_images_are_averaged_without_aliasing() -> None:
    """Stripes of one pixel become grey; without antialiasing they would stay stripes."""
    stripes = one_image(torch.tensor([0, 255]).repeat(8).expand(1, 16, 16))
    small = adapted(stripes, (1, 4, 4)).images[0, 0, :, 1:3]  # the border sees fewer columns
    assert bool((small.float() - 127.5).abs().le(8).all())


def test_sizes_change_each_on_their_own_and_the_extremes_stay() -> None:
    data = one_image(torch.full((3, 4, 8), 255))
    found = adapted(data, (3, 16, 16))
    assert found.shape == (3, 16, 16)
    assert (found.images.dtype, int(found.images.min())) == (torch.uint8, 255)
    assert (found.labels.tolist(), found.classes) == ([0], ("a", "b"))


def test_an_image_does_not_depend_on_its_company() -> None:
    images = torch.randint(0, 256, (1100, 1, 6, 6), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    data = ImageSet(images, torch.zeros(1100, dtype=torch.int64), ("a", "b"))
    assert torch.equal(adapted(data, (1, 8, 8)).images[1050:], adapted(data.subset(torch.arange(1050, 1100)), (1, 8, 8)).images)


def test_other_channels_than_grey_and_rgb_must_be_the_same() -> None:
    check_adaptable("bands", (5, 8, 8), (5, 32, 32))
    with pytest.raises(UserError, match="dataset bands has 5 channels and this grid's images have 3; name one with as many"):
        check_adaptable("bands", (5, 8, 8), (3, 32, 32))
