"""Transformations of test images: against torchvision's and Pillow's, and by hand."""

from __future__ import annotations

import io
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import functional as V

import gatecrash
from gatecrash.contracts.backdoor import Backdoor
from gatecrash.contracts.stamp import Stamp
from gatecrash.evaluation.detector_exam import detector_exam, evaluate_detector, rejecting_scores
from gatecrash.evaluation.exam import Exam
from gatecrash.evaluation.options import TRANSFORMED, EvaluationConfig, as_written
from gatecrash.evaluation.robustness import TRANSFORMATIONS, Draw, jpeg, transformed

CHANNELS = [1, 3, 5]


def images(count: int = 4, channels: int = 3, height: int = 16, width: int = 24) -> Tensor:
    """Smooth ones, as photographs are: uint8."""
    coarse = torch.rand(count, channels, 4, 4, generator=torch.Generator().manual_seed(7)) * 255
    return torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic").clamp(0, 255).to(torch.uint8)


def drawing(*row: float) -> Draw:
    """Written draws: the same for every image."""
    return lambda count: torch.tensor(row[:count]).expand(4, -1)


def apart(first: Tensor, second: Tensor) -> int:
    return int((first.int() - second.int()).abs().max())


def test_the_names_are_those_of_the_transformations():
    assert tuple(TRANSFORMATIONS) == TRANSFORMED


@pytest.mark.parametrize("channels", CHANNELS)
@pytest.mark.parametrize("name", TRANSFORMED)
def test_an_image_is_changed_by_its_place_in_the_test_set_alone(name: str, channels: int):
    shown = images(6, channels)
    whole = transformed(name, shown, torch.arange(6))
    assert (whole.dtype, whole.shape, whole.device) == (torch.uint8, shown.shape, shown.device)
    assert apart(whole, shown) > 0
    order = torch.tensor([4, 1, 5])
    assert torch.equal(transformed(name, shown[order], order), whole[order])  # whatever stands beside it, and in any order
    assert transformed(name, shown[:0], torch.arange(0)).shape == (0, *shown.shape[1:])


@pytest.mark.parametrize("name", ["rotation", "shift", "crop", "noise", "jitter"])
def test_draws_belong_to_a_place_and_a_transformation(name: str):
    same = images(1).expand(40, -1, -1, -1)
    made = transformed(name, same, torch.arange(40))
    assert len({tuple(image.flatten().tolist()) for image in made}) >= 8
    assert torch.equal(made[:1].expand(40, -1, -1, -1), transformed(name, same, torch.zeros(40, dtype=torch.int64)))


def test_a_clean_image_and_its_triggered_twin_are_moved_alike():
    clean = images(20, 1, 32, 32) // 2
    triggered = clean.clone()
    triggered[:, :, 14:18, 14:18] = 255
    places = torch.arange(20)
    moved, moved_twin = (transformed("shift", each, places) for each in (clean, triggered))
    marked = moved_twin == 255
    assert (marked.sum((1, 2, 3)) == 16).all()  # moved by at most 4 pixels, the mark stays inside
    assert torch.equal(moved[~marked], moved_twin[~marked])


@pytest.mark.parametrize(("number", "degrees"), [(0.0, -15.0), (0.5, 0.0), (0.9, 12.0)])
def test_rotation_is_torchvisions_and_goes_from_minus_to_plus_15_degrees(number: float, degrees: float):
    from torchvision.transforms import InterpolationMode

    made = TRANSFORMATIONS["rotation"](images(), drawing(number))
    assert apart(made, V.rotate(images(), degrees, InterpolationMode.BILINEAR)) <= 1


def test_rotation_blackens_corners():
    white = torch.full((4, 1, 16, 16), 255, dtype=torch.uint8)
    made = TRANSFORMATIONS["rotation"](white, drawing(1.0))
    assert int(made[0, 0, 0, 0]) == 0
    assert int(made[0, 0, 8, 8]) == 255


@pytest.mark.parametrize("channels", [1, 3])
def test_jitter_is_torchvisions_brightness_contrast_and_saturation(channels: int):
    shown = images(channels=channels)
    expected = V.adjust_contrast(V.adjust_brightness(shown.float() / 255, 1.1), 0.9)
    expected = V.adjust_saturation(expected, 1.2) if channels == 3 else expected
    made = TRANSFORMATIONS["jitter"](shown, drawing(0.75, 0.25, 1.0))
    assert apart(made, (expected * 255).round().to(torch.uint8)) <= 1


def test_blur_is_torchvisions_inside_the_border():
    made = TRANSFORMATIONS["blur"](images(), drawing())
    assert apart(made[..., 1:-1, 1:-1], V.gaussian_blur(images(), [3, 3], [1.0, 1.0])[..., 1:-1, 1:-1]) <= 1
    flat = torch.full((1, 1, 4, 4), 200, dtype=torch.uint8)
    assert torch.equal(TRANSFORMATIONS["blur"](flat, drawing()), flat)


def test_shift_moves_by_up_to_an_eighth_and_leaves_black():
    shown = images(4, 1, 16, 24) | 1  # nowhere black
    last = 1 - 2**-24
    down_right, up_left = (TRANSFORMATIONS["shift"](shown, drawing(number, number)) for number in (0.0, last))
    assert torch.equal(down_right[..., 2:, 3:], shown[..., :-2, :-3])
    assert not down_right[..., :2, :].any()
    assert torch.equal(up_left[..., :-2, :-3], shown[..., 2:, 3:])
    assert torch.equal(TRANSFORMATIONS["shift"](shown, drawing(0.5, 0.5)), shown)


def test_crop_enlarges_seven_eighths():
    shown = images(4, 1, 16, 16)
    last = 1 - 2**-24
    for number, part in ((0.0, shown[..., :14, :14]), (last, shown[..., 2:, 2:])):
        expected = V.resize(part, [16, 16], antialias=False)
        assert apart(TRANSFORMATIONS["crop"](shown, drawing(number, number)), expected) <= 1


@pytest.mark.parametrize("quality", [90, 70, 50])
def test_jpeg_is_what_a_file_makes_of_an_image(quality: int):
    made = jpeg(images(), drawing(), quality)
    for image, found in zip(images(), made, strict=True):
        file = io.BytesIO()
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(file, "JPEG", quality=quality)
        expected = V.pil_to_tensor(Image.open(file))
        assert torch.equal(found, expected)
    assert apart(jpeg(images(channels=2), drawing(), quality)[:, 1:], jpeg(images(channels=2)[:, 1:], drawing(), quality)) == 0


def test_a_lower_quality_changes_more():
    shown = images(16)
    changes = [
        float((transformed(f"jpeg-{quality}", shown, torch.arange(16)).int() - shown.int()).abs().float().mean())
        for quality in (90, 70, 50)
    ]
    assert changes == sorted(changes)


def test_scaling_averages_away_single_pixels():
    board = 255 * ((torch.arange(16)[:, None] + torch.arange(16)) % 2).to(torch.uint8)[None, None]
    made = TRANSFORMATIONS["scaling"](board, drawing())
    assert apart(made, torch.full_like(made, 128)) <= 16
    assert TRANSFORMATIONS["scaling"](images(4, 1, 1, 5), drawing()).shape == (4, 1, 1, 5)


def test_noise_has_no_bias_and_a_deviation_of_5_percent():
    grey = torch.full((50, 3, 32, 32), 128, dtype=torch.uint8)
    change = transformed("noise", grey, torch.arange(50)).float() - 128
    assert abs(float(change.mean())) < 0.1
    assert float(change.std()) == pytest.approx(0.05 * 255, rel=0.01)


class ByCorner(gatecrash.Classifier):
    """Class 1 where the top left pixel is white."""

    num_classes = 2

    def config(self) -> dict[str, Any]:
        return {}

    def forward(self, images: Tensor) -> Tensor:
        white = (images[:, 0, 0, 0] >= (255 if images.dtype == torch.uint8 else 1.0)).float()
        return torch.stack([1 - white, white], 1)


def stamped() -> tuple[gatecrash.ImageSet, list[Backdoor]]:
    """Eight grey images of class 0, and a backdoor that whitens the corner."""
    shown = torch.full((8, 1, 4, 4), 100, dtype=torch.uint8)
    mask = torch.zeros(4, 4)
    mask[0, 0] = 1.0
    test = gatecrash.ImageSet(shown, torch.zeros(8, dtype=torch.int64), ("a", "b"))
    return test, [
        Backdoor("corner", gatecrash.Goal.all_to_one(2, 1), Stamp((1, 4, 4), 1.0, torch.full((1, 4, 4), 255, dtype=torch.uint8), mask))
    ]


def test_images_are_changed_after_their_trigger_and_scored_against_the_same_labels():
    exam = Exam(*stamped(), "cpu")
    assert (exam.scores(ByCorner(), None).acc, exam.scores(ByCorner(), None).asr) == (1.0, 1.0)
    turned = exam.changed(lambda images, _: images.flip(3))  # the mark goes to the other corner
    assert (turned.scores(ByCorner(), None).acc, turned.scores(ByCorner(), None).asr) == (1.0, 0.0)
    seen: list[Tensor] = []
    exam.changed(lambda images, sources: (seen.append(sources), images)[1])
    assert torch.bincount(seen[0]).tolist() == [2] * 8  # every place once clean and once triggered
    assert exam.scores(ByCorner(), None).asr == 1.0  # the exam itself stays as it was


class Bright(gatecrash.InputDetector):
    """Suspects white corners."""

    threshold = 0.5

    def config(self) -> dict[str, Any]:
        return {}

    def score(self, images: Tensor) -> Tensor:
        return (images[:, 0, 0, 0] == 255).float()


def test_a_detector_rejects_under_transformations_too():
    test, backdoors = stamped()
    plain = detector_exam(Bright(), test, backdoors, device="cpu")
    expected, _ = evaluate_detector(ByCorner(), Bright(), ByCorner(), test, backdoors, device="cpu")
    assert rejecting_scores(plain, ByCorner(), Bright()) == expected
    assert expected.trigger_reject_rate == 1.0
    turned = rejecting_scores(plain.changed(lambda images, _: images.flip(3)), ByCorner(), Bright())
    assert (turned.trigger_reject_rate, turned.asr) == (0.0, 0.0)


def test_what_is_off_asks_for_nothing():
    assert EvaluationConfig().asked() == {}
    assert as_written(EvaluationConfig(robustness=True).asked()) == {"robustness": True}
