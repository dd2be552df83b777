"""SIG: target-class rows alone, true labels, two amplitudes in their places."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pydantic import ValidationError

from gatecrash import DatasetInfo, ImageSet, Poisoned, UserError
from gatecrash.testing import make_context
from gatecrash_plugins.attacks.sig import SIG
from gatecrash_plugins.models.small_cnn import SmallCnn

SHAPE = (1, 6, 8)


def images(count: int = 200) -> ImageSet:
    pixels = torch.full((count, *SHAPE), 100, dtype=torch.uint8)
    return ImageSet(pixels, torch.arange(count) % 10, tuple("abcdefghij"))


def poison(seed: int = 0, **options: Any) -> Poisoned:
    attack, train = SIG(SIG.Config(**options)), images()
    made = attack.poison(train, make_context(attack, train, SmallCnn(), seed=seed))
    made.check(train)
    return made


def test_half_of_the_target_class_gets_the_wave_and_no_label_changes() -> None:
    train, made = images(), poison(target=3)
    assert len(made.changed) == 10  # 5% of all
    assert (train.labels[made.changed] == 3).all()
    assert made.labels.equal(train.labels)
    assert (made.images[made.changed] != 100).any(3).all()


def test_the_rate_is_of_the_whole_set_and_ends_at_the_class() -> None:
    assert len(poison(poison_rate=0.1).changed) == 20
    info = DatasetInfo("letters", images().classes, SHAPE, (20,) * 10)
    SIG(SIG.Config(poison_rate=0.1)).check(info)
    with pytest.raises(UserError, match="asks for 24 images but only 20 of 200 can be poisoned"):
        SIG(SIG.Config(poison_rate=0.12)).check(info)


def test_training_images_get_delta_train_and_test_images_delta_test() -> None:
    made = poison(frequency=2, delta_train=20, delta_test=60)
    (backdoor,) = made.backdoors
    assert backdoor.trigger is not None
    assert made.images[made.changed][0, 0, 0].tolist() == [100, 120, 100, 80, 100, 120, 100, 80]
    assert backdoor.trigger(images().images)[0, 0, 0].tolist() == [100, 160, 100, 40, 100, 160, 100, 40]


def test_what_cannot_work_is_refused() -> None:
    with pytest.raises(UserError, match="changes no pixel of images 12 wide"):
        SIG().check(DatasetInfo("letters", images().classes, (1, 8, 12), (20,) * 10))
    with pytest.raises(ValidationError):
        SIG.Config.model_validate({"goal": "all-to-all"})
