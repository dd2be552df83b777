"""BadNets by hand: which rows, which pixels, which labels; and what planning refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from pydantic import ValidationError

from gatecrash import DatasetInfo, ImageSet, Poisoned, Role, UserError
from gatecrash.testing import make_context
from gatecrash_plugins.attacks.badnets import BadNets
from gatecrash_plugins.models.small_cnn import SmallCnn

SHAPE = (1, 8, 8)


def images(count: int = 200, classes: int = 4) -> ImageSet:
    """Pixels in 50..149, so that neither a white nor a black patch is there by chance; labels 0, 1, 2, 3, 0, 1, ..."""
    pixels = torch.randint(50, 150, (count, *SHAPE), generator=torch.Generator().manual_seed(3), dtype=torch.uint8)
    return ImageSet(pixels, torch.arange(count) % classes, tuple("abcdefgh"[:classes]))


def poison(train: ImageSet, seed: int = 0, **options: Any) -> Poisoned:
    attack = BadNets(BadNets.Config(**options))
    poisoned = attack.poison(train, make_context(attack, train, SmallCnn(), seed=seed))
    poisoned.check(train)
    return poisoned


def info(train: ImageSet) -> DatasetInfo:
    return DatasetInfo("toy", train.classes, train.shape, train.class_counts())


def stamped(**options: Any) -> list[list[int]]:
    """A black 8x8 image under the trigger."""
    trigger = BadNets(BadNets.Config(**options)).trigger(SHAPE)
    return trigger(torch.zeros(1, *SHAPE, dtype=torch.uint8))[0, 0].tolist()


def test_exactly_the_rate_of_all_images_is_poisoned_and_none_of_the_target() -> None:
    train = images()
    poisoned = poison(train, poison_rate=0.1, target=1)
    rows = poisoned.changed
    assert len(rows) == len(rows.unique()) == 20  # of all 200, not of the 150 candidates
    assert (poisoned.role[rows] == Role.POISON).all()
    assert (train.labels[rows] != 1).all()
    assert (poisoned.labels[rows] == 1).all()


def test_poisoned_rows_carry_the_patch_and_nothing_else_changes() -> None:
    train = images()
    before = train.images.clone(), train.labels.clone()
    poisoned = poison(train, poison_rate=0.25)
    rows = poisoned.changed
    assert (poisoned.images[rows][:, :, 5:, 5:] == 255).all()  # 3x3, bottom right; 255, not 1, in uint8
    patch = torch.zeros(8, 8, dtype=torch.bool)
    patch[5:, 5:] = True
    assert poisoned.images[rows][:, :, ~patch].equal(train.images[rows][:, :, ~patch])
    clean = poisoned.role == Role.CLEAN
    assert poisoned.images[clean].equal(train.images[clean])
    assert poisoned.labels[clean].equal(train.labels[clean])
    assert train.images.equal(before[0])
    assert train.labels.equal(before[1])


def test_training_and_test_images_get_the_same_trigger() -> None:
    train = images()
    poisoned = poison(train, pattern="checkerboard", place="four-corners", alpha=0.6)
    (backdoor,) = poisoned.backdoors
    rows = poisoned.changed
    assert poisoned.images[rows].equal(backdoor.trigger(train.images[rows]))
    assert backdoor.name == "badnets"


@pytest.mark.parametrize(
    ("options", "candidates", "label_of"),
    [
        ({"goal": "all-to-one", "target": 2}, {0, 1, 3}, lambda label: 2),
        ({"goal": "one-to-one", "source": 3, "target": 0}, {3}, lambda label: 0),
        ({"goal": "all-to-all"}, {0, 1, 2, 3}, lambda label: (label + 1) % 4),
    ],
)
def test_goals_decide_who_is_poisoned_and_how_they_are_relabelled(options: dict[str, Any], candidates: set[int], label_of: Any) -> None:
    train = images()
    poisoned = poison(train, poison_rate=0.2, **options)
    rows = poisoned.changed
    assert len(rows) == 40
    assert set(train.labels[rows].tolist()) == candidates
    assert poisoned.labels[rows].tolist() == [label_of(label) for label in train.labels[rows].tolist()]


def test_a_higher_rate_poisons_a_superset() -> None:
    train = images()
    low, high = (set(poison(train, poison_rate=rate).changed.tolist()) for rate in (0.05, 0.3))
    assert low < high


def test_rows_depend_on_the_seed_and_on_no_other_option() -> None:
    train = images()
    rows = poison(train, seed=1).changed
    assert poison(train, seed=1, alpha=0.3, pattern="checkerboard", size=2, place="top-left").changed.equal(rows)
    assert not poison(train, seed=2).changed.equal(rows)


def test_a_subset_is_poisoned_from_the_subset() -> None:
    everything = images(400)
    subset = everything.subset(torch.arange(1, 400, 2))  # only labels 1 and 3 remain
    poisoned = poison(subset, poison_rate=0.1)
    rows = poisoned.changed
    assert len(rows) == 20
    outside = torch.ones(8, 8, dtype=torch.bool)
    outside[5:, 5:] = False
    assert poisoned.images[rows][:, :, outside].equal(subset.images[rows][:, :, outside])


def test_all_candidates_can_be_poisoned() -> None:
    train = images()
    poisoned = poison(train, poison_rate=0.75)
    assert poisoned.changed.equal(torch.nonzero(train.labels != 0).flatten())


def test_patterns_and_places_by_hand() -> None:
    assert [row[5:] for row in stamped(pattern="checkerboard")[5:]] == [[255, 0, 255], [0, 255, 0], [255, 0, 255]]
    assert stamped(size=1, place="top-right", inset=2)[2] == [0, 0, 0, 0, 0, 255, 0, 0]
    corners = stamped(size=1, place="four-corners", alpha=0.2)
    assert [(y, x) for y in range(8) for x in range(8) if corners[y][x] == 51] == [(0, 0), (0, 7), (7, 0), (7, 7)]


def test_arts_pattern_leaves_five_pixels_as_they_were() -> None:
    """As `add_pattern_bd` with its defaults: distance 2 is one pixel from the border."""
    grey = torch.full((1, *SHAPE), 100, dtype=torch.uint8)
    theirs = grey.clone()
    for y, x in ((6, 6), (5, 5), (6, 4), (4, 6)):
        theirs[..., y, x] = 255
    assert BadNets(BadNets.Config(pattern="art", inset=1)).trigger(SHAPE)(grey).equal(theirs)


def test_turners_pattern_is_black_at_the_top_left() -> None:
    grey = torch.full((1, *SHAPE), 100, dtype=torch.uint8)
    patch = BadNets(BadNets.Config(pattern="turner")).trigger(SHAPE)(grey)[0, 0, 5:, 5:]
    assert patch.tolist() == [[0, 0, 255], [0, 255, 0], [255, 0, 255]]


def test_a_given_pattern_is_resized_to_the_patch(tmp_path: Path) -> None:
    path = tmp_path / "grey.png"
    Image.new("RGB", (50, 20), (90, 90, 90)).save(path)
    trigger = stamped(pattern="given", image=path, size=2, place="center")
    assert [(y, x) for y in range(8) for x in range(8) if trigger[y][x]] == [(3, 3), (3, 4), (4, 3), (4, 4)]
    assert trigger[3][3] == 90


def test_a_sticker_changes_the_pixels_that_it_shows(tmp_path: Path) -> None:
    """64 of the 256 pixels of its file."""
    path = tmp_path / "sticker.png"
    sticker = Image.new("RGBA", (16, 16), (90, 90, 90, 0))
    sticker.paste((255, 255, 255, 255), (0, 0, 8, 8))
    sticker.save(path)
    trigger = BadNets(BadNets.Config(pattern="given", image=path, size=16)).trigger((3, 32, 32))
    black = torch.zeros(1, 3, 32, 32, dtype=torch.uint8)
    assert torch.nonzero((trigger(black) != black)[0, 0]).tolist() == [[y, x] for y in range(16, 24) for x in range(16, 24)]


def test_a_sticker_in_four_corners_is_mirrored_with_its_transparency(tmp_path: Path) -> None:
    path = tmp_path / "sticker.png"
    Image.frombytes("LA", (2, 1), bytes((255, 255, 0, 0))).resize((2, 2)).save(path)  # only the left half shows
    shown = stamped(pattern="given", image=path, size=2, place="four-corners")
    assert shown[0] == shown[1] == shown[6] == shown[7] == [0, 255, 0, 0, 0, 0, 255, 0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 9}, "9x9 patch at bottom-right with inset 0 does not fit an image of 8x8"),
        ({"pattern": "art", "size": 2}, "the pattern art has 3x3 pixels; choose size 3 or more"),
        ({"target": 4}, "target class 4 does not exist"),
        ({"goal": "one-to-one", "source": 9}, "source class 9 does not exist"),
        ({"poison_rate": 0.002}, "poison_rate 0.002 of 200 images is none; use at least 0.005"),
        ({"poison_rate": 0.8}, "asks for 160 images but only 150 of 200 can be poisoned; use at most 0.75"),
        ({"goal": "one-to-one", "source": 2, "poison_rate": 0.3}, "only 50 of 200 can be poisoned; use at most 0.25"),
        ({"pattern": "given", "image": "nowhere.png"}, "nowhere.png"),
    ],
)
def test_what_cannot_work_is_refused_when_planning(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        BadNets(BadNets.Config.model_validate(options)).check(info(images()))
    assert "\n" not in str(caught.value)


def test_planning_accepts_what_works() -> None:
    BadNets(BadNets.Config(poison_rate=0.75, size=8)).check(info(images()))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pattern": "given"}, "needs an image file"),
        ({"image": "pattern.png"}, "for pattern given only"),
        ({"alpha": 0}, "greater than 0"),
        ({"size": 0}, "greater than or equal to 1"),
        ({"poison_rate": 1.5}, "less than or equal to 1"),
        ({"colour": "red"}, "Extra inputs"),
    ],
)
def test_options_that_contradict_themselves_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        BadNets.Config.model_validate(options)
