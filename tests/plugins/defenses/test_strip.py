"""STRIP: entropies by hand, the threshold on the hold-out, and a backdoor that is caught."""

from __future__ import annotations

from typing import Any, Literal

import pytest
import torch
from torch import Tensor

from gatecrash import Classifier, ImageSet
from gatecrash.contracts.portable import rebuild, spec_of, state_of
from gatecrash.evaluation.detector_exam import evaluate_detector
from gatecrash.testing import make_evidence
from gatecrash_plugins.defenses.strip import OverlayEntropy, Strip


class Unsure(Classifier):
    """Sure of class 0 where the mean pixel is at least 100 (no entropy), else undecided between its two classes (one bit)."""

    num_classes = 2

    def forward(self, images: Tensor) -> Tensor:
        sure = images.flatten(1).float().mean(1) >= 100
        return torch.stack([sure * 1000.0, torch.zeros(len(images))], 1)


def grey(*values: int) -> Tensor:
    return torch.tensor(values, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 1, 2, 2).contiguous()


@pytest.mark.parametrize(
    ("blend", "bits"),
    [
        # 50 + 0, 50 + 200: one bit, none. 99 + 0: one bit. 150 is sure either way, and 150 + 200 is white.
        ("sum", [0.5, 0.5, 0.0]),
        # 25 and 125; 50 (49.5 rounded) and 150 (149.5 rounded); 75 and 175
        ("mean", [0.5, 0.5, 0.5]),
    ],
)
def test_the_score_is_minus_the_mean_entropy_in_bits(blend: Literal["sum", "mean"], bits: list[float]) -> None:
    detector = OverlayEntropy(Unsure(), [2, 1, 2, 2], 0.0, blend)
    detector.overlays.copy_(grey(0, 200))
    assert detector.score(grey(50, 99, 150)).tolist() == pytest.approx([-each for each in bits])


def test_no_more_of_the_hold_out_is_rejected_than_asked_for(badnets_on_digits: Any) -> None:
    clean = badnets_on_digits.clean
    for share in (0.01, 0.1):
        defense = Strip(Strip.Config(overlays=10, false_rejections=share))
        detector = defense.defend(make_evidence(defense, badnets_on_digits.network, clean)).detector
        assert detector is not None
        assert int(detector.flags(detector.score(clean.images)).sum()) == round(share * len(clean))


def test_a_backdoor_of_a_patch_is_caught(badnets_on_digits: Any) -> None:
    """The patch stays on top of whatever is added to it; a digit does not."""
    victim, defense = badnets_on_digits.network, Strip(Strip.Config(overlays=30))
    detector = defense.defend(make_evidence(defense, victim, badnets_on_digits.clean)).detector
    assert detector is not None
    scores, inputs = evaluate_detector(victim, detector, victim, badnets_on_digits.test, badnets_on_digits.backdoors, device="cpu")
    assert (inputs.triggered.auroc or 0) > 0.95
    assert (inputs.fpr or 0) < 0.05
    assert (scores.asr or 0) < 0.1 < badnets_on_digits.asr(victim)


def test_stored_it_scores_as_before(badnets_on_digits: Any) -> None:
    defense = Strip(Strip.Config(overlays=5))
    detector = defense.defend(make_evidence(defense, badnets_on_digits.network, badnets_on_digits.clean)).detector
    assert detector is not None
    again = rebuild(spec_of(detector), state_of(detector))
    assert isinstance(again, OverlayEntropy)
    images = badnets_on_digits.test.images[:20]
    assert again.score(images).equal(detector.score(images))
    assert again.threshold == detector.threshold


def test_another_seed_draws_other_overlays() -> None:
    clean = ImageSet(
        torch.arange(100, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 1, 2, 2).contiguous(),
        torch.zeros(100, dtype=torch.int64),
        ("a", "b"),
    )
    defense = Strip()
    drawn = []
    for seed in (0, 0, 1):
        detector = defense.defend(make_evidence(defense, Unsure(), clean, seed=seed)).detector
        assert isinstance(detector, OverlayEntropy)
        drawn.append(detector.overlays)
    assert drawn[0].equal(drawn[1])
    assert not drawn[0].equal(drawn[2])
