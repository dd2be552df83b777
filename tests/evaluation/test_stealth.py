"""Distances between images and their triggered versions, against numbers worked by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from gatecrash import Backdoor, ImageSet, Stamp, patch_mask
from gatecrash.contracts.backdoor import Goal
from gatecrash.evaluation.stealth import IMAGES, stealth


def images(values: Tensor, labels: list[int] | None = None) -> ImageSet:
    return ImageSet(values, torch.tensor(labels or [1] * len(values)), ("a", "b"))


def grey(n: int, side: int, level: int = 100, channels: int = 1) -> Tensor:
    return torch.full((n, channels, side, side), level, dtype=torch.uint8)


def patch(side: int, level: int, size: int = 2, channels: int = 1) -> Backdoor:
    """A `size` x `size` patch of one level, bottom right; class 'a' is the target."""
    shape = (channels, side, side)
    pattern = torch.full(shape, level, dtype=torch.uint8)
    return Backdoor("patch", Goal.all_to_one(2, 0), Stamp(shape, 1.0, pattern, patch_mask(shape, size, "bottom-right", 0)))


def test_norms_and_psnr_of_a_small_patch():
    # Four of 64 pixels move by 51/255 = 0.2: L2 = sqrt(4 * 0.04) = 0.4; MSE = 0.16 / 64 = 0.0025; PSNR = -10 log10(0.0025) = 26.0206 dB
    found = stealth(images(grey(3, 8)), patch(8, 151))
    assert found["l2"] == pytest.approx(0.4, abs=1e-6)
    assert found["linf"] == pytest.approx(0.2, abs=1e-6)
    assert found["psnr"] == pytest.approx(26.0206, abs=1e-4)


def test_means_are_over_images_not_over_pixels_of_all():
    # One image moves by 0.2 in four pixels of 64 (26.0206 dB), the other by 0.4 (20 dB).
    found = stealth(images(torch.cat([grey(1, 8, 100), grey(1, 8, 49)])), patch(8, 151))
    assert found["psnr"] == pytest.approx((26.0206 + 20.0) / 2, abs=1e-4)
    assert found["l2"] == pytest.approx((0.4 + 0.8) / 2, abs=1e-6)
    assert found["linf"] == pytest.approx(0.3, abs=1e-6)


def test_ssim_of_a_uniform_shift_is_its_luminance_term():
    # Without any structure SSIM is (2ab + c1) / (a^2 + b^2 + c1) with c1 = 0.01^2, at every pixel.
    a, b, c1 = 100 / 255, 151 / 255, 1e-4
    for side in (8, 16, 32):
        found = stealth(images(grey(2, side, channels=3)), patch(side, 151, size=side, channels=3))
        assert found["ssim"] == pytest.approx((2 * a * b + c1) / (a * a + b * b + c1), abs=1e-9)


@pytest.mark.parametrize("side", [6, 8, 16])
def test_a_stronger_patch_is_less_alike_on_small_images_too(side):
    noise = torch.randint(0, 200, (20, 1, side, side), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    faint, strong = (stealth(images(noise), patch(side, level))["ssim"] for level in (100, 255))
    assert -1 < strong < faint < 1


def test_a_trigger_that_changes_nothing_has_no_psnr():
    found = stealth(images(grey(4, 8, 151)), patch(8, 151))
    assert found == {"psnr": None, "ssim": pytest.approx(1.0), "l2": 0.0, "linf": 0.0}


def test_one_unchanged_image_does_not_make_the_psnr_infinite():
    found = stealth(images(torch.cat([grey(1, 8, 100), grey(1, 8, 151)])), patch(8, 151))
    assert found["psnr"] == pytest.approx(26.0206, abs=1e-4)
    assert found["l2"] == pytest.approx(0.2, abs=1e-6)


def test_images_too_small_for_the_window_have_no_ssim():
    found = stealth(images(grey(2, 4)), patch(4, 151))
    assert found["ssim"] is None
    assert found["linf"] == pytest.approx(0.2, abs=1e-6)


def test_only_images_that_the_backdoor_applies_to_are_compared():
    # Images of the target class are already as bright as the patch and would pull the mean down.
    found = stealth(images(torch.cat([grey(2, 8, 100), grey(6, 8, 151)]), [1, 1] + [0] * 6), patch(8, 151))
    assert found["linf"] == pytest.approx(0.2, abs=1e-6)
    assert set(stealth(images(grey(2, 8), [0, 0]), patch(8, 151)).values()) == {None}


def test_a_large_test_set_is_sampled_alike_each_time():
    values = torch.arange(2 * IMAGES).remainder(100).to(torch.uint8).view(-1, 1, 1, 1).expand(-1, 1, 4, 4).clone()
    first, again = (stealth(images(values), patch(4, 255)) for _ in range(2))
    assert first == again
    assert first["linf"] == pytest.approx((255 - 49.5) / 255, abs=0.01)
    assert math.isfinite(first["psnr"])
