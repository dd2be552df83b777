"""The hold-out's options are bounded, and its arithmetic is exact with groups."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pydantic import ValidationError

from gatecrash import ImageSet, Splits
from gatecrash.datasets.holdout import HoldoutConfig, cut
from gatecrash.datasets.splits import take


@pytest.mark.parametrize(
    ("fields", "allowed"),
    [
        ({"fraction": 0.5}, True),
        ({"fraction": 0.51}, False),
        ({"fraction": -0.01}, False),
        ({"per_class": 1}, True),
        ({"per_class": 0}, False),
        ({"max_share": 0.9}, True),
        ({"max_share": 0.91}, False),
        ({"max_share": 0.0}, False),
    ],
)
def test_bounds(fields: dict[str, Any], allowed: bool) -> None:
    if allowed:
        assert HoldoutConfig.model_validate(fields)
        return
    with pytest.raises(ValidationError):
        HoldoutConfig.model_validate(fields)


def test_a_group_that_a_class_had_to_give_counts_for_the_other_classes_it_holds() -> None:
    """Class 0 must give its smallest group, which holds 9 of class 1 too: of the 10 that are wanted there, 9 are then given."""
    labels = torch.tensor([0] * 60 + [0] * 30 + [1] * 9 + [1] * 31)
    groups = torch.cat([torch.zeros(60), torch.full((39,), 3.0), torch.arange(10, 41)]).long()
    images = torch.arange(130).to(torch.uint8).view(-1, 1, 1, 1)
    train = ImageSet(images, labels, ("a", "b"))
    splits = Splits(train, train, groups=groups)
    for seed in range(5):
        _, held = cut(splits, HoldoutConfig(), torch.Generator().manual_seed(seed))
        assert held.class_counts() in {(30, 9), (30, 10)}


def test_a_part_of_a_dataset_keeps_the_groups_of_its_rows() -> None:
    images, labels = torch.zeros(4, 1, 2, 2, dtype=torch.uint8), torch.tensor([0, 1, 0, 1])
    train = ImageSet(images, labels, ("a", "b"))
    part = take(Splits(train, train, groups=torch.tensor([7, 8, 9, 10])), torch.tensor([1, 2]), torch.tensor([0]))
    assert part.groups is not None
    assert part.groups.tolist() == [8, 9]
    assert take(Splits(train, train), torch.tensor([1, 2]), torch.tensor([0])).groups is None
    assert (len(part.train), len(part.test)) == (2, 1)
