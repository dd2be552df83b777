"""Spectral Signatures: scores by hand, what is removed, and rows that are shuffled."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from gatecrash import Backbone, ImageSet, Model, Network, Outcome, Recipe
from gatecrash.testing import make_evidence
from gatecrash_plugins.defenses.spectral_signatures import SpectralSignatures, highest, sign
from support.planted_networks import OneToOne, one_channel_per_class

BY_HAND = torch.tensor([[10.0, 0.0]] * 9 + [[10.0, 3.0]], dtype=torch.float64)


class Pixels(Model):
    """Features are pixels."""

    name = "pixels"
    summary = "features are pixels"

    def build(self, num_classes: int, shape: tuple[int, int, int]) -> Backbone:
        return OneToOne(torch.eye(num_classes, shape[2]).tolist(), [0.0] * num_classes, [1.0] * shape[2])


def planted(seed: int = 0) -> tuple[ImageSet, Tensor]:
    """Shuffled rows, 40 of each of five classes; four of class 2 have pixel 4 white as well, and are poison, bool [200]."""
    labels = torch.arange(5).repeat_interleave(40)
    draws = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 20, (200, 1, 1, 5), generator=draws, dtype=torch.uint8)
    images[torch.arange(200), 0, 0, labels] += 200
    poison = torch.zeros(200, dtype=torch.bool)
    poison[80:84] = True
    images[poison, 0, 0, 4] = 255
    order = torch.randperm(200, generator=draws)
    return ImageSet(images[order], labels[order], tuple("abcdef")), poison[order]


def defend(data: ImageSet, **options: Any) -> Outcome:
    defense = SpectralSignatures(SpectralSignatures.Config.model_validate(options))
    recipe = Recipe(epochs=3, batch_size=16, lr=0.1, crop=0, flip=False)
    victim = one_channel_per_class()
    outcome = defense.defend(make_evidence(defense, victim, data, training_data=data, model=Pixels(), recipe=recipe))
    outcome.check(frozenset(defense.gives), len(data), 6)
    assert outcome.suspects is not None
    assert outcome.suspicion is not None
    return outcome


def suspects(outcome: Outcome) -> Tensor:
    assert outcome.suspects is not None
    return outcome.suspects


class TestScores:
    def test_by_hand(self) -> None:
        """The mean is (10, 0.3) and v = (0, 1): nine rows score 0.3^2, the last one 2.7^2."""
        signature = sign(BY_HAND)
        assert signature.scores.tolist() == pytest.approx([0.09] * 9 + [7.29])
        assert signature.share == pytest.approx(1.0)
        assert highest(signature.scores, 0.1).tolist() == [9]

    def test_adding_a_constant_changes_nothing(self) -> None:
        moved = sign(BY_HAND + torch.tensor([100.0, -5.0], dtype=torch.float64))
        torch.testing.assert_close(moved.scores, sign(BY_HAND).scores)

    def test_published_scores_are_distances_from_zero(self) -> None:
        """Public code scores features that were not centred: moved by -5, the outlier is nearest to zero and scores lowest."""
        moved = sign(BY_HAND - torch.tensor([0.0, 5.0], dtype=torch.float64), centred=False)
        assert moved.scores.tolist() == pytest.approx([25.0] * 9 + [4.0])
        assert 9 not in highest(moved.scores, 0.5).tolist()

    @pytest.mark.parametrize("centred", [True, False])
    @pytest.mark.parametrize("shape", [(50, 7), (7, 50), (12, 12), (2, 5), (1, 3)])
    def test_they_are_those_of_a_singular_value_decomposition(self, shape: tuple[int, int], centred: bool) -> None:
        features = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 3
        spread = features - features.mean(0)
        direction = torch.linalg.svd(spread, full_matrices=False).Vh[0]
        expected = ((spread if centred else features) @ direction).square()
        if len(features) > 1:
            torch.testing.assert_close(sign(features, centred=centred).scores, expected)
        assert bool(sign(features, centred=centred).scores.isfinite().all())

    def test_rows_that_are_all_alike_score_zero(self) -> None:
        assert not bool(sign(torch.full((6, 3), 0.7, dtype=torch.float64)).scores.abs().gt(1e-20).any())


class TestHighest:
    @pytest.mark.parametrize(
        ("rows", "eps", "count"), [(100, 0.1, 15), (5500, 0.1, 825), (6, 0.1, 0), (7, 0.1, 1), (100, 0.14, 21), (10, 0.6, 9)]
    )
    def test_one_and_a_half_times_the_bound_go_rounded_down(self, rows: int, eps: float, count: int) -> None:
        assert highest(torch.arange(rows).double(), eps).tolist() == list(range(rows - 1, rows - 1 - count, -1))

    def test_of_equal_scores_the_first_go(self) -> None:
        assert highest(torch.tensor([1.0, 2, 2, 2, 2, 2, 2, 2, 2, 2], dtype=torch.float64), 0.2).tolist() == [1, 2, 3]


class TestDefense:
    def test_poison_in_shuffled_rows_is_found(self) -> None:
        """Elsewhere the number of the class was kept instead of that of the row."""
        data, poison = planted()
        outcome = defend(data, retrain=False)
        assert bool(suspects(outcome)[poison].all())
        assert outcome.suspicion is not None
        of_class = data.labels == 2
        assert float(outcome.suspicion[poison].min()) > float(outcome.suspicion[of_class & ~poison].max())

    @pytest.mark.parametrize("eps", [0.05, 0.1, 0.3])
    def test_the_share_of_every_class_is_fixed_beforehand(self, eps: float) -> None:
        """A built-in false-positive rate: 1.5 eps of a clean set."""
        data, poison = planted()
        clean = data.subset(~poison)
        flagged = suspects(defend(clean, eps=eps, retrain=False))
        assert [int(flagged[clean.labels == label].sum()) for label in range(5)] == [
            int(1.5 * eps * int((clean.labels == label).sum()) + 1e-9) for label in range(5)
        ]

    def test_variants_score_differently(self) -> None:
        data, _ = planted()
        corrected, published = (defend(data, variant=variant, retrain=False).suspicion for variant in ("corrected", "published"))
        assert corrected is not None
        assert published is not None
        assert not torch.allclose(corrected, published)

    def test_a_model_is_trained_without_the_suspects_or_the_victim_returned(self, monkeypatch: pytest.MonkeyPatch) -> None:
        data, _ = planted()
        kept: list[int] = []

        def without(data: ImageSet, rows: Tensor) -> ImageSet:
            kept.append(int((~rows).sum()))
            return data.subset(~rows)

        monkeypatch.setattr("gatecrash_plugins.defenses.spectral_signatures.without", without)
        retrained, victim = defend(data).classifier, defend(data, retrain=False).classifier
        assert kept == [200 - 5 * 6]
        assert isinstance(retrained, Network)
        assert isinstance(victim, Network)
        assert torch.equal(victim.head.weight, one_channel_per_class().head.weight)
        assert not torch.equal(retrained.head.weight, victim.head.weight)

    def test_classes_without_rows_are_no_matter(self) -> None:
        data, _ = planted()
        rows = defend(data, retrain=False).tables["classes"]
        assert [(row["class"], row["rows"], row["removed"]) for row in rows] == [(name, 40, 6) for name in "abcde"]
