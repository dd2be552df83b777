"""SCALE-UP: shares by hand, statistics of clean images by their answers, and a backdoor that is ranked above clean images."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from gatecrash import Classifier, ImageSet
from gatecrash.contracts.portable import rebuild, spec_of, state_of
from gatecrash.testing import make_evidence
from gatecrash_plugins.defenses.scale_up import ScaledConsistency, ScaleUp


class Bands(Classifier):
    """Class 0 below a mean pixel of 40, class 1 below 200, else class 2."""

    num_classes = 3

    def forward(self, images: Tensor) -> Tensor:
        mean = images.flatten(1).float().mean(1)
        return torch.nn.functional.one_hot((mean >= 40).long() + (mean >= 200).long(), 3).float()


def grey(*values: int) -> Tensor:
    return torch.tensor(values, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 1, 2, 2).contiguous()


def detector_for(images: Tensor, labels: list[int] | None = None, **options: Any) -> ScaledConsistency:
    defense = ScaleUp(ScaleUp.Config.model_validate(options))
    clean = ImageSet(images, torch.tensor(labels or [0] * len(images)), ("a", "b", "c"))
    detector = defense.defend(make_evidence(defense, Bands(), clean)).detector
    assert isinstance(detector, ScaledConsistency)
    return detector


def test_three_of_five_scales_that_keep_the_answer_are_point_six() -> None:
    """5 becomes 15, 25, 35, 45, 55, of which three stay below 40. 50: 150, then white. 210 stays white. 0 stays black."""
    detector = ScaledConsistency(Bands(), [3, 5, 7, 9, 11], 0.5)
    assert detector.score(grey(5, 50, 210, 0)).tolist() == pytest.approx([0.6, 0.2, 1.0, 1.0])
    assert detector.flags(detector.score(grey(5, 50))).tolist() == [True, False]


def test_pixels_are_clipped_each_by_itself_and_never_wrap() -> None:
    """100 x 3 is 255, not 44: a wrap would bring half of the pixels back to class 1."""
    image = torch.tensor([[[[100, 100], [90, 250]]]], dtype=torch.uint8)
    assert ScaledConsistency(Bands(), [3.0], 0.5).score(image).tolist() == [0.0]
    assert ScaledConsistency(Bands(), [1.0], 0.5).score(image).tolist() == [1.0]


def test_shares_are_relative_to_clean_images_of_the_same_answer() -> None:
    """Answer 0: shares 0.6 (5), 1 (0), mean 0.8, deviation 0.2828; answer 1: 0.2 (50), 0 (70), mean 0.1, deviation 0.1414."""
    detector = detector_for(grey(5, 0, 50, 70))
    assert detector.score(grey(0, 5, 50)).tolist() == pytest.approx([0.2 / 0.08**0.5, -0.2 / 0.08**0.5, 0.1 / 0.02**0.5])


def test_one_mean_of_all_classes_if_asked_for() -> None:
    shares = torch.tensor([0.6, 1.0, 0.2, 0.0])
    expected = (shares - shares.mean()) / shares.std()
    assert detector_for(grey(5, 0, 50, 70), normalise="all").score(grey(5, 0, 50, 70)).tolist() == pytest.approx(expected.tolist())


def test_without_clean_data_the_score_is_the_share() -> None:
    assert detector_for(grey(5, 0, 50, 70), normalise="none").score(grey(5, 0, 50)).tolist() == pytest.approx([0.6, 1.0, 0.2])


def test_the_hold_out_counts_by_its_answers_not_by_its_labels() -> None:
    """Elsewhere a mislabelled or misread clean image lowers the mean: scaled answers are compared with labels."""
    images = grey(5, 0, 50, 70)
    right, wrong = detector_for(images, [0, 0, 1, 1]), detector_for(images, [2, 1, 0, 2])
    assert right.mean.equal(wrong.mean)
    assert right.deviation.equal(wrong.deviation)


def test_shares_that_do_not_vary_are_not_divided_by_zero() -> None:
    """Answer 2 has one clean image and takes the deviation of all; answer 0 has two that are alike."""
    detector = detector_for(grey(0, 0, 50, 70, 210))
    spread = float(torch.tensor([1.0, 1.0, 0.2, 0.0, 1.0]).std())
    assert detector.deviation.tolist() == pytest.approx([spread, 0.02**0.5, spread, spread])
    assert detector.mean.tolist() == pytest.approx([1.0, 0.1, 0.64, 0.64])
    constant = detector_for(grey(0, 0))
    assert constant.deviation.tolist() == pytest.approx([0.2] * 4)
    assert constant.score(grey(0, 5)).tolist() == pytest.approx([0.0, -2.0])
    assert detector_for(grey(0)).score(grey(0)).isfinite().all()


class Patched(Bands):
    """As Bands, but a white pixel beside a black one decides for class 0."""

    def forward(self, images: Tensor) -> Tensor:
        patch = (images[:, 0, 0, 0] == 255) & (images[:, 0, 0, 1] == 0)
        return super().forward(images) + 9 * torch.stack([patch, ~patch & False, ~patch & False], 1)


def test_a_trigger_that_survives_white_is_caught_and_clean_images_pass() -> None:
    """On the digits, black and white as they are, multiplication changes little; here the images are grey."""
    clean = torch.randint(10, 120, (60, 1, 4, 4), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    triggered = clean.clone()
    triggered[:, 0, 0, :2] = torch.tensor([255, 0], dtype=torch.uint8)
    defense = ScaleUp()
    detector = defense.defend(make_evidence(defense, Patched(), ImageSet(clean[:30], torch.ones(30).long(), ("a", "b", "c")))).detector
    assert isinstance(detector, ScaledConsistency)
    assert detector.flags(detector.score(triggered)).all()
    assert detector.flags(detector.score(clean[30:])).float().mean() < 0.2


def test_stored_it_scores_as_before() -> None:
    detector = detector_for(grey(5, 0, 50, 70))
    again = rebuild(spec_of(detector), state_of(detector))
    assert isinstance(again, ScaledConsistency)
    assert again.score(grey(5, 50, 210)).equal(detector.score(grey(5, 50, 210)))
    assert again.threshold == 0.5
