"""SCAn: the fit and the test by hand and by other formulas, which class is named, and rows that are shuffled."""

from __future__ import annotations

import math
from typing import Any, Literal

import pytest
import torch
from torch import Tensor

from gatecrash import ImageSet, Network, Outcome, Recipe
from gatecrash.testing import make_evidence
from gatecrash_plugins.defenses._indices import anomaly_indices
from gatecrash_plugins.defenses.scan import Population, Scan, fit, two_groups
from support.pixel_classes import CLASSES, POISON, Pixels, draw, planted
from support.planted_networks import network


def defend(data: ImageSet, seed: int = 0, clean: ImageSet | None = None, **options: Any) -> Outcome:
    defense = Scan(Scan.Config.model_validate({"retrain": False, **options}))
    victim = network(Pixels().build(CLASSES, (1, 1, CLASSES + 1)))
    recipe = Recipe(epochs=1, batch_size=64, lr=0.1, crop=0, flip=False)
    clean = clean if clean is not None else draw([20] * CLASSES, 99)
    evidence = make_evidence(defense, victim, clean, training_data=data, model=Pixels(), recipe=recipe, seed=seed)
    outcome = defense.defend(evidence)
    outcome.check(frozenset(defense.gives), len(data), CLASSES)
    return outcome


def suspects(outcome: Outcome) -> Tensor:
    assert outcome.suspects is not None
    return outcome.suspects


def infected(outcome: Outcome) -> list[str]:
    return [row["class"] for row in outcome.tables["classes"] if row["infected"]]


def line(between: float, within: float) -> Population:
    """Features of one dimension."""
    one, wide, narrow = (torch.tensor([[value]]).double() for value in (1.0, between, within))
    return Population(one, wide, narrow, means={})


class TestIndices:
    def test_by_hand(self) -> None:
        """Median 2.5 and deviations 1.5, 0.5, 0.5, 7.5, whose median is 1."""
        values = torch.tensor([1.0, 2, 3, 10]).double()
        assert anomaly_indices(values).tolist() == pytest.approx([x / 1.4826 for x in (-1.5, -0.5, 0.5, 7.5)])
        assert anomaly_indices(values, two_sided=True).tolist() == pytest.approx([x / 1.4826 for x in (1.5, 0.5, 0.5, 7.5)])

    def test_values_that_are_all_alike_have_no_outlier(self) -> None:
        assert anomaly_indices(torch.full((5,), 3.0).double()).tolist() == [0.0] * 5


class TestOneMean:
    def test_by_hand(self) -> None:
        """S_mu = 4, S_e = 1, rows 1, 2, 3: 4 * 6 / (3 * 4 + 1); without the factor S_mu / S_e it is a quarter of that."""
        rows = torch.tensor([[1.0], [2.0], [3.0]]).double()
        assert line(4, 1).one_mean(rows).item() == pytest.approx(24 / 13)
        assert line(4, 1).one_mean(rows, published=True).item() == pytest.approx(6 / 13)

    def test_it_is_the_likeliest_mean(self) -> None:
        """The maximum of N(mu; 0, S_mu) and all N(r; mu, S_e), by its gradient; the published form is drawn towards zero."""
        generator = torch.Generator().manual_seed(0)
        roots = torch.randn(2, 4, 4, generator=generator, dtype=torch.float64)
        between, within = roots[0] @ roots[0].T, roots[1] @ roots[1].T
        population = Population(torch.eye(4, dtype=torch.float64), between, within, {})
        rows = torch.randn(7, 4, generator=generator, dtype=torch.float64) + 5

        def gradient(mean: Tensor) -> Tensor:
            return between.inverse() @ mean - within.inverse() @ (rows - mean).sum(0)

        best = population.one_mean(rows)
        assert float(gradient(best).abs().max()) < 1e-8 * float(gradient(torch.zeros(4).double()).abs().max())
        assert float(gradient(population.one_mean(rows, published=True)).abs().max()) > 1


class TestSplit:
    @pytest.mark.parametrize(("published", "mean"), [(False, 3 * 8 / 13), (True, 3 * 8 / 52)])
    def test_the_ratio_by_hand(self, published: bool, mean: float) -> None:
        """S_mu = 4, S_e = 1; rows 0, 0, 6: groups {0, 0} and {6} fit without error, so J is the mean square distance from one mean."""
        rows = torch.tensor([[0.0], [0.0], [6.0]]).double()
        start = torch.tensor([True, False, False])
        split = line(4, 1).split(0, torch.arange(3), rows, torch.zeros(1).double(), start, 100, published=published)
        assert split.first.tolist() == [True, True, False]
        assert not split.first_is_smaller
        assert split.ratio == pytest.approx((2 * mean**2 + (6 - mean) ** 2) / 3)
        assert split.side.tolist() == pytest.approx([1, 1, -1])

    def test_a_large_class_does_not_stand_out_by_its_size(self) -> None:
        rows = torch.tensor([[0.0], [0.0], [6.0]]).double()
        centre = torch.zeros(1).double()

        def ratio(times: int) -> float:
            start = torch.tensor([True, False, False] * times)
            return line(1e6, 1).split(0, torch.arange(3 * times), rows.repeat(times, 1), centre, start, 100, published=False).ratio

        assert ratio(50) == pytest.approx(ratio(1), rel=1e-5)

    @pytest.mark.parametrize("start", [[True] * 4, [False] * 4, [True, False, True, False]])
    def test_any_start_finds_two_groups(self, start: list[bool]) -> None:
        first, means = two_groups(torch.tensor([[0.0], [1.0], [10.0], [11.0]]).double(), torch.tensor(start), 100)
        assert first.tolist() in ([True, True, False, False], [False, False, True, True])
        assert sorted(float(mean) for mean in means) == [0.5, 10.5]

    def test_rows_that_are_all_alike_are_no_matter(self) -> None:
        rows = torch.ones(4, 1).double()
        split = line(1, 1).split(0, torch.arange(4), rows, torch.ones(1).double(), torch.tensor([True, False] * 2), 100, published=False)
        assert split.ratio == 0
        assert bool(split.side.isfinite().all())


class TestFit:
    def test_the_covariances_that_rows_were_drawn_from_are_found(self) -> None:
        """200 classes of 20 rows: S_mu = diag(9, 1), S_e = diag(1, 4); the mean over all rows is no matter."""
        generator = torch.Generator().manual_seed(0)
        labels = torch.arange(200).repeat_interleave(20)
        means = torch.randn(200, 2, generator=generator, dtype=torch.float64) * torch.tensor([3.0, 1.0])
        rows = means[labels] + torch.randn(4000, 2, generator=generator, dtype=torch.float64) * torch.tensor([1.0, 2.0]) + 50
        found = fit(rows, labels, 1e-6, 100)
        between, within = (found.basis @ part @ found.basis.T for part in (found.between, found.within))
        torch.testing.assert_close(within, torch.diag(torch.tensor([1.0, 4.0]).double()), atol=0.2, rtol=0)
        torch.testing.assert_close(between, torch.diag(torch.tensor([9.0, 1.0]).double()), atol=1.2, rtol=0)

    @pytest.mark.parametrize("rows", [40, 6])
    def test_the_basis_changes_nothing(self, rows: int) -> None:
        """Features that never vary, or more features than rows: as the formulas with pseudo-inverses on all features."""
        generator = torch.Generator().manual_seed(rows)
        features = torch.randn(rows, 8, generator=generator, dtype=torch.float64)
        features[:, 2] = 0.7
        labels = torch.arange(rows) % 2
        found = fit(features, labels, 0, 1)
        spread = features - features.mean(0)
        means = torch.stack([spread[labels == label].mean(0) for label in (0, 1)])
        between, within = means[labels].T.cov(), (spread - means[labels]).T.cov()
        inverse = torch.linalg.pinv(rows / 2 * between + within, rtol=1e-10)
        means = torch.stack([between @ inverse @ spread[labels == label].sum(0) for label in (0, 1)])
        torch.testing.assert_close(found.basis @ found.between @ found.basis.T, means[labels].T.cov())
        torch.testing.assert_close(found.basis @ found.within @ found.basis.T, (spread - means[labels]).T.cov())


class TestDefense:
    @pytest.mark.parametrize("poison", [3, POISON, 45])
    def test_one_split_class_of_ten_is_named_and_its_poison_found(self, poison: int) -> None:
        """In shuffled rows; the last case has more poison than clean rows in its class."""
        data, bad = planted(poison)
        outcome = defend(data)
        assert infected(outcome) == ["d"]
        assert suspects(outcome).equal(bad)
        assert outcome.suspicion is not None
        assert float(outcome.suspicion[bad].min()) > float(outcome.suspicion[~bad].max())

    @pytest.mark.parametrize(("poison", "found"), [(POISON, True), (45, False)])
    def test_the_smaller_group_is_wrong_where_poison_is_the_majority(self, poison: int, found: bool) -> None:
        data, bad = planted(poison)
        flagged = suspects(defend(data, group="smaller"))
        assert flagged.equal(bad if found else (data.labels == 3) & ~bad)

    def test_a_clean_set_has_no_suspects_and_the_victim_comes_back(self) -> None:
        outcome = defend(draw([30] * CLASSES, 1), retrain=True)
        assert not infected(outcome)
        assert not suspects(outcome).any()
        assert isinstance(outcome.classifier, Network)
        assert outcome.classifier.head.weight.equal(network(Pixels().build(CLASSES, (1, 1, CLASSES + 1))).head.weight)

    @pytest.mark.parametrize(("variant", "named"), [("corrected", []), ("published", ["d"])])
    def test_an_unusually_low_ratio_is_no_infection(self, variant: Literal["corrected", "published"], named: list[str]) -> None:
        """A class whose rows are all alike; the absolute value in public code accuses it."""
        data = draw([30] * CLASSES, 1)
        images = data.images.clone()
        images[data.labels == 3] = images[data.labels == 3][:1]
        outcome = defend(ImageSet(images, data.labels, data.classes), variant=variant)
        indices = {row["class"]: row["index"] for row in outcome.tables["classes"]}
        if variant == "corrected":
            assert indices["d"] == min(indices.values())
            assert "d" not in infected(outcome)
        one_sided = anomaly_indices(torch.tensor([row["ratio"] for row in outcome.tables["classes"]]).double())
        expected = one_sided if variant == "corrected" else one_sided.abs()
        assert list(indices.values()) == pytest.approx(expected.tolist())

    def test_published_ratios_grow_with_the_distance_from_the_other_classes(self) -> None:
        """The missing factor draws the mean of one group to zero: a clean class that lies far away looks split."""

        def far(counts: list[int], seed: int) -> ImageSet:
            data = draw(counts, seed)
            images, dim = data.images.clone(), data.labels != 7
            images[dim, 0, 0, data.labels[dim]] -= 150
            return ImageSet(images, data.labels, data.classes)

        data, clean = far([30] * CLASSES, 1), far([20] * CLASSES, 99)
        right, published = (
            {row["class"]: row["ratio"] for row in defend(data, clean=clean, variant=variant).tables["classes"]}
            for variant in ("corrected", "published")
        )
        assert right["h"] < 1.5 * sorted(right.values())[5]
        assert published["h"] == max(published.values()) > 4 * sorted(published.values())[5]

    def test_the_threshold_is_that_of_the_index(self) -> None:
        data, _ = planted()
        first, second, *_ = sorted((row["index"] for row in defend(data).tables["classes"]), reverse=True)
        assert infected(defend(data, threshold=second)) == ["d"]
        assert len(infected(defend(data, threshold=0.99 * second))) == 2
        assert first > Scan.Config().threshold == pytest.approx(math.exp(2), abs=1e-3)

    def test_a_seed_gives_the_same_split_again(self) -> None:
        data, _ = planted()
        first, again = defend(data, seed=3), defend(data, seed=3)
        assert first.tables == again.tables
        assert suspects(first).equal(suspects(again))

    def test_a_model_is_trained_without_the_suspects(self, monkeypatch: pytest.MonkeyPatch) -> None:
        data, bad = planted()
        kept: list[Tensor] = []

        def without(data: ImageSet, rows: Tensor) -> ImageSet:
            kept.append(rows)
            return data.subset(~rows)

        monkeypatch.setattr("gatecrash_plugins.defenses.scan.without", without)
        assert isinstance(defend(data, retrain=True).classifier, Network)
        assert [rows.equal(bad) for rows in kept] == [True]

    def test_classes_of_one_row_or_none_are_left_alone(self) -> None:
        data = draw([30, 1, 0] + [30] * 7, 1)
        outcome = defend(data)
        assert [row["class"] for row in outcome.tables["classes"]] == list("adefghij")
        assert not suspects(outcome).any()

    def test_a_class_without_clean_rows_loses_its_smaller_group(self) -> None:
        data, bad = planted()
        clean = draw([20, 20, 20, 0] + [20] * 6, 99)
        assert suspects(defend(data, clean=clean)).equal(bad)
