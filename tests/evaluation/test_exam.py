"""Sealed evaluation, on classifiers whose every answer is written down, so that each score can be counted by hand."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gatecrash import ContractError
from gatecrash.evaluation.exam import attack_success, evaluate
from support.written_answers import LN2, ONE, TEST, UNSEEN, backdoor, misbehaving, numbered, photos, table


def test_accuracy_and_loss_on_clean_images():
    scores = evaluate(table([0, 1, 1, 1, 2, 0]), TEST, device="cpu")
    assert (scores.n_test, scores.correct, scores.acc) == (6, 4, pytest.approx(4 / 6))
    # softmax of (ln 2, 0, 0) is (1/2, 1/4, 1/4): ln 2 for a right answer, ln 4 for a wrong one
    assert scores.loss_clean == pytest.approx((4 * LN2 + 2 * 2 * LN2) / 6)


def test_all_to_one_counts_no_image_of_the_target_class():
    # Of images 2..5 under the trigger, 2 and 4 become 0, 3 keeps its class, 5 becomes 1. Images 0 and 1 are 0 already: never shown.
    scores = evaluate(table([0, 0, 1, 1, 2, 2], [UNSEEN, UNSEEN, 0, 1, 0, 1]), TEST, [ONE], device="cpu")
    (mark,) = scores.backdoors
    assert (mark.eligible, mark.hits, mark.recovered) == (4, 2, 1)
    assert (scores.acc, scores.asr, scores.ra) == (1.0, 0.5, 0.25)
    assert scores.loss_poison == pytest.approx((2 * LN2 + 2 * 2 * LN2) / 4)
    assert (mark.kind, mark.targets) == ("all-to-one", (0,))


def test_one_to_one_counts_the_source_class_only():
    goal = backdoor("one-to-one", target=2, source=1)
    scores = evaluate(table([0, 0, 1, 1, 2, 2], [UNSEEN, UNSEEN, 2, 0, UNSEEN, UNSEEN]), TEST, [goal], device="cpu")
    assert (scores.backdoors[0].eligible, scores.asr, scores.ra) == (2, 0.5, 0.0)


def test_all_to_all_counts_every_image_and_wants_the_next_class():
    goal = backdoor("all-to-all", target=None)
    scores = evaluate(table([0, 0, 1, 1, 2, 2], [1, 1, 2, 1, 0, 1]), TEST, [goal], device="cpu")
    assert (scores.backdoors[0].eligible, scores.backdoors[0].hits) == (6, 4)  # 0->1, 0->1, 1->2, 2->0
    assert scores.ra == pytest.approx(1 / 6)
    assert scores.backdoors[0].targets == (0, 1, 2)


def test_attack_success_stands_whatever_becomes_of_accuracy():
    """Elsewhere the ASR is silently set to 0 when ACC drops."""
    scores = evaluate(table([2, 2, 2, 2, 0, 0], [UNSEEN, UNSEEN, 0, 0, 0, 0]), TEST, [ONE], device="cpu")
    assert (scores.acc, scores.asr) == (0.0, 1.0)


def test_a_rejected_image_is_wrong_when_clean_and_a_failed_attack_when_triggered():
    reject = 3
    victim = table([0, reject, 1, 1, 2, reject], [UNSEEN, UNSEEN, reject, reject, reject, 0], reject=True)
    scores = evaluate(victim, TEST, [ONE], device="cpu")
    assert (scores.acc, scores.clean_reject_rate) == (pytest.approx(4 / 6), pytest.approx(2 / 6))
    assert (scores.asr, scores.ra, scores.trigger_reject_rate) == (0.25, 0.0, 0.75)
    # softmax over four logits (ln 2, 0, 0, 0): ln 2.5 for a right answer, ln 5 otherwise
    assert scores.loss_clean == pytest.approx((4 * math.log(2.5) + 2 * math.log(5)) / 6)
    assert scores.loss_poison == pytest.approx((math.log(2.5) + 3 * math.log(5)) / 4)


def test_attack_success_shows_triggered_images_only():
    scores = attack_success(table([UNSEEN] * 6, [UNSEEN, UNSEEN, 0, 1, 1, 1]), TEST, [ONE], device="cpu")
    assert (scores.asr, scores.n_test, scores.acc, scores.loss_clean) == (0.25, 0, None, None)


cases = st.integers(1, 40).flatmap(
    lambda n: st.tuples(
        st.lists(st.integers(0, 2), min_size=n, max_size=n),
        st.lists(st.integers(0, 3), min_size=n, max_size=n),
        st.lists(st.integers(0, 3), min_size=n, max_size=n),
        st.permutations(range(n)),
        st.sampled_from([backdoor(), backdoor("one-to-one", 2, 1), backdoor("all-to-all", None)]),
        st.integers(1, 50),
    )
)


@settings(max_examples=40, deadline=None)
@given(cases)
def test_neither_the_order_of_the_test_set_nor_the_batch_size_matters(case):
    labels, clean, triggered, order, planted, batch_size = case
    test, victim = numbered(labels), table(clean, triggered, reject=True)
    scores = evaluate(victim, test, [planted], device="cpu").to_json()
    shuffled = evaluate(victim, test.subset(torch.tensor(order)), [planted], device="cpu", batch_size=batch_size).to_json()
    losses = [(s.pop("loss_clean"), s["backdoors"][0].pop("loss")) for s in (scores, shuffled)]
    assert scores == shuffled
    assert losses[0] == pytest.approx(losses[1])


@settings(max_examples=40, deadline=None)
@given(cases)
def test_a_triggered_image_counts_once_and_as_a_plain_count_says(case):
    labels, clean, triggered, _, planted, _ = case
    scores = evaluate(table(clean, triggered, reject=True), numbered(labels), [planted], device="cpu")
    assert scores.acc == sum(a == y for a, y in zip(clean, labels, strict=True)) / len(labels)
    wanted = {"all-to-one": lambda y: 0, "one-to-one": lambda y: 2, "all-to-all": lambda y: (y + 1) % 3}[planted.goal.kind]
    eligible = {"all-to-one": lambda y: y != 0, "one-to-one": lambda y: y == 1, "all-to-all": lambda y: True}[planted.goal.kind]
    pairs = [(y, a) for y, a in zip(labels, triggered, strict=True) if eligible(y)]
    if not pairs:
        assert scores.asr is None
        return
    assert scores.asr == sum(a == wanted(y) for y, a in pairs) / len(pairs)
    assert scores.asr + scores.ra + scores.trigger_reject_rate <= 1 + 1e-12


def test_clean_and_triggered_images_come_shuffled_together():
    batches = []

    def look(logits, images):
        batches.append((images[:, 0, 0, 1] == 255).float().mean().item())
        return logits

    evaluate(misbehaving(look), photos(90), [backdoor("all-to-all", None)], device="cpu", batch_size=30)
    assert all(0.1 < share < 0.9 for share in batches[:6])  # six batches of 30 out of 90 clean and 90 triggered


def test_a_classifier_for_other_classes_is_refused():
    with pytest.raises(ContractError, match="the classifier has 5 classes; the test set has 3"):
        evaluate(table([0] * 6, num_classes=5), TEST, device="cpu")
