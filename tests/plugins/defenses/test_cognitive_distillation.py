"""Cognitive Distillation: the loss by hand, the direction of the threshold, scores of single images, a trigger that is caught."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from gatecrash import Classifier, ImageSet
from gatecrash.contracts.portable import rebuild, spec_of, state_of
from gatecrash.testing import make_evidence
from gatecrash_plugins.defenses import cognitive_distillation
from gatecrash_plugins.defenses.cognitive_distillation import CognitiveDistillation, CognitivePattern, opened, variation

OPEN = float((torch.tensor(1.0).tanh() + 1) / 2)
"""What every mask starts from."""


class Corner(Classifier):
    """Two logits, each 40 times the mean pixel of a half of the image; if the corner pixel is white, they depend on nothing but it."""

    num_classes = 2

    def forward(self, images: Tensor) -> Tensor:
        pixels = images.float() / 255 if images.dtype == torch.uint8 else images
        halves = torch.stack([pixels[:, 0, :, :4].mean((1, 2)), pixels[:, 0, :, 4:].mean((1, 2))], 1)
        gate = torch.sigmoid(40 * (pixels[:, 0, :1, :1].flatten(1) - 0.6))
        return (1 - gate) * 40 * halves + gate * torch.tensor([40.0, 0.0])


class Constant(Classifier):
    """The same logits for every image."""

    num_classes = 2

    def forward(self, images: Tensor) -> Tensor:
        return torch.tensor([[1.0, 2.0]]).expand(len(images), 2) + 0 * images.flatten(1).float().sum(1, keepdim=True)


def clean(rows: int) -> Tensor:
    images = torch.randint(60, 256, (rows, 1, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    images[:, :, 0, 0] = 0
    return images


def triggered(images: Tensor) -> Tensor:
    images = images.clone()
    images[:, :, 0, 0] = 255
    return images


def detector_for(images: Tensor, classifier: Classifier | None = None, seed: int = 0, **options: float) -> CognitivePattern:
    defense = CognitiveDistillation(CognitiveDistillation.Config.model_validate(options))
    data = ImageSet(images, torch.zeros(len(images), dtype=torch.int64), ("a", "b"))
    detector = defense.defend(make_evidence(defense, classifier or Corner(), data, seed=seed)).detector
    assert isinstance(detector, CognitivePattern)
    return detector


def test_variation_by_hand() -> None:
    """Differences 1 and 1 down, 1 and 1 across (squares 4 in all) over four pixels; a flat mask has none."""
    mask = torch.tensor([[[[0.0, 1.0], [1.0, 0.0]]], [[[0.3, 0.3], [0.3, 0.3]]]])
    assert variation(mask).tolist() == [1.0, 0.0]


def test_the_first_step_of_the_search_by_hand() -> None:
    """Adam's first step is the learning rate against the gradient's sign. All that a constant classifier leaves is the mask's sum."""
    detector = CognitivePattern(Constant(), [1, 1], 0.0)
    assert detector.masks(clean(2)).flatten().tolist() == pytest.approx([float(opened(torch.tensor(0.9)))] * 128)
    assert CognitivePattern(Constant(), [1, 1], 0.0, sparsity=0.0).masks(clean(1)).flatten().tolist() == pytest.approx([OPEN] * 64)


def test_a_classifier_that_needs_nothing_ends_with_an_empty_mask_and_one_that_needs_all_with_a_full_one() -> None:
    assert CognitivePattern(Constant(), [100, 1], 0.0).score(clean(2)).tolist() == pytest.approx([0.0] * 2, abs=1e-3)
    whole = CognitivePattern(Corner(), [100, 1], 0.0, sparsity=0.0)
    assert (whole.score(clean(2)) < -0.9).all()


def test_pixels_behind_the_mask_show_the_steps_colour() -> None:
    """An image of the colour itself looks the same under any mask, so its mask goes; one of another colour needs its mask."""
    grey = torch.full((2, 1, 8, 8), 51, dtype=torch.uint8)
    grey[1] = 204
    detector = CognitivePattern(Corner(), [60, 1], 0.0)
    detector.colours.fill_(51 / 255)
    same, other = detector.score(grey).tolist()
    assert same > -0.02
    assert other < -0.2


def test_small_masks_are_suspect_below_mean_minus_deviation_of_the_hold_out() -> None:
    """Elsewhere the sign is turned round, and the mean is that of rows known to be clean."""
    images = clean(24)
    detector = detector_for(images, steps=30, deviations=1.5)
    sums = detector.masks(images).mean((1, 2, 3)).double()
    assert detector.threshold == pytest.approx(-float(sums.mean() - 1.5 * sums.std()))
    assert detector.flags(torch.tensor([float(-sums.mean()), -0.0, -1.0])).tolist() == [False, True, False]


def test_a_trigger_that_decides_alone_is_caught() -> None:
    images = clean(40)
    detector = detector_for(images[:24])
    assert detector.flags(detector.score(triggered(images))).all()
    assert int(detector.flags(detector.score(images[24:])).sum()) <= 6


def test_a_score_depends_on_its_image_alone() -> None:
    detector = detector_for(clean(4), steps=12)
    images = torch.cat([clean(9), triggered(clean(11))])
    together = detector.score(images)
    assert len(together) == 20 > cognitive_distillation.TOGETHER
    assert torch.cat([detector.score(image[None]) for image in images]).equal(together)
    assert detector.score(images.flip(0)).flip(0).equal(together)


def test_the_victim_gets_no_gradients_and_scores_are_asked_for_without() -> None:
    class Learned(Corner):
        def __init__(self) -> None:
            super().__init__()
            self.factor = torch.nn.Parameter(torch.ones(1))

        def forward(self, images: Tensor) -> Tensor:
            return super().forward(images) * self.factor

    classifier = Learned()
    with torch.no_grad():
        scores = CognitivePattern(classifier, [5, 1], 0.0).score(clean(2))
    assert not scores.requires_grad
    assert classifier.factor.grad is None


def test_stored_it_scores_as_before_and_another_seed_draws_other_colours() -> None:
    images = clean(4)
    detector = detector_for(images, steps=5, sparsity=0.02, smoothness=3.0, lr=0.2)
    again = rebuild(spec_of(detector), state_of(detector))
    assert isinstance(again, CognitivePattern)
    assert again.score(images).equal(detector.score(images))
    assert again.threshold == detector.threshold
    assert detector_for(images, steps=5).colours.equal(detector.colours)
    assert not detector_for(images, seed=1, steps=5).colours.equal(detector.colours)
