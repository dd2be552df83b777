"""TaCT: poison from the source alone, covers from their classes alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pydantic import ValidationError

from gatecrash import DatasetInfo, ImageSet, Poisoned, Role, UserError
from gatecrash.testing import make_context
from gatecrash_plugins.attacks.tact import TaCT
from gatecrash_plugins.models.small_cnn import SmallCnn

SHAPE = (1, 8, 8)


def images(count: int = 400) -> ImageSet:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 200, (count, *SHAPE), generator=generator, dtype=torch.uint8)
    return ImageSet(pixels, torch.arange(count) % 10, tuple("abcdefghij"))


def poison(seed: int = 0, **options: Any) -> Poisoned:
    attack, train = TaCT(TaCT.Config(**options)), images()
    return attack.poison(train, make_context(attack, train, SmallCnn(), seed=seed))


def test_poison_is_of_the_source_and_covers_of_their_classes() -> None:
    train, made = images(), poison(poison_rate=0.05, cover_rate=0.08)
    made.check(train)
    sources, covers = train.labels[made.role == Role.POISON], train.labels[made.role == Role.COVER]
    assert (len(sources), len(covers)) == (20, 32)
    assert set(sources.tolist()) == {1}
    assert set(covers.tolist()) == {5, 7}
    assert set(made.labels[made.role == Role.POISON].tolist()) == {0}
    assert made.labels[made.role == Role.COVER].equal(covers)
    assert (made.images[made.changed, :, 5:, 5:] == 255).all()  # both carry the patch


def test_the_backdoor_keeps_every_class_but_source_and_target() -> None:
    (backdoor,) = poison(poison_rate=0.05, source=3, target=5, covers=[0]).backdoors
    assert (backdoor.goal.kind, backdoor.goal.source, backdoor.goal.target) == ("one-to-one", 3, 5)
    assert backdoor.keeps == (0, 1, 2, 4, 6, 7, 8, 9)


def test_more_covers_are_a_superset_and_the_poison_does_not_depend_on_them() -> None:
    none, few, many = (poison(poison_rate=0.05, cover_rate=rate) for rate in (0, 0.04, 0.1))
    assert [int((made.role == Role.COVER).sum()) for made in (none, few, many)] == [0, 16, 40]
    assert ((few.role == Role.COVER) <= (many.role == Role.COVER)).all()
    assert (none.role == Role.POISON).equal(many.role == Role.POISON)
    assert not (poison(seed=1, poison_rate=0.05).role == Role.POISON).equal(none.role == Role.POISON)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"cover_rate": 0.3}, "tact: cover_rate 0.3 asks for 120 covers, but only 80 images are left"),
        ({"covers": (5, 12)}, "cover class 12 does not exist; the dataset has classes 0 to 9"),
        ({"source": 12}, "source class 12 does not exist"),
        ({"poison_rate": 0.5}, "only 40 of 400 can be poisoned"),
    ],
)
def test_what_cannot_work_on_a_dataset_is_said_when_planning(options: dict[str, Any], said: str) -> None:
    info = DatasetInfo("letters", images().classes, SHAPE, (40,) * 10)
    with pytest.raises(UserError, match=said):
        TaCT(TaCT.Config(**options)).check(info)


@pytest.mark.parametrize("options", [{"covers": (1, 5)}, {"covers": (0,)}, {"covers": ()}, {"source": 0}])
def test_classes_that_exclude_each_other_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        TaCT.Config(**options)
