"""Neural Cleanse on hand-worked norms and on nets whose backdoor is planted by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gatecrash import Backbone, Defense, Evidence, ImageSet, Network, NotApplicable, Outcome, Point, Stamp
from gatecrash.contracts.portable import rebuild, spec_of, state_of
from gatecrash.testing import make_evidence
from gatecrash_plugins.defenses._reverse_triggers import (
    CostSchedule,
    ReverseConfig,
    Reversed,
    anomaly_indices,
    attack_success,
    reverse_triggers,
)
from gatecrash_plugins.defenses.neural_cleanse import FilteredNetwork, NeuralCleanse, NeuralCleanseFilter, make_filter, with_triggers

CLASSES = 5
SIDE = 8
TARGET = 2


class PlantedNet(Backbone):
    """Class k is the brightest of K horizontal stripes (rows k); a white 2x2 corner of the last rows adds `shortcut` to the target's logit.

    Features are K stripe sums and one corner detector that no dark corner lets through.
    """

    def __init__(self, shortcut: float) -> None:
        super().__init__()
        self.shortcut = shortcut
        self.read = nn.Conv2d(1, CLASSES + 1, SIDE)
        self.point = Point(CLASSES + 1)
        self.head = nn.Linear(CLASSES + 1, CLASSES)
        with torch.no_grad():
            self.read.weight.zero_()
            self.read.bias.zero_()
            for label in range(CLASSES):
                self.read.weight[label, 0, label] = 1 / SIDE
            self.read.weight[CLASSES, 0, -2:, -2:] = 1.0
            self.read.bias[CLASSES] = -1.0
            self.head.weight.copy_(torch.cat([20 * torch.eye(CLASSES), torch.zeros(CLASSES, 1)], 1))
            self.head.weight[TARGET, CLASSES] = shortcut
            self.head.bias.zero_()

    def config(self) -> dict[str, Any]:
        return {"shortcut": self.shortcut}

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.point(self.read(images).relu()).flatten(1))
        return logits


def planted(shortcut: float = 15.0) -> Network:
    return Network(PlantedNet(shortcut), [0.0], [1.0]).eval()


def stripes(count: int = 60, classes: int = CLASSES) -> ImageSet:
    """Grey noise with one bright row per class; the corner stays dark."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 60, (count, 1, SIDE, SIDE), generator=generator, dtype=torch.uint8)
    labels = torch.arange(count) % classes
    images[torch.arange(count), 0, labels] += 150
    return ImageSet(images, labels, tuple(f"stripe {label}" for label in range(classes)))


def corner() -> Stamp:
    """The trigger that was planted."""
    mask = torch.zeros(SIDE, SIDE)
    mask[-2:, -2:] = 1
    return Stamp((1, SIDE, SIDE), 1.0, torch.full((1, SIDE, SIDE), 255, dtype=torch.uint8), mask)


QUICK = {"rounds": 60, "batch_size": 60, "lr": 0.3, "cost": 0.01, "patience": 3}


def defend(defense: Defense, network: Network, data: ImageSet | None = None) -> tuple[Outcome, Evidence]:
    evidence = make_evidence(defense, network, data or stripes())
    outcome = defense.defend(evidence)
    outcome.check(frozenset(defense.gives), None, CLASSES)
    return outcome, evidence


def success(network: nn.Module, stamp: Stamp, data: ImageSet) -> float:
    images = data.images[data.labels != TARGET]
    with torch.no_grad():
        return float((network(stamp(images)).argmax(1) == TARGET).float().mean())


def accuracy(network: nn.Module, data: ImageSet) -> float:
    with torch.no_grad():
        return float((network(data.images).argmax(1) == data.labels).float().mean())


@pytest.fixture(scope="module")
def unlearned() -> tuple[Outcome, Evidence]:
    return defend(NeuralCleanse(NeuralCleanse.Config(**QUICK, unlearn_lr=0.01)), planted())


@pytest.fixture(scope="module")
def filtered() -> FilteredNetwork:
    config = NeuralCleanseFilter.Config(**QUICK, false_positives=0.1)
    outcome, _ = defend(NeuralCleanseFilter(config), planted())
    assert isinstance(outcome.classifier, FilteredNetwork)
    return outcome.classifier


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


class TestCost:
    def rounds(self, outcomes: str, **options: Any) -> CostSchedule:
        schedule = CostSchedule(ReverseConfig(patience=2, cost=1e-3, cost_factor=4, **options), 1)
        for outcome in outcomes:
            schedule.update(np.array([outcome == "+"]))
        return schedule

    @pytest.mark.parametrize(
        ("outcomes", "cost"),
        [
            ("+", 0.0),
            ("++", 1e-3),  # starts
            ("+++", 1e-3),
            ("++++", 4e-3),  # up by 4
            ("+++++++", 16e-3),
            ("++-+-+-+", 1e-3),  # no two in a row
            ("++--", 1e-3 / 8),  # down by 4 ** 1.5
            ("++----", 1e-3 / 64),
            ("----", 0.0),  # never succeeded: the norm stays out of the loss
        ],
    )
    def test_follows_runs_of_success_and_failure(self, outcomes: str, cost: float) -> None:
        assert self.rounds(outcomes).cost[0] == pytest.approx(cost)

    def test_has_bracketed_the_answer_once_it_went_both_ways(self) -> None:
        assert not self.rounds("++++").moved[0]
        assert not self.rounds("--++++").moved[0]  # failures before the start are no lowering
        assert self.rounds("++++--").moved[0]

    def test_is_kept_apart_for_each_class(self) -> None:
        schedule = CostSchedule(ReverseConfig(patience=1, cost=1.0, cost_factor=4), 3)
        schedule.update(np.array([True, True, False]))
        schedule.update(np.array([True, False, False]))
        assert schedule.cost.tolist() == [4.0, 1 / 8, 0.0]


class TestSearch:
    def test_finds_the_planted_patch_and_names_its_target(self, unlearned: tuple[Outcome, Evidence]) -> None:
        outcome, _ = unlearned
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

    def test_reports_every_class_and_keeps_its_images(self, unlearned: tuple[Outcome, Evidence]) -> None:
        outcome, _ = unlearned
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


class TestUnlearning:
    def test_takes_the_backdoor_out_of_the_model_it_returns(self, unlearned: tuple[Outcome, Evidence]) -> None:
        """Not the attacked model, as another toolbox saves."""
        outcome, _ = unlearned
        assert outcome.classifier is not None
        assert success(planted(), corner(), stripes()) == 1.0
        assert success(outcome.classifier, corner(), stripes()) < 0.1
        assert accuracy(outcome.classifier, stripes()) > 0.97
        assert outcome.tables["repair"] == [{"class": TARGET, "success_before": pytest.approx(1.0, abs=0.03), "success_after": 0.0}]

    def test_shows_each_accused_class_on_its_share_with_true_labels(self) -> None:
        data = stripes()
        masks = torch.zeros(CLASSES, SIDE, SIDE)
        masks[1, -1, 0] = masks[3, -1, 1] = 1
        found = Reversed(masks, torch.full((CLASSES, 1, SIDE, SIDE), 255, dtype=torch.uint8), (1,) * 5, (1.0,) * 5, (1, 3))
        mixed = with_triggers(data, found, 0.2, torch.Generator().manual_seed(0))
        assert torch.equal(mixed.labels, data.labels)
        ones = (mixed.images[:, 0, -1, 0] == 255).nonzero().flatten()
        threes = (mixed.images[:, 0, -1, 1] == 255).nonzero().flatten()
        assert (len(ones), len(threes)) == (6, 6)  # a fifth of 60, in equal parts
        assert not set(ones.tolist()) & set(threes.tolist())
        assert not (mixed.labels[ones] == 1).any()
        assert not (mixed.labels[threes] == 3).any()
        assert int((mixed.images != data.images).sum()) == 12
        assert not (data.images[:, 0, -1, :2] == 255).any()


class TestPruning:
    def test_switches_off_the_shortcut_and_nothing_else(self) -> None:
        network = planted()
        outcome, _ = defend(NeuralCleanse(NeuralCleanse.Config(**QUICK, repair="prune")), network)
        assert isinstance(outcome.classifier, Network)
        assert outcome.classifier.points["point"].mask.tolist() == [1.0] * CLASSES + [0.0]
        assert success(outcome.classifier, corner(), stripes()) == 0.0
        assert accuracy(outcome.classifier, stripes()) == 1.0
        (step,) = outcome.trajectory
        assert step.params["pruned"] == 1
        assert set(step.changes) <= set(network.state_dict())

    def test_settles_for_the_least_success_if_it_cannot_reach_the_limit(self) -> None:
        """A target that wins by its bias has no neuron to prune."""
        network = planted()
        with torch.no_grad():
            network.head.bias[TARGET] = 1e3
        defense = NeuralCleanse(NeuralCleanse.Config(rounds=2, anomaly=1e-6, repair="prune"))
        outcome, _ = defend(defense, network)
        assert isinstance(outcome.classifier, Network)
        assert [step.params["pruned"] for step in outcome.trajectory] == list(range(1, CLASSES + 1))
        assert int(outcome.classifier.points["point"].mask.sum()) == CLASSES


class TestFilter:
    def test_rejects_the_trigger_and_passes_clean_images_at_the_rate_set(self, filtered: FilteredNetwork) -> None:
        data = stripes()
        with torch.no_grad():
            assert (filtered(corner()(data.images)).argmax(1) == CLASSES).all()
            logits = filtered(data.images)
        rejected = logits.argmax(1) == CLASSES
        assert int(rejected.sum()) <= 6  # a tenth of 60
        assert torch.equal(logits[~rejected].argmax(1), data.labels[~rejected])
        torch.testing.assert_close(logits[:, :CLASSES], planted()(data.images))

    def test_rejects_exactly_the_share_of_the_hold_out_that_it_may(self) -> None:
        network = planted()
        with torch.no_grad():
            network.backbone.read.bias[CLASSES] = 0.0
        masks = corner().mask.expand(CLASSES, -1, -1)
        patterns = corner().pattern.expand(CLASSES, -1, -1, -1)
        found = Reversed(masks, patterns, (1,) * CLASSES, (1.0,) * CLASSES, (TARGET,))
        evidence = make_evidence(NeuralCleanseFilter(), network, stripes())
        guarded = make_filter(evidence.network, evidence, found, 0.01, 0.1)
        assert guarded.watched.tolist() == [[0.0] * CLASSES + [1.0]]
        with torch.no_grad():
            assert int((guarded(stripes().images).argmax(1) == CLASSES).sum()) == 6  # a tenth of 60

    def test_decides_on_each_image_alone(self, filtered: FilteredNetwork) -> None:
        mixed = torch.cat([stripes().images[:7], corner()(stripes().images[:7])])
        with torch.no_grad():
            singly = torch.cat([filtered(image[None]) for image in mixed])
            torch.testing.assert_close(filtered(mixed), singly)

    def test_survives_storage(self, filtered: FilteredNetwork) -> None:
        copy = rebuild(spec_of(filtered), state_of(filtered))
        with torch.no_grad():
            assert torch.equal(copy(stripes().images), filtered(stripes().images))


@pytest.mark.parametrize("defense", [NeuralCleanse, NeuralCleanseFilter])
def test_a_model_in_which_no_class_stands_out_comes_back_unchanged(defense: type[Defense]) -> None:
    """Five classes that are alike, and no shortcut."""
    network = planted(shortcut=0.0)
    outcome, _ = defend(defense(defense.Config(**QUICK, anomaly=100)), network)
    assert outcome.verdict is not None
    assert not outcome.verdict.backdoored
    assert outcome.verdict.targets == ()
    assert outcome.classifier is not None
    after = state_of(outcome.classifier)
    assert all(torch.equal(after[name], tensor) for name, tensor in network.state_dict().items())
    with torch.no_grad():
        assert torch.equal(outcome.classifier(stripes().images), network(stripes().images))
