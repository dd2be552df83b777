"""Detectors of inputs: what an outcome may hold, and the classifier that the harness builds of one."""

from __future__ import annotations

import json

import pytest
import torch

from gatecrash import ContractError, Give, Need, Outcome, Rejecting
from gatecrash.contracts.defense import access_class
from gatecrash.contracts.detector import with_rejection
from gatecrash.contracts.portable import rebuild, spec_of, state_of
from support.planted_networks import one_channel_per_class
from support.written_answers import TEST, table
from support.written_scores import Brightness, score_table

DETECTOR = frozenset({Give.DETECTOR})


def test_the_last_class_wins_exactly_where_the_detector_flags() -> None:
    detector = score_table([0.4, 0.6, 0.5, 0.6, 0.4, 0.4], [], threshold=0.5)  # 0.5 is not above the threshold
    logits = Rejecting(table([0, 0, 1, 1, 2, 2]), detector)(TEST.images)
    assert logits.argmax(1).tolist() == [0, 3, 1, 3, 2, 2]
    assert torch.isfinite(logits).all()


def test_float_images_keep_their_gradient_and_are_shown_to_the_detector_as_they_would_be_saved() -> None:
    network = one_channel_per_class()
    images = torch.full((2, 1, 1, 5), 0.8, requires_grad=True)
    logits = Rejecting(network, Brightness())(images)
    assert logits.argmax(1).tolist() == [network.num_classes] * 2
    logits[:, 0].sum().backward()
    assert images.grad is not None


def test_rejection_by_the_classifier_itself_is_kept() -> None:
    logits = torch.tensor([[1.0, 0.0, 5.0], [1.0, 0.0, -5.0]])
    assert with_rejection(logits, torch.tensor([False, False]), 2).equal(logits)
    assert with_rejection(logits, torch.tensor([False, True]), 2).argmax(1).tolist() == [2, 2]


def test_it_is_stored_as_any_portable() -> None:
    rejecting = Rejecting(one_channel_per_class(), score_table([0.4, 0.6], [], threshold=0.5)).eval()
    again = rebuild(json.loads(json.dumps(spec_of(rejecting))), state_of(rejecting))
    assert spec_of(again)["class"] == "gatecrash:Rejecting"
    images = torch.randint(0, 256, (5, 1, 1, 5), dtype=torch.uint8)
    assert again(images).equal(rejecting(images))


def test_a_detector_is_ranked_among_input_time_defenses() -> None:
    assert access_class(frozenset({Need.MODEL, Need.CLEAN_DATA}), DETECTOR) == "input-time"


@pytest.mark.parametrize(
    ("gives", "outcome", "message"),
    [
        (DETECTOR, Outcome(), "declares DETECTOR but its outcome has none"),
        (frozenset(), Outcome(detector=Brightness()), "does not declare DETECTOR"),
        (DETECTOR, Outcome(detector=one_channel_per_class()), "is a Network, not a gatecrash.InputDetector"),  # type: ignore[arg-type]
        (DETECTOR, Outcome(detector=score_table([], [], threshold=float("nan"))), "finite threshold"),
        (DETECTOR, Outcome(detector=score_table([], [], threshold=torch.zeros(2))), "finite threshold"),  # type: ignore[arg-type]
        (DETECTOR, Outcome(detector=score_table([], [], max_images=1)), "at least 2; got 1"),
    ],
)
def test_what_breaks_the_promise_is_named(gives: frozenset[Give], outcome: Outcome, message: str) -> None:
    with pytest.raises(ContractError, match=message):
        outcome.check(gives, None, 6)


def test_a_threshold_may_be_a_tensor_of_one_element() -> None:
    detector = score_table([0.4, 0.6], [], threshold=torch.tensor(0.5))  # type: ignore[arg-type]
    Outcome(detector=detector).check(DETECTOR, None, 6)
    assert detector.flags(torch.tensor([0.4, 0.6])).tolist() == [False, True]
