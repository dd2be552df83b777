"""A detector of inputs before a classifier, on answers and scores that are written down."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from gatecrash import ContractError, Rejecting
from gatecrash.evaluation.detector_exam import evaluate_detector
from gatecrash.evaluation.exam import evaluate
from gatecrash.evaluation.independence import StoredForm
from gatecrash.evaluation.inputs import Separation
from support.written_answers import ONE, TEST, UNSEEN, misbehaving, photos, table
from support.written_scores import misbehaving_detector, score_table

VICTIM = table([0, 0, 1, 1, 2, 0], [UNSEEN, UNSEEN, 0, 0, 1, 0])
"""Of the clean images all but the last are right; of the triggered images 2 to 5 all but the fourth become class 0."""


def test_decisions_are_those_of_the_classifier_behind_the_detector() -> None:
    detector = score_table([0.1, 0.2, 0.3, 0.9, 0.4, 0.8], [0, 0, 0.9, 0.4, 0.7, 0.8])
    scores, inputs = evaluate_detector(VICTIM, detector, VICTIM, TEST, [ONE], device="cpu")
    # clean images 3 (which was right) and 5 (which was wrong) are rejected; of the three hits only image 3's is not
    assert (scores.n_test, scores.correct, scores.rejected) == (6, 4, 2)
    assert (scores.asr, scores.ra, scores.trigger_reject_rate) == (0.25, 0.0, 0.75)
    assert scores == evaluate(Rejecting(VICTIM, detector), TEST, [ONE], device="cpu")
    # pairs in order, by triggered score: .9 beats 5 and ties with one, .4 beats 3 and ties with one, .7 beats 4, .8 beats 4 and ties
    assert (inputs.clean, inputs.flagged_clean) == (6, 2)
    assert inputs.triggered == Separation(4, 3, 0, 0, pytest.approx((5.5 + 3.5 + 4 + 4.5) / 24))
    assert inputs.successful == Separation(3, 2, 0, 0, pytest.approx((5.5 + 3.5 + 4.5) / 18))


def test_success_is_counted_on_the_undefended_victim() -> None:
    """What was repaired before the detector was put there has no successful images left to be told by."""
    repaired = table([0, 0, 1, 1, 2, 2], [UNSEEN, UNSEEN, 1, 1, 2, 2])
    scores, inputs = evaluate_detector(repaired, score_table([0.0] * 6, [1.0] * 6), VICTIM, TEST, [ONE], device="cpu")
    assert (scores.asr, scores.acc, scores.trigger_reject_rate) == (0.0, 1.0, 1.0)
    assert (inputs.triggered.images, inputs.successful.images) == (4, 3)
    assert inputs.triggered.auroc == inputs.successful.auroc == 1.0


def test_a_classifier_that_rejects_by_itself_goes_on_doing_so() -> None:
    filtered = table([0, 3, 1, 1, 2, 2], [UNSEEN, UNSEEN, 3, 0, 0, 0], reject=True)
    scores, inputs = evaluate_detector(filtered, score_table([0.0] * 6, [0, 0, 0, 1, 0, 0]), VICTIM, TEST, [ONE], device="cpu")
    assert (scores.rejected, inputs.flagged_clean) == (1, 0)
    assert (scores.trigger_reject_rate, inputs.triggered.flagged) == (0.5, 1)


def test_a_costly_detector_is_shown_a_part_of_the_test_images() -> None:
    detector = score_table([0.0] * 6, [1.0] * 6, max_images=7)
    scores, inputs = evaluate_detector(VICTIM, detector, VICTIM, TEST, [ONE], device="cpu")
    assert (scores.n_test, inputs.clean) == (3, 3)  # each may be shown twice
    assert scores.backdoors[0].eligible == inputs.triggered.images <= 3
    assert (scores, inputs) == evaluate_detector(VICTIM, detector, VICTIM, TEST, [ONE], device="cpu")
    all_of_them, _ = evaluate_detector(VICTIM, score_table([0.0] * 6, [1.0] * 6, max_images=12), VICTIM, TEST, [ONE], device="cpu")
    assert all_of_them.n_test == 6


@pytest.mark.parametrize(
    ("misbehave", "message"),
    [
        (lambda scores: scores - scores.mean(), "the detector uses the batch or changes from call to call: of 256 test images"),
        (lambda scores: 1e6 + 100 * (scores - scores.mean()), "the detector uses the batch"),  # an offset hides nothing
        (lambda scores: 1e-9 * (scores - scores.mean()), "the detector uses the batch"),  # nor does a small scale
        (lambda scores: scores + torch.rand(len(scores)), "the detector uses the batch"),
        (lambda scores: scores.double(), r"must give float32 \[\d+\]; got torch.float64"),
        (lambda scores: scores[:, None], r"must give float32 \[\d+\]; got torch.float32 \[\d+, 1\]"),
        (lambda scores: scores.tolist(), r"must give float32 \[\d+\]; got list"),
        (lambda scores: scores / 0, "NaN or infinite scores for 300 of 300 images"),
    ],
)
def test_a_detector_that_breaks_its_contract_fails(misbehave: Callable[[Tensor], Tensor], message: str) -> None:
    honest = misbehaving(lambda logits, _images: logits)
    with pytest.raises(ContractError, match=message):
        evaluate_detector(honest, misbehaving_detector(misbehave), honest, photos(300), device="cpu", batch_size=64)


@pytest.mark.parametrize("misbehave", [lambda s: s, lambda s: 1e6 + s, lambda s: -1e-9 * s, lambda s: (s > 0.5).float(), torch.zeros_like])
def test_an_honest_detector_passes_whatever_its_scale(misbehave: Callable[[Tensor], Tensor]) -> None:
    honest = misbehaving(lambda logits, _images: logits)
    _, inputs = evaluate_detector(honest, misbehaving_detector(misbehave), honest, photos(300), device="cpu", batch_size=64)
    assert inputs.clean == 300


def test_a_witness_is_asked_about_the_detector_too() -> None:
    """A copy of a detector that remembers what it saw has not seen it."""
    asked: list[str] = []

    def witness(stored: StoredForm, images: Tensor) -> Tensor:
        asked.append(stored.spec["class"].rpartition(":")[2])
        fresh = misbehaving(lambda logits, _images: logits)
        return torch.rand(len(images)) if asked[-1] == "Brightness" else fresh(images)

    honest = misbehaving(lambda logits, _images: logits)
    with pytest.raises(ContractError, match=r"the detector uses the batch or changes .* to a copy in a new process"):
        evaluate_detector(honest, misbehaving_detector(lambda scores: scores), honest, photos(300), device="cpu", witness=witness)
    assert asked == ["Brightness"] * 2
