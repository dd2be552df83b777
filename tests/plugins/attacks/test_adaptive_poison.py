"""Adap-Blend and Adap-Patch: some layers in training, others at test time; covers beside the poison."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from pydantic import ValidationError
from torch import Tensor

from gatecrash import Attack, ImageSet, Poisoned, Role, UserError
from gatecrash.testing import make_context
from gatecrash_plugins.attacks._some_of import SomeOf
from gatecrash_plugins.attacks.adap_blend import AdapBlend
from gatecrash_plugins.attacks.adap_patch import AdapPatch
from gatecrash_plugins.models.small_cnn import SmallCnn

SHAPE = (3, 32, 32)


def noise(count: int = 400, shape: tuple[int, int, int] = SHAPE) -> Tensor:
    return torch.randint(60, 190, (count, *shape), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)


def poison(attack: Attack, count: int = 400) -> tuple[ImageSet, Poisoned]:
    train = ImageSet(noise(count), torch.arange(count) % 10, tuple("abcdefghij"))
    made = attack.poison(train, make_context(attack, train, SmallCnn()))
    made.check(train)
    return train, made


def tiles(attack: AdapBlend, images: Tensor) -> Tensor:
    """bool [N, 4, 4]: the pieces of each image that are changed."""
    made = attack.train_trigger(SHAPE)
    changed = (made(images) != images).any(1)
    found: Tensor = changed.view(-1, 4, 8, 4, 8).any(4).any(2)
    return found


def test_a_training_image_shows_half_of_the_pieces_and_a_test_image_all() -> None:
    attack, images = AdapBlend(), noise(64)
    shown = tiles(attack, images)
    assert (shown.flatten(1).sum(1) == 8).all()
    assert len(set(map(tuple, shown.flatten(1).tolist()))) > 50  # another draw for each image
    assert shown.sum(0).min() > 20  # every piece has its share: 32 of 64
    assert (attack.trigger(SHAPE)(images) != images).any(1).view(-1, 4, 8, 4, 8).any(4).any(2).all()


def test_pieces_are_mixed_with_the_opacity_of_training_and_rounded() -> None:
    attack, images = AdapBlend(), noise(4)
    pattern = attack.trigger(SHAPE).pattern
    made = attack.train_trigger(SHAPE)(images)
    shown = tiles(attack, images).repeat_interleave(8, 1).repeat_interleave(8, 2)[:, None]
    expected = torch.where(shown, 0.85 * images.double() + 0.15 * pattern, images.double())
    assert (made - expected).abs().max() < 0.5001  # rounded, and halves either way
    assert (attack.trigger(SHAPE)(images) - (0.8 * images.double() + 0.2 * pattern)).abs().max() < 0.5001


def test_pieces_that_do_not_divide_the_image_leave_nothing_over() -> None:
    attack = AdapBlend(AdapBlend.Config(pieces=4, masked=0))
    assert (attack.train_trigger((1, 30, 33)).get_buffer("weights").sum(0) == torch.tensor(0.15)).all()
    with pytest.raises(UserError, match="4 x 4 pieces are more than an image of 3 x 9 has"):
        attack.train_trigger((1, 3, 9))


@pytest.mark.parametrize("options", [{"masked": 16}, {"pieces": 2, "masked": 4}])
def test_a_pattern_without_pieces_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="masked must be less than"):
        AdapBlend.Config(**options)


def patched(attack: AdapPatch) -> Tensor:
    """int64 [N]: which patch each of 400 images got, by the pixels that changed."""
    images = noise()
    changed = (attack.train_trigger(SHAPE)(images) != images).any(1)
    top_left, bottom_right = changed[:, 0, 0], changed[:, 31, 31]
    return torch.where(top_left, 3, torch.where(bottom_right, 1, torch.where(changed[:, 7, 24], 2, 4)))


def test_a_training_image_shows_one_patch_and_each_patch_has_about_a_quarter() -> None:
    counts = torch.bincount(patched(AdapPatch()), minlength=5).tolist()
    assert counts[0] == 0
    assert all(70 < count < 130 for count in counts[1:])


def test_patches_lie_where_the_authors_have_them() -> None:
    made = AdapPatch().train_trigger(SHAPE)
    boxes = []
    for mask in made.get_buffer("weights"):
        rows, columns = torch.nonzero(mask).T
        boxes.append((int(rows.min()), int(rows.max()), int(columns.min()), int(columns.max()), round(float(mask.max()), 3)))
    assert boxes == [(27, 31, 27, 31, 0.5), (1, 13, 18, 30, 0.2), (0, 31, 0, 31, 0.5), (21, 28, 21, 28, 0.3)]


def test_a_test_image_shows_two_patches_in_full() -> None:
    attack, images = AdapPatch(), noise(8)
    made, trained = attack.trigger(SHAPE)(images), attack.train_trigger(SHAPE)
    patterns, masks = trained.get_buffer("patterns"), trained.get_buffer("weights")
    corners = masks[2] > 0
    assert made[:, :, corners].equal(patterns[2][:, corners].expand(8, -1, -1))
    first = (masks[0] > 0) & ~corners  # the later patch lies over the earlier one
    assert made[:, :, first].equal(patterns[0][:, first].expand(8, -1, -1))
    rest = ~corners & ~first
    assert made[:, :, rest].equal(images[:, :, rest])


def test_image_files_take_the_place_of_the_drawn_patches(tmp_path: Path) -> None:
    picture = Image.new("RGBA", (32, 32), (0, 0, 0, 0))
    picture.paste((10, 20, 30, 255), (4, 5, 8, 7))
    picture.save(tmp_path / "patch.png")
    attack, images = AdapPatch(AdapPatch.Config(image_2=tmp_path / "patch.png", tested=(2,))), noise(2)
    expected = images.clone()
    expected[:, :, 5:7, 4:8] = torch.tensor([10, 20, 30], dtype=torch.uint8)[:, None, None]
    assert attack.trigger(SHAPE)(images).equal(expected)


@pytest.mark.parametrize("tested", [(), (5,), (0,), (1, 1)])
def test_patches_that_do_not_exist_are_refused(tested: tuple[int, ...]) -> None:
    with pytest.raises(ValidationError):
        AdapPatch.Config(tested=tested)


@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 28, 28), (3, 20, 36)])
def test_patches_follow_the_size_of_the_image(shape: tuple[int, int, int]) -> None:
    images = noise(20, shape)
    made = AdapPatch().train_trigger(shape)(images)
    assert (made != images).flatten(1).any(1).all()


@pytest.mark.parametrize(
    ("attack", "covers"),
    [(AdapBlend(AdapBlend.Config(poison_rate=0.05, cover_rate=0.05)), 20), (AdapPatch(AdapPatch.Config(poison_rate=0.05)), 2)],
)
def test_covers_carry_the_trigger_of_training_and_keep_their_label(attack: AdapBlend | AdapPatch, covers: int) -> None:
    train, made = poison(attack)
    poisoned, cover = made.role == Role.POISON, made.role == Role.COVER
    assert (int(poisoned.sum()), int(cover.sum())) == (20, covers)
    assert (train.labels[poisoned] != 0).all()
    assert (made.labels[poisoned] == 0).all()
    assert made.labels[cover].equal(train.labels[cover])
    rows = made.changed
    assert made.images[rows].equal(attack.train_trigger(SHAPE)(train.images[rows]))
    (backdoor,) = made.backdoors
    assert backdoor.trigger is not None
    assert backdoor.trigger(train.images[:4]).equal(attack.trigger(SHAPE)(train.images[:4]))


def test_what_an_image_shows_depends_on_it_alone_and_survives_storage() -> None:
    made, images = AdapBlend().train_trigger(SHAPE), noise(12)
    together = made(images)
    assert torch.cat([made(image[None]) for image in images.flip(0)]).flip(0).equal(together)
    assert made.duplicate()(images).equal(together)
    assert not AdapBlend(AdapBlend.Config(pattern_seed=1)).train_trigger(SHAPE)(images).equal(together)


def test_a_layer_without_weight_gives_equal_bytes() -> None:
    images = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    assert SomeOf((1, 16, 16), 3, 2, 0)(images).equal(images)
