"""Blend by hand: the pattern, its own seed, and two opacities in their places."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from pydantic import ValidationError

from gatecrash import DatasetInfo, ImageSet, Poisoned, Stamp, UserError
from gatecrash.contracts.portable import rebuild, spec_of, state_of
from gatecrash.testing import make_context
from gatecrash_plugins.attacks.blend import Blend
from gatecrash_plugins.models.small_cnn import SmallCnn


def images(shape: tuple[int, int, int] = (3, 8, 8)) -> ImageSet:
    pixels = torch.randint(256, (60, *shape), generator=torch.Generator().manual_seed(5), dtype=torch.uint8)
    return ImageSet(pixels, torch.arange(60) % 3, ("a", "b", "c"))


def poison(train: ImageSet, seed: int = 0, **options: Any) -> Poisoned:
    attack = Blend(Blend.Config(**options))
    poisoned = attack.poison(train, make_context(attack, train, SmallCnn(), seed=seed))
    poisoned.check(train)
    return poisoned


def test_training_images_get_alpha_train_and_test_images_alpha_test(tmp_path: Path) -> None:
    path = tmp_path / "white.png"
    Image.new("L", (3, 3), 255).save(path)
    train = ImageSet(torch.full((60, 1, 8, 8), 100, dtype=torch.uint8), torch.arange(60) % 3, ("a", "b", "c"))
    poisoned = poison(train, pattern="given", image=path, alpha_train=0.1, alpha_test=0.4)
    assert len(poisoned.changed) == 3
    assert (poisoned.images[poisoned.changed] == 116).all()  # 90 + 25.5 = 115.5, to even
    (backdoor,) = poisoned.backdoors
    assert (backdoor.trigger(train.images) == 162).all()  # 60 + 102


def test_both_opacities_are_a_fifth_and_the_labels_become_the_target_by_default() -> None:
    train = images()
    poisoned = poison(train, poison_rate=0.2, target=2)
    rows = poisoned.changed
    (backdoor,) = poisoned.backdoors
    pattern = backdoor.trigger.pattern.double()
    expected = (0.8 * train.images[rows].double() + 0.2 * pattern).round()
    assert (poisoned.images[rows].double() - expected).abs().max() <= 1  # one level where a tie is rounded either way
    assert poisoned.images[rows].equal(backdoor.trigger(train.images[rows]))
    assert len(rows) == 12
    assert (train.labels[rows] != 2).all()
    assert (poisoned.labels[rows] == 2).all()


@pytest.mark.parametrize("pattern", ["gaussian", "uniform"])
def test_the_pattern_has_a_seed_of_its_own(pattern: str) -> None:
    train = images()
    first = poison(train, seed=0, pattern=pattern).backdoors[0].trigger.pattern
    assert poison(train, seed=1, pattern=pattern, alpha_test=0.5, poison_rate=0.3).backdoors[0].trigger.pattern.equal(first)
    assert not poison(train, pattern=pattern, pattern_seed=1).backdoors[0].trigger.pattern.equal(first)


def test_noise_has_the_described_distribution() -> None:
    gaussian, uniform = (Blend(Blend.Config(pattern=name)).trigger((3, 128, 128)).pattern.double() for name in ("gaussian", "uniform"))
    assert 126 < gaussian.mean() < 129
    assert 61 < gaussian.std() < 64  # clipping takes a little off 64
    assert ((gaussian - 127.5).abs() < 64).double().mean().item() == pytest.approx(0.683, abs=0.01)
    assert 126 < uniform.mean() < 129
    assert uniform.std().item() == pytest.approx(73.9, abs=1)  # (256^2 - 1) / 12
    assert uniform.unique().tolist() == list(range(256))


def test_a_given_image_is_resized_to_the_images(tmp_path: Path) -> None:
    path = tmp_path / "halves.png"
    picture = Image.new("RGB", (40, 40), (0, 0, 0))
    picture.paste((255, 255, 255), (20, 0, 40, 40))
    picture.save(path)
    pattern = Blend(Blend.Config(pattern="given", image=path)).trigger((3, 8, 6)).pattern
    assert pattern.shape == (3, 8, 6)
    assert (pattern[:, :, 0] == 0).all()
    assert (pattern[:, :, 5] == 255).all()


def test_transparent_pixels_of_a_given_image_change_nothing(tmp_path: Path) -> None:
    path = tmp_path / "left.png"
    picture = Image.new("RGBA", (8, 8), (255, 255, 255, 0))
    picture.paste((255, 255, 255, 255), (0, 0, 4, 8))
    picture.save(path)
    trigger = Blend(Blend.Config(pattern="given", image=path, alpha_test=0.4)).trigger((3, 8, 8))
    grey = torch.full((1, 3, 8, 8), 100, dtype=torch.uint8)
    assert (trigger(grey)[..., :4] == 162).all()  # 60 + 102
    assert (trigger(grey)[..., 4:] == 100).all()


def test_the_trigger_is_rebuilt_from_its_stored_form() -> None:
    trigger = Blend().trigger((3, 8, 8))
    again = rebuild(spec_of(trigger), state_of(trigger))
    assert isinstance(again, Stamp)
    assert again(images().images).equal(trigger(images().images))


def test_what_cannot_work_is_refused_when_planning(tmp_path: Path) -> None:
    train = images()
    info = DatasetInfo("toy", train.classes, train.shape, train.class_counts())
    Blend().check(info)
    path = tmp_path / "text.png"
    path.write_text("no image")
    with pytest.raises(UserError, match=r"cannot decode the image .*text\.png"):
        Blend(Blend.Config(pattern="given", image=path)).check(info)
    with pytest.raises(UserError, match=r"use at most 0\.66667"):
        Blend(Blend.Config(poison_rate=0.9)).check(DatasetInfo("toy", train.classes, train.shape, (20_000, 20_000, 20_000)))
    with pytest.raises(ValidationError, match="needs an image file"):
        Blend.Config(pattern="given")
    with pytest.raises(ValidationError, match="for pattern given only"):
        Blend.Config(image=path)
