"""Neural Cleanse's repairs and filter, on nets whose backdoor is planted by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from gatecrash import Classifier, Defense, Network, NotApplicable
from gatecrash.contracts.portable import rebuild, spec_of, state_of
from gatecrash.testing import make_evidence
from gatecrash_plugins.defenses._reverse_triggers import Reversed
from gatecrash_plugins.defenses.neural_cleanse import FilteredNetwork, NeuralCleanse, NeuralCleanseFilter, make_filter, with_triggers
from support.planted_shortcut import CLASSES, QUICK, SIDE, TARGET, accuracy, corner, defend, planted, stripes, success, unlearned


class Ensemble(Classifier):
    """A classifier that is no `Network`: the mean of two."""

    num_classes = CLASSES

    def __init__(self, first: Network, second: Network) -> None:
        super().__init__()
        self.first, self.second = first, second

    def config(self) -> dict[str, Any]:
        return {"first": self.first, "second": self.second}

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = (self.first(images) + self.second(images)) / 2
        return logits


def ensemble() -> Ensemble:
    return Ensemble(planted(), planted(shortcut=20.0)).eval()


class Table(Classifier):
    """A classifier without parameters and gradients: it looks at one pixel."""

    num_classes = CLASSES

    def forward(self, images: Tensor) -> Tensor:
        return torch.eye(CLASSES)[images[:, 0, 0, 0].long() % CLASSES]


@pytest.fixture(scope="module")
def filtered() -> FilteredNetwork:
    config = NeuralCleanseFilter.Config(**QUICK, false_positives=0.1)
    outcome, _ = defend(NeuralCleanseFilter(config), planted())
    assert isinstance(outcome.classifier, FilteredNetwork)
    return outcome.classifier


class TestUnlearning:
    def test_takes_the_backdoor_out_of_the_model_it_returns(self) -> None:
        """Not the attacked model, as another toolbox saves."""
        outcome = unlearned()
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


class TestAnyClassifier:
    """What is asked of a classifier is its gradient by the input; a `Network` has more."""

    def test_is_searched_and_unlearns(self) -> None:
        classifier = ensemble()
        outcome, _ = defend(NeuralCleanse(NeuralCleanse.Config(**QUICK, unlearn_lr=0.01)), classifier)
        assert outcome.verdict is not None
        assert outcome.verdict.targets == (TARGET,)
        assert isinstance(outcome.classifier, Ensemble)
        assert outcome.tables["repair"][0]["success_after"] < 0.1 < outcome.tables["repair"][0]["success_before"]
        assert success(classifier, corner(), stripes()) == 1.0  # it was a copy that unlearned

    def test_comes_back_as_it_was_where_the_verdict_alone_is_asked_for(self) -> None:
        classifier = ensemble().requires_grad_(False)
        outcome, _ = defend(NeuralCleanse(NeuralCleanse.Config(**QUICK, repair="none")), classifier)
        assert outcome.verdict is not None
        assert outcome.verdict.targets == (TARGET,)
        assert isinstance(outcome.classifier, Ensemble)
        assert torch.equal(outcome.classifier(stripes().images), classifier(stripes().images))

    @pytest.mark.parametrize(
        ("classifier", "defense", "said"),
        [
            (ensemble(), NeuralCleanse(NeuralCleanse.Config(repair="prune")), "a Ensemble, has no points .* use repair none"),
            (Table(), NeuralCleanse(), "a Table, has no parameters that could unlearn; use repair none"),
            (Table(), NeuralCleanse(NeuralCleanse.Config(repair="none")), "a Table, passes no gradient to its input"),
            (ensemble(), NeuralCleanseFilter(), "a Ensemble, which gives no access to points"),
        ],
    )
    def test_that_lacks_what_is_needed_is_said_before_the_search(self, classifier: Classifier, defense: Defense, said: str) -> None:
        with pytest.raises(NotApplicable, match=said):
            defend(defense, classifier)


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
