"""Anomaly indices and costs by hand, and the search on nets whose backdoor is planted by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from gatecrash import ImageSet, NotApplicable, Stamp
from gatecrash.testing import make_evidence
from gatecrash_plugins.defenses._reverse_triggers import ReverseConfig, anomaly_indices, attack_success, reverse_triggers, smallest
from gatecrash_plugins.defenses._trigger_search import Found, TriggerSearch
from gatecrash_plugins.defenses.neural_cleanse import NeuralCleanse
from support.planted_shortcut import CLASSES, QUICK, SIDE, TARGET, defend, planted, stripes, unlearned


class TestAnomalyIndex:
    def test_is_the_distance_from_the_median_in_scaled_median_deviations(self) -> None:
        # median 50 (between 48 and 52); deviations 40 8 6 2 2 4 10 10 -> sorted 2 2 4 6 8 10 10 40, median 7
        norms = [10.0, 42.0, 44.0, 48.0, 52.0, 54.0, 60.0, 60.0]
        assert anomaly_indices(norms)[0] == pytest.approx(40 / (1.4826 * 7))
        assert anomaly_indices(norms)[1:4] == pytest.approx([8 / 10.3782, 6 / 10.3782, 2 / 10.3782])

    def test_large_norms_have_negative_indices_and_cannot_be_accused(self) -> None:
        norms = [50.0, 49.0, 51.0, 48.0, 52.0, 500.0]
        # median 50.5; deviations .5 1.5 .5 2.5 1.5 449.5 -> median 1.5
        indices = anomaly_indices(norms)
        assert indices[5] == pytest.approx(-449.5 / (1.4826 * 1.5))
        assert (indices > 2).sum() == 0

    def test_stays_finite_where_most_norms_are_equal(self) -> None:
        indices = anomaly_indices([10.0] * 9 + [1.0])
        assert indices[:9].tolist() == [0.0] * 9
        assert indices[9] == pytest.approx(9 / 0.01)

    def test_ignores_differences_below_a_thousandth_of_the_median(self) -> None:
        assert anomaly_indices([10.0] * 9 + [9.99])[9] == pytest.approx(1.0)

    def test_of_masks_that_are_all_empty_is_zero(self) -> None:
        assert anomaly_indices([0.0] * 4).tolist() == [0.0] * 4

    @pytest.mark.parametrize(("distribution", "share"), [("normal", 1 / 3), ("lognormal", 1 / 8)])
    def test_above_two_accuses_benign_ten_class_models_by_construction(self, distribution: str, share: float) -> None:
        draws = np.random.default_rng(0).normal(size=(4000, 10))
        norms = 100 + 10 * draws if distribution == "normal" else np.exp(0.45 * draws)
        accused = np.mean([(anomaly_indices(row) > 2).any() for row in norms])
        assert accused == pytest.approx(share, abs=0.03)


class TestSearch:
    def test_finds_the_planted_patch_and_names_its_target(self) -> None:
        outcome = unlearned()
        assert outcome.verdict is not None
        assert outcome.verdict.backdoored
        assert outcome.verdict.targets == (TARGET,)
        assert outcome.verdict.probability is None
        assert outcome.verdict.anomaly[TARGET] > 2
        mask = outcome.figures[f"mask-{TARGET}"].float() / 255
        assert mask[0, -2:, -2:].sum() > 0.8 * mask.sum()
        # Where the mask is open the pattern is bright: the loss lowers the cross-entropy to the target, it does not raise it.
        shown = outcome.figures[f"pattern-{TARGET}"][0, -2:, -2:][mask[0, -2:, -2:] > 0.5]
        assert len(shown)
        assert shown.float().mean() > 200

    def test_reports_every_class_and_keeps_its_images(self) -> None:
        outcome = unlearned()
        rows = outcome.tables["classes"]
        assert [row["name"] for row in rows] == list(stripes().classes)
        assert [row["accused"] for row in rows] == [label == TARGET for label in range(CLASSES)]
        assert all(row["success_rate"] > 0.9 for row in rows)
        for label, row in enumerate(rows):
            mask, pattern = outcome.figures[f"mask-{label}"], outcome.figures[f"pattern-{label}"]
            assert (mask.dtype, tuple(mask.shape)) == (torch.uint8, (1, SIDE, SIDE))
            assert (pattern.dtype, tuple(pattern.shape)) == (torch.uint8, (1, SIDE, SIDE))
            assert row["norm"] == pytest.approx(float(mask.float().sum() / 255), abs=SIDE * SIDE / 255 / 2)

    def test_gives_each_class_what_it_would_find_alone(self) -> None:
        """Classes share batches, not losses: also when memory splits them over several passes."""
        evidence = make_evidence(NeuralCleanse(), planted(), stripes())
        config = ReverseConfig(rounds=12, batch_size=20, stop_patience=1)
        together = reverse_triggers(evidence.network.requires_grad_(False), evidence, config)

        def few(*tensors: Tensor, size: int | None = None) -> Any:
            return evidence.batches(*tensors, size=size or 20)

        apart = reverse_triggers(evidence.network, replace(evidence, batches=few), config)
        torch.testing.assert_close(together.masks, apart.masks, atol=1e-4, rtol=0)
        assert together.rounds == apart.rounds

    def test_of_a_class_counts_the_smallest_mask_that_works(self) -> None:
        """Three searches, two classes: that of class 0 with the smallest mask failed, those of class 1 failed all."""
        norms = torch.tensor([[1.0, 7.0], [3.0, 9.0], [2.0, 5.0]])
        found = Found(norms[..., None, None], torch.zeros(3, 2, 1, 1, 1), np.ones((3, 2), int), np.array([[0, 0], [1, 0], [1, 0]]) > 0)
        assert smallest(found).tolist() == [2, 2]

    def test_more_searches_only_add_to_fewer(self) -> None:
        """In full searches the first finds what it finds alone, and a class's mask can only become smaller."""
        evidence = make_evidence(NeuralCleanse(), planted(), stripes())
        classifier = evidence.network.requires_grad_(False)
        runs = []
        for searches in (1, 2):
            again = make_evidence(NeuralCleanse(), planted(), stripes())
            config = ReverseConfig(**QUICK | {"searches": searches, "stop_patience": 4})
            runs.append((TriggerSearch(classifier, again, config).run(), reverse_triggers(classifier, evidence, config)))
        (alone, one), (both, two) = runs
        torch.testing.assert_close(both.masks[0], alone.masks[0], atol=1e-4, rtol=0)
        assert both.rounds[0].tolist() == alone.rounds[0].tolist()
        assert not torch.equal(both.masks[1], both.masks[0])
        assert two.rounds == tuple(both.rounds.sum(0).tolist())
        assert all(after <= before + 1e-3 for before, after in zip(one.norms, two.norms, strict=True))

    def test_repeats_exactly(self) -> None:
        config = ReverseConfig(rounds=8, batch_size=20)
        first, second = (
            reverse_triggers(evidence.network, evidence, config)
            for evidence in (make_evidence(NeuralCleanse(), planted(), stripes()) for _ in range(2))
        )
        assert torch.equal(first.masks, second.masks)
        assert torch.equal(first.patterns, second.patterns)
        assert first.success == second.success

    def test_stops_classes_that_have_settled(self) -> None:
        evidence = make_evidence(NeuralCleanse(), planted(), stripes())
        config = ReverseConfig(rounds=200, batch_size=60, patience=2, stop_patience=4)
        found = reverse_triggers(evidence.network.requires_grad_(False), evidence, config)
        assert max(found.rounds) < 200
        assert len(set(found.rounds)) > 1

    def test_does_not_count_images_of_the_class_itself(self) -> None:
        evidence = make_evidence(NeuralCleanse(), planted(), stripes())
        invisible = Stamp((1, SIDE, SIDE), 1.0)  # an empty mask: every image stays in its class
        assert attack_success(evidence.network, evidence, invisible, TARGET) == 0.0

    def test_accuses_no_class_whose_trigger_never_worked(self) -> None:
        """Everything is class 0, so that the masks of the others mean nothing."""
        network = planted()
        with torch.no_grad():
            network.head.bias[0] = 1e4
        evidence = make_evidence(NeuralCleanse(), network, stripes())
        found = reverse_triggers(evidence.network.requires_grad_(False), evidence, ReverseConfig(rounds=5, anomaly=1e-9))
        assert found.success == (1.0, 0.0, 0.0, 0.0, 0.0)
        assert max(found.indices[1:]) > 1e-9
        assert set(found.accused) <= {0}

    def test_needs_three_classes(self) -> None:
        data = stripes()
        two = ImageSet(data.images, data.labels % 2, ("even", "odd"))
        with pytest.raises(NotApplicable, match="three classes"):
            defend(NeuralCleanse(), planted(), two)
