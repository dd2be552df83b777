"""GoodNet: reject exactly where the original and the pruned network differ."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from gatecrash import Classifier, NotApplicable
from gatecrash.contracts.portable import rebuild, spec_of, state_of
from gatecrash_plugins.defenses.activation_pruning import ActivationPruning
from gatecrash_plugins.defenses.goodnet import GoodNet, GoodNetDefense
from support.defending import defended
from support.planted_networks import planted_backdoor, planted_clean
from support.predicting import predict


class Says(Classifier):
    """Gives prescribed logits, whatever the images."""

    logits: Tensor

    def __init__(self, logits: list[list[float]]) -> None:
        super().__init__()
        self.num_classes = len(logits[0])
        self.register_buffer("logits", torch.tensor(logits))

    def forward(self, images: Tensor) -> Tensor:
        return self.logits[: len(images)]


def decide(original: list[list[float]], pruned: list[list[float]]) -> list[int]:
    images = torch.zeros(len(original), 1, 1, 1, dtype=torch.uint8)
    return GoodNet(Says(original), Says(pruned))(images).argmax(1).tolist()


def test_agreement_keeps_the_class_and_disagreement_is_class_k() -> None:
    original = [[3.0, 1, 0], [3.0, 1, 0], [0.0, 1, 5], [0.0, 1, 5]]
    pruned = [[9.0, 8, 7], [1.0, 3, 0], [1.0, 1, 2], [2.0, 1, 1]]
    assert decide(original, pruned) == [0, 3, 2, 3]


def test_the_rejection_says_how_near_the_networks_are_to_the_other_decision() -> None:
    # Image 0: leads of the agreed class are 2 and 1, so rejection is 1 below the top. Image 1: the class 1 of the pruned network leads by
    # -2 in the original, class 0 by -3 in the pruned one: the cheapest agreement is 2 away.
    logits = GoodNet(Says([[3.0, 1, 0], [3.0, 1, 0]]), Says([[5.0, 4, 0], [0.0, 3, 0]]))(torch.zeros(2, 1, 1, 1))
    assert logits.tolist() == [[3, 1, 0, 2], [3, 1, 0, 5]]


LOGIT = st.one_of(st.integers(-2, 2).map(float), st.floats(-(2.0**100), 2.0**100, width=32), st.floats(-(2.0**-100), 2.0**-100, width=32))


@settings(max_examples=150, deadline=None)
@given(st.integers(2, 5).flatmap(lambda k: st.lists(st.tuples(*[st.lists(LOGIT, min_size=k, max_size=k)] * 2), min_size=1, max_size=8)))
def test_it_rejects_exactly_where_the_two_differ_for_any_logits(pairs: list[tuple[list[float], list[float]]]) -> None:
    original, pruned = [list(side) for side in zip(*pairs, strict=True)]
    first, second = (torch.tensor(side).argmax(1) for side in (original, pruned))
    expected = torch.where(first == second, first, len(original[0]))
    assert decide(original, pruned) == expected.tolist()


@pytest.mark.parametrize("options", [{}, {"order": "decreasing"}, {"activations": "before-pooling"}])
def test_on_every_digit_it_rejects_exactly_where_the_two_differ(badnets_on_digits: Any, options: dict[str, Any]) -> None:
    victim, clean, test = badnets_on_digits.network, badnets_on_digits.clean, badnets_on_digits.test
    options = {"max_drop": 0.1, **options}
    goodnet, pruning = GoodNetDefense(GoodNetDefense.Config(**options)), ActivationPruning(ActivationPruning.Config(**options))
    made, pruned = defended(goodnet, victim, clean), defended(pruning, victim, clean).classifier
    assert isinstance(made.classifier, GoodNet)
    assert pruned is not None
    triggered = badnets_on_digits.backdoors[0].trigger(test.images)
    images = torch.cat([clean.images, test.images, triggered])
    first, second = (predict(classifier, images, device="cpu").argmax(1) for classifier in (victim, pruned))
    decided = predict(made.classifier, images, device="cpu").argmax(1)
    assert torch.equal(decided, torch.where(first == second, first, clean.num_classes))
    assert 0 < int((first != second).sum()) < len(images)
    assert made.tables["pruning"][0]["holdout_acc"] > 0.9


def test_a_planted_backdoor_is_rejected_and_so_is_the_class_that_pruning_lost() -> None:
    clean, defense = planted_clean(), GoodNetDefense(GoodNetDefense.Config(max_drop=0.1))
    classifier = defended(defense, planted_backdoor(), clean).classifier
    assert classifier is not None
    triggered = clean.images.clone()
    triggered[..., 3] = 255
    decided = classifier(triggered).argmax(1)
    # Channels 4, 3 and then 1 go: the pruned network ignores the trigger, and takes class 1, now dark, for class 2.
    assert set(decided[clean.labels == 0].tolist()) == {0}
    assert set(decided[clean.labels != 0].tolist()) == {3}
    assert classifier(clean.images).argmax(1).tolist() == [0] * 30 + [3] * 10 + [2] * 10


def test_it_is_stored_and_rebuilt_with_both_networks(badnets_on_digits: Any) -> None:
    made = defended(GoodNetDefense(), badnets_on_digits.network, badnets_on_digits.clean).classifier
    assert made is not None
    again = rebuild(spec_of(made), state_of(made))
    assert torch.equal(again(badnets_on_digits.test.images), made(badnets_on_digits.test.images))


def test_gradients_flow_to_the_image() -> None:
    goodnet = GoodNet(planted_backdoor(), planted_backdoor())
    images = torch.full((2, 1, 1, 5), 0.5, requires_grad=True)
    goodnet(images)[:, -1].sum().backward()
    assert images.grad is not None
    assert torch.isfinite(images.grad).all()
    assert (images.grad != 0).any()


def test_it_comes_last_in_a_chain() -> None:
    goodnet, pruning = GoodNet(planted_backdoor(), planted_backdoor()), ActivationPruning()
    with pytest.raises(NotApplicable, match="GoodNet"):
        defended(pruning, goodnet, planted_clean())
