"""What all attacks share: goals, the poison rate, and the benign control."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from gatecrash import (
    CoverConfig,
    DatasetInfo,
    GoalConfig,
    ImageSet,
    Poisoned,
    Role,
    Stamp,
    TriggerAttack,
    UserError,
    patch_mask,
    poison_count,
)
from gatecrash.host.loading import load_plugins
from gatecrash.testing import make_context
from gatecrash_plugins.models.small_cnn import SmallCnn

LABELS = torch.tensor([0, 1, 2, 0])


@pytest.mark.parametrize(
    ("options", "eligible", "labels", "targets"),
    [
        ({"target": 2}, [True, True, False, True], [2, 2, 2, 2], (2,)),
        ({"goal": "one-to-one", "source": 0, "target": 1}, [True, False, False, True], [1, 1, 1, 1], (1,)),
        ({"goal": "all-to-all"}, [True, True, True, True], [1, 2, 0, 1], (0, 1, 2)),
    ],
)
def test_goals_by_hand(options: dict[str, object], eligible: list[bool], labels: list[int], targets: tuple[int, ...]) -> None:
    goal = GoalConfig.model_validate(options).make_goal(3)
    assert goal.eligible(LABELS).tolist() == eligible
    assert goal.labels(LABELS).tolist() == labels
    assert goal.targets == targets


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"goal": "one-to-one"}, "needs a source"),
        ({"source": 1}, "for goal one-to-one only"),
        ({"goal": "one-to-one", "source": 1, "target": 1}, "same class"),
        ({"target": -1}, "a class is its number, from 0, or its name"),
    ],
)
def test_goals_that_contradict_themselves_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        GoalConfig.model_validate(options)


def test_a_class_that_does_not_exist_is_named() -> None:
    with pytest.raises(UserError, match="target class 3 does not exist; the dataset has classes 0 to 2"):
        GoalConfig(target=3).make_goal(3)
    with pytest.raises(UserError, match="source class 7"):
        GoalConfig(goal="one-to-one", source=7).make_goal(3)


@pytest.mark.parametrize(("rate", "count"), [(0.05, 5), (0.054, 5), (0.056, 6), (1 / 100, 1), (0.9, 90)])
def test_the_poison_rate_is_of_all_images(rate: float, count: int) -> None:
    assert poison_count(rate, 90, 100, "attack") == count


@given(st.data(), st.integers(1, 2_000_000))
def test_a_refused_rate_comes_with_one_that_works(data: st.DataObject, total: int) -> None:
    candidates = data.draw(st.integers(1, total))
    with pytest.raises(UserError, match="use at least") as caught:
        poison_count(0.4 / total, candidates, total, "attack")
    assert poison_count(float(str(caught.value).rsplit(maxsplit=1)[1]), candidates, total, "attack") == 1
    if candidates < total:
        with pytest.raises(UserError, match=f"only {candidates} of {total} can be poisoned; use at most") as caught:
            poison_count(1.0, candidates, total, "attack")
        assert poison_count(float(str(caught.value).rsplit(maxsplit=1)[1]), candidates, total, "attack") == candidates


def test_no_candidates_at_all_is_said() -> None:
    with pytest.raises(UserError, match="no training image can be poisoned"):
        poison_count(0.1, 0, 100, "attack")


def test_none_is_the_benign_control() -> None:
    host = load_plugins(installed=False)
    attack = host.get("attack", "none").configure()
    train = ImageSet(torch.zeros(6, 1, 8, 8, dtype=torch.uint8), torch.arange(6) % 2, ("a", "b"))
    poisoned = attack.poison(train, make_context(attack, train, host.get("model", "small-cnn").configure()))
    poisoned.check(train)
    assert poisoned.images.equal(train.images)
    assert poisoned.labels.equal(train.labels)
    assert poisoned.poison_share == 0
    assert list(poisoned.backdoors) == []


@pytest.mark.parametrize("name", ["none", "badnets", "blend", "clean-label"])
def test_shipped_attacks_are_found_and_described(name: str) -> None:
    host = load_plugins(installed=False)
    cls = host.get("attack", name).cls
    assert cls.summary
    assert name == "none" or cls.reference.url.startswith("https://arxiv.org/abs/")
    assert all(field.description for field in cls.Config.model_fields.values())


class WithCovers(TriggerAttack):
    """A white patch, and covers with a black one."""

    name = "with-covers"
    summary = "covers of another trigger"

    class Config(CoverConfig):
        """Covers."""

    def trigger(self, shape: tuple[int, int, int]) -> Stamp:
        return Stamp(shape, 1.0, torch.full(shape, 255, dtype=torch.uint8), patch_mask(shape, 2, "top-left", 0))

    def cover_trigger(self, shape: tuple[int, int, int]) -> Stamp:
        return Stamp(shape, 1.0, torch.zeros(shape, dtype=torch.uint8), patch_mask(shape, 2, "top-left", 0))


def covered(**options: object) -> Poisoned:
    attack = WithCovers(WithCovers.Config.model_validate(options))
    train = ImageSet(torch.full((40, 1, 4, 4), 9, dtype=torch.uint8), torch.arange(40) % 4, tuple("abcd"))
    return attack.poison(train, make_context(attack, train, SmallCnn()))


def test_covers_come_from_the_rows_that_are_left_and_keep_their_labels() -> None:
    made = covered(poison_rate=0.5, cover_rate=0.25)
    assert [int((made.role == role).sum()) for role in (Role.CLEAN, Role.POISON, Role.COVER)] == [10, 20, 10]
    assert (made.images[made.role == Role.POISON, :, :2, :2] == 255).all()
    assert (made.images[made.role == Role.COVER, :, :2, :2] == 0).all()
    assert made.labels[made.role == Role.COVER].equal((torch.arange(40) % 4)[made.role == Role.COVER])
    assert made.backdoors[0].cover is not None


def test_more_covers_are_a_superset_and_leave_the_poison_alone() -> None:
    few, many = covered(poison_rate=0.2, cover_rate=0.1), covered(poison_rate=0.2, cover_rate=0.5)
    assert ((few.role == Role.COVER) <= (many.role == Role.COVER)).all()
    assert (few.role == Role.POISON).equal(many.role == Role.POISON)


def test_more_covers_than_rows_are_left_are_refused_when_planning() -> None:
    attack = WithCovers(WithCovers.Config(poison_rate=0.5, cover_rate=0.6))
    with pytest.raises(UserError, match=r"cover_rate 0.6 asks for 24 covers, but only 20 images are left"):
        attack.check(DatasetInfo("dots", tuple("abcd"), (1, 4, 4), (10, 10, 10, 10)))


def test_a_cover_rate_of_no_image_is_refused_with_the_least_that_works() -> None:
    info = DatasetInfo("dots", tuple("abcd"), (1, 4, 4), (10, 10, 10, 10))
    with pytest.raises(UserError, match=r"cover_rate 0.001 of 40 images is none; use at least 0.03, or 0 for no covers"):
        WithCovers(WithCovers.Config(poison_rate=0.5, cover_rate=0.001)).check(info)
    with pytest.raises(UserError, match="is none"):
        covered(poison_rate=0.5, cover_rate=0.001)
    WithCovers(WithCovers.Config(poison_rate=0.5, cover_rate=0)).check(info)


class TrueLabels(WithCovers):
    """Poisons target classes under their own labels."""

    name = "true-labels"
    clean_label = True


def test_true_labels_leave_no_class_that_is_target_and_source() -> None:
    info = DatasetInfo("dots", tuple("abcd"), (1, 4, 4), (10, 10, 10, 10))
    TrueLabels(TrueLabels.Config(poison_rate=0.1)).check(info)
    with pytest.raises(UserError, match="true-labels: its poison keeps true labels"):
        TrueLabels(TrueLabels.Config(poison_rate=0.1, goal="all-to-all")).check(info)
