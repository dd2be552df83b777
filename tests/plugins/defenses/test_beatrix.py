"""Beatrix: Gram features, bounds and the class test by hand, and which rows of a planted set go."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from gatecrash import ImageSet, Network, NotApplicable, Outcome, Recipe
from gatecrash.testing import make_evidence
from gatecrash_plugins.defenses import beatrix
from gatecrash_plugins.defenses._indices import anomaly_indices
from gatecrash_plugins.defenses.beatrix import Beatrix, bound, cross_threshold, deviation, discrepancy, gram_features
from support.pixel_classes import CLASSES, Pixels, draw, planted
from support.planted_networks import network

LEAST = 20


def defend(data: ImageSet, clean: ImageSet | None = None, **options: Any) -> Outcome:
    defense = Beatrix(Beatrix.Config.model_validate({"retrain": False, **options}))
    victim = network(Pixels().build(CLASSES, (1, 1, CLASSES + 1)))
    recipe = Recipe(epochs=1, batch_size=64, lr=0.1, crop=0, flip=False)
    clean = clean if clean is not None else draw([30] * CLASSES, 99, LEAST)
    outcome = defense.defend(make_evidence(defense, victim, clean, training_data=data, model=Pixels(), recipe=recipe))
    outcome.check(frozenset(defense.gives), len(data), CLASSES)
    return outcome


def suspects(outcome: Outcome) -> Tensor:
    assert outcome.suspects is not None
    return outcome.suspects


def infected(outcome: Outcome) -> list[str]:
    return [row["class"] for row in outcome.tables["classes"] if row["infected"]]


def column(*values: float) -> Tensor:
    """Grams of one order and one entry: [N, 1, 1]."""
    return torch.tensor(values, dtype=torch.float64).view(-1, 1, 1)


class TestGramFeatures:
    def test_by_hand(self) -> None:
        """Channels (1, 2) and (2, 0): G_1 = 5, 2, 4; for G_2 they are (1, 4) and (4, 0): the roots of 17, 4 and 16."""
        maps = torch.tensor([[[1.0, 2.0], [2.0, 0.0]]]).double()
        first, second = gram_features(maps, 2)[0].tolist()
        assert first == pytest.approx([5, 2, 4])
        assert second == pytest.approx([math.sqrt(17), 2, 4])

    def test_orders_differ(self) -> None:
        """A public benchmark leaves out the power of the activation: all orders are one matrix, up to the root."""
        grams = gram_features(torch.rand(3, 4, 9, generator=torch.Generator().manual_seed(0)).double(), 8)
        assert grams.shape == (3, 8, 10)
        powers = grams ** torch.arange(1, 9).view(1, 8, 1)
        assert not torch.allclose(powers[:, 1], powers[:, 0])
        assert not torch.allclose(grams[:, 1], grams[:, 0])

    def test_a_negative_sum_keeps_its_sign_and_rows_are_apart(self) -> None:
        maps = torch.tensor([[[1.0, -2.0], [3.0, 1.0]], [[-1.0, -1.0], [1.0, 1.0]]]).double()
        grams = gram_features(maps, 3)
        assert grams[0, 2].tolist() == pytest.approx([65 ** (1 / 3), 19 ** (1 / 3), 730 ** (1 / 3)])
        assert grams[1, 2].tolist() == pytest.approx([2 ** (1 / 3), -(2 ** (1 / 3)), 2 ** (1 / 3)])
        assert grams[1:].equal(gram_features(maps[1:], 3))

    def test_high_powers_of_large_activations_are_finite(self) -> None:
        assert bool(gram_features(torch.full((1, 2, 16), 1e4).double(), 8).isfinite().all())


class TestDeviation:
    def test_by_hand(self) -> None:
        """1, 2, 3, 4, 10: median 3, MAD 1. Bounds of 2 MAD: 1 and 5. 0 is a whole bound below, 10 is one above."""
        low, high = bound(column(1, 2, 3, 4, 10), 2)
        assert (low.item(), high.item()) == (1, 5)
        assert deviation(column(0, 1, 3, 5, 10), (low, high)).tolist() == pytest.approx([1, 0, 0, 0, 1], abs=1e-5)

    def test_it_is_the_mean_of_orders_and_entries(self) -> None:
        grams = torch.tensor([[[10.0, 1.0], [1.0, 1.0]]]).double()
        bounds = torch.zeros(2, 2).double(), torch.tensor([[5.0, 5.0], [5.0, 5.0]]).double()
        assert deviation(grams, bounds).tolist() == pytest.approx([1 / 4])

    @pytest.mark.parametrize(("quantile", "expected"), [(0.95, 3.0), (0.5, 0.0)])
    def test_a_clean_rows_own_fold_does_not_bound_it(self, quantile: float, expected: float) -> None:
        """Nine rows of 1 and one of 4: its fold is bounded by [1, 1], and it is three bounds above."""
        assert cross_threshold(column(*[1.0] * 9, 4.0), 10, quantile) == pytest.approx(expected, abs=1e-4)


class TestDiscrepancy:
    def test_by_hand(self) -> None:
        """Rows 0, 1 and 2, 3. Squares: 0 (4 times), 1 (6), 4 (4), 9 (2); their lower median, the width, is 1."""
        far = discrepancy(torch.tensor([[0.0], [1.0]]).double(), torch.tensor([[2.0], [3.0]]).double())
        k = {d: math.exp(-2 * d) + math.exp(-d) for d in (0, 1, 4, 9)}
        expected = 2 * (2 * k[0] + 2 * k[1]) / 4 - 2 * (2 * k[4] + k[1] + k[9]) / 4
        assert far == pytest.approx(expected * 4 / 4)

    def test_an_empty_group_is_no_discrepancy(self) -> None:
        assert discrepancy(torch.zeros(0, 3).double(), torch.ones(4, 3).double()) == 0
        assert discrepancy(torch.ones(4, 3).double(), torch.zeros(0, 3).double()) == 0

    def test_rows_that_are_all_alike_have_none(self) -> None:
        assert discrepancy(torch.ones(4, 3).double(), torch.ones(2, 3).double()) == pytest.approx(0)

    def test_large_groups_are_represented(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(beatrix, "_KERNEL_ROWS", 5)
        rows = torch.arange(9).double()
        chosen = beatrix.some(rows, torch.Generator().manual_seed(0))
        assert len(set(chosen.tolist())) == 5
        assert chosen.equal(beatrix.some(rows, torch.Generator().manual_seed(0)))


class TestDefense:
    @pytest.mark.parametrize("poison", [12, 45])
    def test_one_class_of_ten_is_named_and_its_poison_found(self, poison: int) -> None:
        """In shuffled rows; the last case has more poison than clean rows in its class."""
        data, bad = planted(poison, least=LEAST)
        outcome = defend(data)
        assert infected(outcome) == ["d"]
        assert bool(suspects(outcome)[bad].all())
        assert int(suspects(outcome)[~bad].sum()) <= 3
        assert outcome.suspicion is not None
        assert float(outcome.suspicion[bad].min()) > float(outcome.suspicion[~bad].max())

    def test_nothing_outside_leaves_no_suspect_and_the_victim_comes_back(self) -> None:
        data, _ = planted(least=LEAST)
        outcome = defend(data, retrain=True, threshold=1000, width=1000)
        assert not suspects(outcome).any()
        assert isinstance(outcome.classifier, Network)
        assert outcome.classifier.head.weight.equal(network(Pixels().build(CLASSES, (1, 1, CLASSES + 1))).head.weight)

    @pytest.mark.parametrize(("variant", "named"), [("corrected", []), ("published", ["b"])])
    def test_one_outlier_among_classes_without_any_accuses_none(self, variant: str, named: list[str]) -> None:
        """The median deviation over classes is 0: in the authors' code any other class stands out."""
        data = draw([30] * CLASSES, 1, LEAST)
        images = data.images.clone()
        images[35, 0, 0, -1] += 200
        outcome = defend(ImageSet(images, data.labels, data.classes), variant=variant, width=20)
        assert infected(outcome) == named
        assert torch.nonzero(suspects(outcome)).flatten().tolist() == [35] * len(named)

    @pytest.mark.parametrize(("two_sided", "sign"), [(False, -1), (True, 1)])
    def test_an_index_below_the_median_is_negative(self, two_sided: bool, sign: int) -> None:
        """With a MAD of at least 1, as `corrected`; absolute values are the authors'."""
        indices = anomaly_indices(torch.tensor([0.0, 5.0, 5.0]).double(), two_sided=two_sided, least=1.0)
        assert indices.tolist() == pytest.approx([sign * 5 / 1.4826, 0, 0])

    def test_clean_rows_beyond_the_limit_are_not_used(self) -> None:
        data, _ = planted(least=LEAST)
        clean = draw([30] * CLASSES, 99, LEAST)
        more = torch.cat([clean.images, 255 - clean.images])
        doubled = ImageSet(more, clean.labels.repeat(2), clean.classes)
        assert defend(data, doubled).tables == defend(data, clean).tables

    def test_classes_that_cannot_be_bounded_are_left_alone(self) -> None:
        data, bad = planted(least=LEAST)
        outcome = defend(data, draw([30, 4, 0] + [30] * 7, 99, LEAST))
        assert [row["class"] for row in outcome.tables["classes"]] == list("adefghij")
        assert bool(suspects(outcome)[bad].all())

    def test_the_point_can_be_chosen(self) -> None:
        data, _ = planted(least=LEAST)
        assert defend(data, point="first").tables == defend(data, point="last").tables
        with pytest.raises(NotApplicable, match="no point 'nowhere'; it has first, last"):
            defend(data, point="nowhere")

    def test_a_model_is_trained_without_the_suspects(self, monkeypatch: pytest.MonkeyPatch) -> None:
        data, bad = planted(least=LEAST)
        kept: list[Tensor] = []

        def without(data: ImageSet, rows: Tensor) -> ImageSet:
            kept.append(rows)
            return data.subset(~rows)

        monkeypatch.setattr("gatecrash_plugins.defenses.beatrix.without", without)
        assert isinstance(defend(data, retrain=True).classifier, Network)
        assert [bool(rows[bad].all()) for rows in kept] == [True]
