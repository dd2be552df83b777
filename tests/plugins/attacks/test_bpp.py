"""BPP: rows of both kinds, their labels and what they look like."""

from __future__ import annotations

from typing import Any

import torch

from gatecrash import ImageSet, Poisoned, Role
from gatecrash.testing import make_context
from gatecrash_plugins.attacks.bpp import BPP
from gatecrash_plugins.models.small_cnn import SmallCnn
from gatecrash_plugins.triggers.quantise import Quantise

SHAPE = (3, 6, 8)


def images(count: int = 200) -> ImageSet:
    pixels = torch.randint(256, (count, *SHAPE), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    return ImageSet(pixels, torch.arange(count) % 10, tuple("abcdefghij"))


def poison(seed: int = 0, **options: Any) -> Poisoned:
    attack, train = BPP(BPP.Config(**options)), images()
    made = attack.poison(train, make_context(attack, train, SmallCnn(), seed=seed))
    made.check(train)
    return made


def test_a_fifth_is_poison_and_a_fifth_is_negatives_by_default() -> None:
    train, made = images(), poison()
    poisoned, covers = made.role == Role.POISON, made.role == Role.COVER
    assert (int(poisoned.sum()), int(covers.sum())) == (40, 40)
    assert (train.labels[poisoned] != 0).all()
    assert (made.labels[poisoned] == 0).all()
    assert made.labels[covers].equal(train.labels[covers])


def test_poison_and_negatives_look_as_the_evaluation_scores_them() -> None:
    train, made = images(), poison(levels=4, dither=False)
    (backdoor,) = made.backdoors
    assert backdoor.cover is not None
    poisoned, covers = made.role == Role.POISON, made.role == Role.COVER
    assert made.images[poisoned].equal(Quantise(4, dither=False)(train.images[poisoned]))
    assert set(made.images[poisoned].flatten().tolist()) == {0, 85, 170, 255}
    assert made.images[covers].equal(backdoor.cover(train.images[covers]))
    assert (made.images[covers].int() - train.images[covers].int()).abs().max() <= 43


def test_rows_follow_the_seed_and_covers_can_be_left_out() -> None:
    assert not poison().role.equal(poison(seed=1).role)
    made = poison(goal="all-to-all", cover_rate=0)
    rows = made.role == Role.POISON
    assert made.labels[rows].equal((images().labels[rows] + 1) % 10)
    assert made.backdoors[0].cover is None
    assert not (made.role == Role.COVER).any()
