"""Label flips by hand: how many labels are wrong, which, and that no image moves."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pydantic import ValidationError

from gatecrash import Attack, DatasetInfo, ImageSet, Poisoned, Role, UserError
from gatecrash.testing import make_context
from gatecrash_plugins.attacks.label_flip import LabelFlip
from gatecrash_plugins.attacks.targeted_flip import TargetedFlip
from gatecrash_plugins.models.small_cnn import SmallCnn

CLASSES = tuple("abcdefghij")
TRAIN = ImageSet(
    torch.randint(256, (2000, 1, 4, 4), generator=torch.Generator().manual_seed(1), dtype=torch.uint8), torch.arange(2000) % 10, CLASSES
)
INFO = DatasetInfo("toy", CLASSES, (1, 4, 4), (200,) * 10)


def poison(attack: Attack, seed: int = 0) -> Poisoned:
    found = attack.poison(TRAIN, make_context(attack, TRAIN, SmallCnn(), seed=seed))
    found.check(TRAIN)
    attack.check_aim(found)
    assert found.images.equal(TRAIN.images)
    return found


def flipped(rate: float, seed: int = 0) -> Poisoned:
    return poison(LabelFlip(LabelFlip.Config(flip_rate=rate)), seed)


def targeted(**options: Any) -> Poisoned:
    return poison(TargetedFlip(TargetedFlip.Config(**options)))


def test_a_fifth_of_the_labels_is_wrong_and_not_a_tenth_less() -> None:
    """`randint(0, 10)` draws the true label too: 18% of ten classes would be wrong."""
    found = flipped(0.2)
    assert int((found.labels != TRAIN.labels).sum()) == 400
    assert (found.role == Role.POISON).equal(found.labels != TRAIN.labels)
    assert not found.backdoors


def test_every_other_class_is_as_likely_as_the_next() -> None:
    found = flipped(1.0)
    shifts = torch.bincount((found.labels - TRAIN.labels) % 10, minlength=10)
    assert shifts[0] == 0
    assert shifts[1:].min() > 170  # 222 of each are expected, with a deviation of 14
    assert shifts[1:].max() < 275


def test_a_higher_rate_flips_a_superset_to_the_same_labels() -> None:
    few, many = flipped(0.1), flipped(0.4)
    assert many.labels[few.changed].equal(few.labels[few.changed])
    assert not flipped(0.1, seed=1).labels.equal(few.labels)


def test_only_images_of_the_source_are_relabelled_as_the_target() -> None:
    found = targeted(source=3, target=7, flip_rate=0.25)
    rows = found.changed
    assert len(rows) == 50
    assert set(TRAIN.labels[rows].tolist()) == {3}
    assert set(found.labels[rows].tolist()) == {7}
    (backdoor,) = found.backdoors
    assert (backdoor.goal.source, backdoor.goal.target, backdoor.is_triggered) == (3, 7, False)


def test_a_higher_targeted_rate_flips_a_superset() -> None:
    assert set(targeted(flip_rate=0.1).changed.tolist()) < set(targeted(flip_rate=0.5).changed.tolist())
    assert len(targeted(flip_rate=1.0).changed) == 200


@pytest.mark.parametrize(
    ("attack", "message"),
    [
        (LabelFlip(LabelFlip.Config(flip_rate=0.0001)), r"label-flip: flip_rate 0\.0001 of 2000 images is none"),
        (TargetedFlip(TargetedFlip.Config(flip_rate=0.001)), "of the source's 200 images is none"),
        (TargetedFlip(TargetedFlip.Config(source=10)), "source class 10 does not exist"),
        (TargetedFlip(TargetedFlip.Config(target=11)), "target class 11 does not exist"),
    ],
)
def test_what_cannot_work_is_refused_when_planning(attack: Attack, message: str) -> None:
    with pytest.raises(UserError, match=message):
        attack.check(INFO)


def test_one_class_alone_cannot_be_flipped() -> None:
    with pytest.raises(UserError, match="has one class"):
        LabelFlip().check(DatasetInfo("lone", ("a",), (1, 4, 4), (10,)))
    with pytest.raises(ValidationError, match="same class"):
        TargetedFlip.Config(source=2, target=2)


@pytest.mark.parametrize("attack", [LabelFlip(), TargetedFlip()])
def test_the_defaults_fit_ten_classes(attack: Attack) -> None:
    attack.check(INFO)
    poison(attack)
