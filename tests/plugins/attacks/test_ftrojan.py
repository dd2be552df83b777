"""FTrojan: what is poisoned, and with what."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from gatecrash import DatasetInfo, ImageSet, Poisoned, TriggerContext, UserError
from gatecrash.testing import make_context
from gatecrash_plugins.attacks.ftrojan import FTrojan
from gatecrash_plugins.models.small_cnn import SmallCnn
from gatecrash_plugins.triggers.frequency import FrequencyMaker

SHAPE = (3, 8, 6)


def images(count: int = 200) -> ImageSet:
    pixels = torch.randint(256, (count, *SHAPE), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    return ImageSet(pixels, torch.arange(count) % 10, tuple("abcdefghij"))


def poison(**options: Any) -> Poisoned:
    attack, train = FTrojan(FTrojan.Config(**options)), images()
    made = attack.poison(train, make_context(attack, train, SmallCnn()))
    made.check(train)
    return made


def test_a_twentieth_gets_the_trigger_and_the_target() -> None:
    train, made = images(), poison(target=2)
    assert len(made.changed) == 10
    assert (train.labels[made.changed] != 2).all()
    assert (made.labels[made.changed] == 2).all()
    trigger = FrequencyMaker().make(TriggerContext(SHAPE))
    assert made.images[made.changed].equal(trigger(train.images[made.changed]))


def test_options_reach_the_trigger_and_are_checked_when_planning() -> None:
    (backdoor,) = poison(magnitude=60, positions=((1, 1),)).backdoors
    expected = FrequencyMaker(FrequencyMaker.Config(magnitude=60, positions=((1, 1),))).make(TriggerContext(SHAPE))
    assert backdoor.trigger is not None
    assert backdoor.trigger(images().images).equal(expected(images().images))
    with pytest.raises(UserError, match="do not fill"):
        FTrojan(FTrojan.Config(window=5)).check(DatasetInfo("letters", images().classes, SHAPE, (20,) * 10))
