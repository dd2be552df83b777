"""What else a backdoor is scored by: classes that it must keep, a cover trigger, images of its own. Counted by hand."""

from __future__ import annotations

import json

import pytest
import torch

from gatecrash import Backdoor, Goal
from gatecrash.evaluation.exam import Exam, attack_success, evaluate
from gatecrash.evaluation.scores import Scores
from support.written_answers import TEST, UNSEEN, Mark, backdoor, numbered, table

SOURCE_SPECIFIC = backdoor("one-to-one", target=0, source=1, keeps=(2,))


def test_leak_is_the_share_of_kept_classes_that_are_sent_to_the_target() -> None:
    # under the mark the source's images 2 and 3 become 0; of the kept class, 4 becomes 0 and 5 the 1 that is no target
    victim = table([0, 0, 1, 1, 2, 2], [UNSEEN, UNSEEN, 0, 0, 0, 1])
    scores = evaluate(victim, TEST, [SOURCE_SPECIFIC], device="cpu")
    (one,) = scores.backdoors
    assert (one.eligible, one.hits, one.kept, one.leaked) == (2, 2, 2, 1)
    assert (scores.asr, scores.leak, scores.cover_acc) == (1.0, 0.5, None)
    assert scores.leak_interval == pytest.approx((0.0945, 0.9055), abs=5e-5)  # Wilson, 1 of 2


def test_a_class_that_is_sent_to_its_own_label_has_not_leaked() -> None:
    goal = Goal((1, 0, None, 0))  # 0 and 1 are targets, 2 is kept
    test = numbered([0, 1, 2, 2, 3], num_classes=4)
    victim = table([0, 1, 2, 2, 3], [1, 0, 2, 1, 0], num_classes=4)
    scores = evaluate(victim, test, [Backdoor("two", goal, Mark(), keeps=(2,))], device="cpu")
    assert (scores.backdoors[0].kept, scores.backdoors[0].leaked, scores.asr) == (2, 1, 1.0)


def test_cover_acc_is_the_share_of_all_covered_images_that_keep_their_label() -> None:
    victim = table([0, 0, 1, 1, 2, 2], [UNSEEN, UNSEEN, 0, 0, 0, 0], [0, 0, 1, 0, 2, 1])
    scores = evaluate(victim, TEST, [backdoor(cover=Mark(2))], device="cpu")
    (one,) = scores.backdoors
    assert (one.covered, one.cover_correct) == (6, 4)
    assert (scores.asr, scores.cover_acc, scores.leak) == (1.0, pytest.approx(4 / 6), None)


def test_leak_and_cover_acc_are_means_over_the_backdoors_that_have_them() -> None:
    first = SOURCE_SPECIFIC
    second = backdoor("one-to-one", target=1, source=0, column=2, name="second", keeps=(2,), cover=Mark(3))
    victim = table([0, 0, 1, 1, 2, 2], [UNSEEN, UNSEEN, 0, 0, 0, 2], [1, 1, UNSEEN, UNSEEN, 2, 2], [0, 0, 1, 1, 2, 1])
    scores = evaluate(victim, TEST, [first, second, backdoor("all-to-all", None, column=1, name="plain")][:2], device="cpu")
    assert [one.leak for one in scores.backdoors] == [0.5, 0.0]
    assert (scores.leak, scores.cover_acc) == (0.25, pytest.approx(5 / 6))


def test_images_of_the_attacks_own_are_scored_by_the_labels_that_it_wants() -> None:
    own = Mark()(numbered([1, 2, 2]).images)
    given = Backdoor("given", Goal.all_to_one(3, 0), images=own, labels=torch.tensor([0, 0, 0]))
    victim = table([0, 0, 1, 1, 2, 2], [0, 0, 1])
    scores = evaluate(victim, TEST, [given], device="cpu")
    (one,) = scores.backdoors
    assert (one.eligible, one.hits, one.recovered, one.classes) == (3, 2, None, None)
    assert (scores.asr, scores.ra, scores.acc) == (pytest.approx(2 / 3), None, 1.0)
    assert attack_success(table([0] * 6, [2, 2, 2]), TEST, [given], device="cpu").asr == 0.0
    assert Scores.from_json(json.loads(json.dumps(scores.to_json()))) == scores


def test_counts_of_leak_survive_json_and_are_absent_where_nothing_is_kept() -> None:
    victim = table([0, 0, 1, 1, 2, 2], [UNSEEN, UNSEEN, 0, 0, 0, 1], [0, 0, 1, 1, 2, 2])
    scores = evaluate(victim, TEST, [backdoor("one-to-one", 0, 1, keeps=(2,), cover=Mark(2))], device="cpu")
    assert Scores.from_json(json.loads(json.dumps(scores.to_json()))) == scores
    plain = evaluate(table([0, 0, 1, 1, 2, 2], [UNSEEN, UNSEEN, 0, 0, 0, 0]), TEST, [backdoor()], device="cpu").to_json()
    assert not {"kept", "leaked", "covered", "cover_correct"} & set(plain["backdoors"][0])


def test_what_is_shown_beside_leaves_the_batches_of_the_others_as_they_were() -> None:
    plain = Exam(TEST, [backdoor("one-to-one", 0, 1)], "cpu").pile
    own = Backdoor("own", Goal.all_to_one(3, 0), images=Mark(3)(TEST.images.clone()), labels=torch.zeros(6, dtype=torch.int64))
    more = Exam(TEST, [backdoor("one-to-one", 0, 1, keeps=(2,), cover=Mark(2)), own], "cpu").pile
    assert len(more) == len(plain) + 2 + 6 + 6
    for size in (1, 4, 100):
        before, after = plain.batches(size), more.batches(size)
        assert all(one.equal(other) for one, other in zip(before, after, strict=False))
        assert more.images[: len(plain)].equal(plain.images)
        assert torch.cat(after).equal(torch.arange(len(more)))
        for rows in [*after, more.sample(64)]:
            pixels = more.images[rows].clone()
            pixels[:, :, 0, 1:3] = 0  # without its mark an image is its clean twin (those of its own, marked in column 3, are no twins)
            assert len(pixels.flatten(1).unique(dim=0)) == len(rows)
