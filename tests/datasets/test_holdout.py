"""The clean hold-out: how many images, which ones, and that nothing is on both sides."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gatecrash import ImageSet, Splits, UserError
from gatecrash.datasets.holdout import HoldoutConfig, cut, holdout_counts


def numbered(labels: list[int], groups: list[int] | None = None, classes: int = 3) -> Splits:
    """A set whose row i is told by its pixels."""
    rows = torch.arange(len(labels))
    images = torch.stack([rows % 256, rows // 256], 1).to(torch.uint8).view(-1, 2, 1, 1)
    train = ImageSet(images, torch.tensor(labels), tuple(f"class {i}" for i in range(classes)))
    return Splits(train, train, groups=None if groups is None else torch.tensor(groups))


def rows_of(part: ImageSet) -> list[int]:
    return (part.images[:, 0, 0, 0].long() + 256 * part.images[:, 1, 0, 0].long()).tolist()


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(
    ("images", "held"),
    [
        (5000, 250),  # 5%
        (1000, 50),
        (400, 20),  # 5% and 20 per class agree
        (300, 20),  # 5% would be 15
        (80, 20),  # a quarter is 20
        (79, 19),  # at most a quarter
        (4, 1),
        (3, 0),
    ],
)
def test_a_class_gives_five_percent_but_at_least_twenty_and_at_most_a_quarter(images: int, held: int) -> None:
    assert holdout_counts([images, 5000], HoldoutConfig()) == (held, 250)


def test_the_share_is_not_lost_to_float_error() -> None:
    assert holdout_counts([100], HoldoutConfig(per_class=100, max_share=0.29)) == (29,)


def test_a_training_set_too_small_for_any_holdout_is_a_user_error() -> None:
    with pytest.raises(UserError, match="hold-out would be empty: the largest class has 3 training images"):
        holdout_counts([3, 2], HoldoutConfig())


@settings(deadline=None, max_examples=50)
@given(
    labels=st.lists(st.integers(0, 2), min_size=12, max_size=120).filter(lambda labels: max(map(labels.count, range(3))) >= 4),
    seed=st.integers(0, 9),
)
def test_the_cut_is_stratified_disjoint_and_keeps_the_order(labels: list[int], seed: int) -> None:
    splits, config = numbered(labels), HoldoutConfig(per_class=4)
    rest, held = cut(splits, config, generator(seed))
    assert held.class_counts() == holdout_counts(splits.train.class_counts(), config)
    assert sorted(rows_of(rest) + rows_of(held)) == list(range(len(labels)))
    assert rows_of(rest) == sorted(rows_of(rest))
    assert all(labels[row] == label for part in (rest, held) for row, label in zip(rows_of(part), part.labels.tolist(), strict=True))


def test_the_cut_depends_on_the_generator_alone() -> None:
    splits = numbered([0, 1, 2] * 100)
    first, again, other = (rows_of(cut(splits, HoldoutConfig(), generator(seed))[1]) for seed in (1, 1, 2))
    assert first == again != other


@settings(deadline=None, max_examples=50)
@given(sizes=st.lists(st.integers(1, 9), min_size=3, max_size=40), seed=st.integers(0, 9))
def test_groups_stay_on_one_side_and_leave_every_class_most_of_its_images(sizes: list[int], seed: int) -> None:
    groups = [group for group, size in enumerate(sizes) for _ in range(size)]
    labels = [group % 3 for group in groups]
    config = HoldoutConfig(fraction=0.1, per_class=2, max_share=0.5)
    try:
        rest, held = cut(numbered(labels, groups), config, generator(seed))
    except UserError:
        assert (
            max(len({group for group in groups if group % 3 == label}) for label in range(3)) == 1 or max(map(labels.count, range(3))) < 2
        )
        return
    assert not {groups[row] for row in rows_of(rest)} & {groups[row] for row in rows_of(held)}
    assert sorted(rows_of(rest) + rows_of(held)) == list(range(len(labels)))
    assert all(rest.class_counts())


def test_tracks_of_thirty_give_one_whole_track_per_class() -> None:
    """As in GTSRB: 7 tracks of 30 frames; 20 images are wanted, a quarter (52) allows one track."""
    labels = [label for label in range(3) for _ in range(210)]
    rest, held = cut(numbered(labels, [row // 30 for row in range(630)]), HoldoutConfig(), generator())
    assert held.class_counts() == (30, 30, 30)
    assert rest.class_counts() == (180, 180, 180)
    assert len({row // 30 for row in rows_of(held)}) == 3


def test_groups_above_the_maximum_share_are_passed_over_for_smaller_ones() -> None:
    labels, groups = [0] * 100, [0] * 60 + [1] * 20 + [2] * 20
    for seed in range(10):
        _, held = cut(numbered(labels, groups), HoldoutConfig(), generator(seed))
        assert len(held) == 20


def test_where_every_group_is_above_the_maximum_share_the_smallest_goes() -> None:
    labels, groups = [0] * 100, [0] * 60 + [1] * 40
    rest, held = cut(numbered(labels, groups), HoldoutConfig(), generator())
    assert (len(rest), len(held)) == (60, 40)


def test_a_class_that_is_one_group_is_left_whole() -> None:
    rest, held = cut(numbered([0] * 80 + [1] * 80, [0] * 80 + list(range(1, 81))), HoldoutConfig(), generator())
    assert held.class_counts() == (0, 20, 0)
    assert rest.class_counts() == (80, 60, 0)


def test_a_group_that_spans_classes_moves_whole() -> None:
    labels = [0, 1] * 40
    groups = [row // 4 for row in range(80)]
    rest, held = cut(numbered(labels, groups, classes=2), HoldoutConfig(), generator())
    assert held.class_counts() == (10, 10)
    assert not {row // 4 for row in rows_of(rest)} & {row // 4 for row in rows_of(held)}


def test_a_dataset_with_its_own_clean_set_keeps_its_training_set_whole() -> None:
    splits = numbered([0, 1, 2] * 10)
    clean = splits.train.subset(torch.tensor([1, 2]))
    rest, held = cut(Splits(splits.train, splits.test, clean=clean), HoldoutConfig(), generator())
    assert rest is splits.train
    assert held is clean


def test_a_class_whose_hold_out_is_large_takes_nothing_from_the_others() -> None:
    """The first class has two large groups and gives the smaller one; the second, of 100 groups of one image, still gives its 20."""
    labels = [0] * 100 + [1] * 100
    groups = [0] * 60 + [1] * 40 + list(range(2, 102))
    _, held = cut(numbered(labels, groups, classes=2), HoldoutConfig(), generator())
    assert torch.bincount(held.labels).tolist() == [40, 20]
