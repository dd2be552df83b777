"""WaNet: rows of both kinds, their labels and what they look like."""

from __future__ import annotations

from typing import Any

import torch

from gatecrash import ImageSet, Poisoned, Role
from gatecrash.testing import make_context
from gatecrash_plugins.attacks.wanet import WaNet
from gatecrash_plugins.models.small_cnn import SmallCnn

SHAPE = (3, 8, 6)


def images(count: int = 200) -> ImageSet:
    pixels = torch.randint(256, (count, *SHAPE), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    return ImageSet(pixels, torch.arange(count) % 10, tuple("abcdefghij"))


def poison(seed: int = 0, **options: Any) -> Poisoned:
    attack, train = WaNet(WaNet.Config(**options)), images()
    made = attack.poison(train, make_context(attack, train, SmallCnn(), seed=seed))
    made.check(train)
    return made


def test_a_tenth_is_poison_and_a_fifth_is_covers_by_default() -> None:
    train, made = images(), poison()
    poisoned, covers = made.role == Role.POISON, made.role == Role.COVER
    assert (int(poisoned.sum()), int(covers.sum())) == (20, 40)
    assert (train.labels[poisoned] != 0).all()
    assert (made.labels[poisoned] == 0).all()
    assert made.labels[covers].equal(train.labels[covers])


def test_poison_and_covers_look_as_the_evaluation_scores_them() -> None:
    train, made = images(), poison()
    (backdoor,) = made.backdoors
    assert backdoor.trigger is not None
    assert backdoor.cover is not None
    poisoned, covers = made.role == Role.POISON, made.role == Role.COVER
    assert made.images[poisoned].equal(backdoor.trigger(train.images[poisoned]))
    assert made.images[covers].equal(backdoor.cover(train.images[covers]))
    assert not made.images[covers].equal(backdoor.trigger(train.images[covers]))


def test_rows_follow_the_seed_and_the_field_does_not() -> None:
    first, other = poison(), poison(seed=1)
    assert not first.role.equal(other.role)
    (one,), (two,) = first.backdoors, other.backdoors
    assert one.trigger is not None
    assert two.trigger is not None
    assert one.trigger(images().images).equal(two.trigger(images().images))


def test_every_goal_works_and_covers_can_be_left_out() -> None:
    made = poison(goal="all-to-all", cover_rate=0)
    rows = made.role == Role.POISON
    assert made.labels[rows].equal((images().labels[rows] + 1) % 10)
    assert not (made.role == Role.COVER).any()
    assert (images().labels[poison(goal="one-to-one", source=3, poison_rate=0.05).role == Role.POISON] == 3).all()
