"""SPECTRE: quantum entropy scores by hand, the filter of rows by the full matrix, and which rows of which class go."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from gatecrash import Backbone, ImageSet, Model, Network, Outcome, Recipe
from gatecrash.testing import make_evidence
from gatecrash_plugins.defenses import _robust_covariance as robust
from gatecrash_plugins.defenses import spectre
from gatecrash_plugins.defenses.spectre import Spectre, components, entropy, quantum_matrix, quantum_scores
from support.planted_networks import OneToOne, network

CLASSES = 5
WIDTH = 12


class Pixels(Model):
    """Features are pixels."""

    name = "pixels"
    summary = "features are pixels"

    def build(self, num_classes: int, shape: tuple[int, int, int]) -> Backbone:
        return OneToOne(torch.eye(num_classes, shape[2]).tolist(), [0.0] * num_classes, [1.0] * shape[2])


def planted(poison: int = 6, clean: int = 60, seed: int = 0) -> tuple[ImageSet, Tensor]:
    """Shuffled rows, `clean` of each of five classes in noise; `poison` more rows of class 2, whose last pixels are brighter; which."""
    labels = torch.cat([torch.arange(CLASSES).repeat_interleave(clean), torch.full((poison,), 2)])
    draws = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 40, (len(labels), 1, 1, WIDTH), generator=draws, dtype=torch.uint8)
    images[torch.arange(len(labels)), 0, 0, labels] += 150
    bad = torch.arange(len(labels)) >= CLASSES * clean
    images[bad, 0, 0, -3:] += 60
    order = torch.randperm(len(labels), generator=draws)
    return ImageSet(images[order], labels[order], tuple("abcde")), bad[order]


def defend(data: ImageSet, **options: Any) -> Outcome:
    defense = Spectre(Spectre.Config.model_validate({"retrain": False, **options}))
    victim = network(Pixels().build(CLASSES, (1, 1, WIDTH)))
    recipe = Recipe(epochs=1, batch_size=64, lr=0.1, crop=0, flip=False)
    outcome = defense.defend(make_evidence(defense, victim, data, training_data=data, model=Pixels(), recipe=recipe))
    outcome.check(frozenset(defense.gives), len(data), CLASSES)
    return outcome


def suspects(outcome: Outcome) -> Tensor:
    assert outcome.suspects is not None
    return outcome.suspects


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class TestQuantumScores:
    def test_the_matrix_by_hand(self) -> None:
        """S = diag(2, 1): exp(4 (S - I) / (2 - 1)) = diag(e^4, 1)."""
        matrix = quantum_matrix(torch.diag(torch.tensor([2.0, 1.0]).double()), 4)
        torch.testing.assert_close(matrix, torch.diag(torch.tensor([math.exp(4), 1.0]).double()) / (math.exp(4) + 1))

    @pytest.mark.parametrize("alpha", [0, 4])
    def test_the_identity_does_not_divide_by_zero(self, alpha: float) -> None:
        torch.testing.assert_close(quantum_matrix(torch.eye(3).double(), alpha), torch.eye(3).double() / 3)

    def test_it_is_the_matrix_exponential(self) -> None:
        root = normal(5, 5)
        spread = root @ root.T + torch.eye(5)
        plain = torch.linalg.matrix_exp(4 * (spread - torch.eye(5)) / (torch.linalg.matrix_norm(spread, 2) - 1))
        torch.testing.assert_close(quantum_matrix(spread, 4), plain / plain.trace())

    def test_large_spectra_do_not_overflow(self) -> None:
        assert bool(quantum_matrix(torch.diag(torch.tensor([1.0000001, 0.5]).double()), 100).isfinite().all())

    def test_scores_lie_between_length_and_first_component(self) -> None:
        """alpha 0 is x'x / k; a large one is the square of the component along the direction of most variance."""
        rows = normal(50, 3) * torch.tensor([3.0, 1.0, 1.0])
        torch.testing.assert_close(quantum_scores(rows, 0), rows.square().sum(1) / 3)
        first = torch.linalg.eigh(rows.T.cov()).eigenvectors[:, -1]
        torch.testing.assert_close(quantum_scores(rows, 100), (rows @ first).square(), atol=1e-9, rtol=1e-9)

    def test_leaving_out_what_stands_out_leaves_more_entropy(self) -> None:
        rows = normal(100, 4)
        rows[:10, 1] += 8
        everything, without = torch.ones(100, dtype=torch.bool), torch.arange(100) >= 10
        assert entropy(rows, everything, 4) == pytest.approx(1)
        assert entropy(rows, without, 4) > 3


class TestFilter:
    @pytest.mark.parametrize(("dense", "count"), [(600, 60), (600, 9), (0, 60)])
    def test_the_largest_product_is_that_of_the_whole_matrix(self, dense: int, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
        """As the authors write it: the covariance of y x y, with every product of two columns twice. Three ways, by size."""
        monkeypatch.setattr(robust, "_DENSE", dense)
        rows = normal(count, 4)
        rows[: count // 9, 0] += 4
        white = rows @ robust.inverse_root(rows.T @ rows / count)
        products = torch.einsum("ni,nj->nij", white, white).flatten(1)
        identity = torch.eye(4, dtype=torch.float64).flatten()
        values, vectors = torch.linalg.eigh(products.T @ products / count - identity.outer(identity))
        largest, scores = robust.leading_product(white)
        assert largest == pytest.approx(float(values[-1]))
        torch.testing.assert_close(scores.abs(), ((products - identity) @ vectors[:, -1]).abs())

    def test_gaussian_rows_all_stay(self) -> None:
        assert bool(robust.trusted(normal(300, 3), 0.1, 0.1, 60).all())

    @pytest.mark.parametrize("limit", [5, 20])
    def test_planted_rows_go_up_to_the_limit(self, limit: int) -> None:
        rows = normal(300, 3)
        rows[:15, 0] += 12
        gone = ~robust.trusted(rows, 0.05, 0.1, limit)
        assert 0 < int(gone.sum()) <= limit
        assert not bool(gone[15:].any())

    def test_lowest_keeps_equal_values(self) -> None:
        assert robust.lowest(torch.tensor([3.0, 1.0, 2.0, 2.0]), 2).tolist() == [False, True, True, True]
        assert not robust.lowest(torch.tensor([3.0, 1.0]), 0).any()

    def test_directions_without_spread_stay_without(self) -> None:
        root = robust.inverse_root(torch.diag(torch.tensor([4.0, 0.0]).double()))
        assert root.tolist() == [[0.5, 0.0], [0.0, 0.0]]


class TestComponents:
    def test_they_keep_distances_and_leave_out_what_does_not_vary(self) -> None:
        rows = normal(20, 3)
        wide = torch.cat([rows, torch.full((20, 2), 7.0, dtype=torch.float64)], 1)
        found = components(wide, 10)
        assert found is not None
        assert found.shape == (20, 3)
        torch.testing.assert_close(torch.cdist(found, found), torch.cdist(rows, rows))

    @pytest.mark.parametrize(("rows", "most"), [(torch.full((6, 3), 0.7).double(), 2), (normal(3, 3), 0)])
    def test_rows_that_are_alike_or_too_few_have_none(self, rows: Tensor, most: int) -> None:
        assert components(rows, most) is None


class TestDefense:
    def test_the_class_is_found_and_its_poison_among_the_rows_that_go(self) -> None:
        """In shuffled rows; one class of five, although the authors' code is told which one."""
        data, bad = planted()
        outcome = defend(data)
        assert bool(suspects(outcome)[bad].all())
        assert bool((data.labels[suspects(outcome)] == 2).all())
        assert outcome.suspicion is not None
        of_class = data.labels == 2
        assert float(outcome.suspicion[bad].min()) > float(outcome.suspicion[of_class & ~bad].max())

    @pytest.mark.parametrize(("eps", "count"), [(0.05, 4), (0.1, 9), (0.2, 18)])
    def test_a_clean_set_loses_a_fixed_share_of_one_class(self, eps: float, count: int) -> None:
        """Built-in false alarms: public benchmarks have them in every class."""
        data, bad = planted()
        clean = data.subset(~bad)
        gone = suspects(defend(clean, eps=eps))
        assert len(set(clean.labels[gone].tolist())) == 1
        assert int(gone.sum()) == count

    def test_the_number_of_components_is_bounded_by_the_rows(self) -> None:
        data, _ = planted(poison=0, clean=20)
        assert max(row["components"] for row in defend(data).tables["classes"]) <= 5
        assert {row["components"] for row in defend(data, dimensions=1).tables["classes"]} == {1}

    def test_classes_that_are_too_small_are_left_alone(self) -> None:
        data, bad = planted()
        keep = (data.labels != 0) & (data.labels != 1)
        keep[torch.nonzero(data.labels == 1).flatten()[:2]] = True
        some = data.subset(keep)
        outcome = defend(some)
        assert [row["class"] for row in outcome.tables["classes"]] == list("cde")
        assert bool(suspects(outcome)[bad[keep]].all())

    def test_the_same_rows_go_again(self) -> None:
        data, _ = planted()
        assert suspects(defend(data)).equal(suspects(defend(data)))

    def test_a_model_is_trained_without_the_suspects_or_the_victim_returned(self, monkeypatch: pytest.MonkeyPatch) -> None:
        data, _ = planted()
        kept: list[int] = []

        def without(data: ImageSet, rows: Tensor) -> ImageSet:
            kept.append(int((~rows).sum()))
            return data.subset(~rows)

        monkeypatch.setattr(spectre, "without", without)
        retrained, victim = defend(data, retrain=True).classifier, defend(data).classifier
        assert kept == [306 - round(1.5 * 0.1 * 66)]
        assert isinstance(retrained, Network)
        assert isinstance(victim, Network)
        assert not retrained.head.weight.equal(victim.head.weight)
