"""The defender's clean hold-out: cut from the training set before poisoning, stratified, and disjoint by group.

The victim never trains on the hold-out (fine-tuning on data that the victim was trained on is a known defect of other harnesses), so poison
rates refer to what remains. The arithmetic of the counts is torch-free, for planning.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pydantic import Field

from gatecrash.contracts.config import Options
from gatecrash.datasets.sampling import group_rows, stratified_rows
from gatecrash.datasets.selection import selected
from gatecrash.errors import UserError

if TYPE_CHECKING:
    import torch

    from gatecrash.contracts.data import ImageSet, Splits
    from gatecrash.datasets.preparation import PreparedDataset


class HoldoutConfig(Options):
    """How much clean data the defender has; part of every key."""

    fraction: float = Field(0.05, ge=0, le=0.5, description="share of each class that the defender gets as clean hold-out")
    per_class: int = Field(20, ge=1, le=100_000, description="but at least this many images of each class")
    max_share: float = Field(0.25, gt=0, le=0.9, description="and never more than this share of a class")


def holdout_counts(train_counts: Sequence[int], config: HoldoutConfig) -> tuple[int, ...]:
    """Images per class that go to the hold-out: `min(max(round(fraction n), per_class), floor(max_share n))`.

    Raises UserError if that is not a single image.
    """
    # The tiny term undoes float error: 0.29 * 100 is 28.999999999999996.
    counts = tuple(min(max(round(config.fraction * n), config.per_class), math.floor(config.max_share * n + 1e-9)) for n in train_counts)
    if not any(counts):
        raise UserError(
            f"the clean hold-out would be empty: the largest class has {max(train_counts, default=0)} training images and "
            f"holdout.max_share is {config.max_share:g}; use more images (limit) or a larger max_share"
        )
    return counts


def remaining_counts(prepared: PreparedDataset, config: HoldoutConfig) -> tuple[int, ...]:
    """Training images per class that are left after the cut, without loading anything.

    Exact unless the dataset has groups: whole groups move together, so a class may then lose somewhat more (up to `max_share` of it, or one
    group) or less than planned. A dataset that brings its own clean set loses nothing.
    """
    if prepared.has_clean:
        return prepared.train_counts
    cut_counts = holdout_counts(prepared.train_counts, config)
    return tuple(n - held for n, held in zip(prepared.train_counts, cut_counts, strict=True))


def cut(splits: Splits, config: HoldoutConfig, generator: torch.Generator) -> tuple[ImageSet, ImageSet]:
    """`(what remains of the training set, the clean hold-out)`, both with rows in their original order.

    With `splits.groups`, whole groups go to the hold-out, in random order, until the class has its count; groups that would take more than
    `max_share` of a class are passed over. If all do, the class gives its smallest group; a class that is a single group gives nothing,
    because then either side would lose it or both would share it. With `splits.clean`, that is the hold-out and train stays whole.

    Raises UserError if the hold-out would be empty.
    """
    import torch

    train = splits.train
    if splits.clean is not None:
        return train, splits.clean
    counts = holdout_counts(train.class_counts(), config)
    labels = train.labels.cpu()
    if splits.groups is None:
        rows = stratified_rows(labels, counts, generator)
    else:
        rows = group_rows(labels, splits.groups.cpu(), counts, config.max_share, generator)
    if not len(rows):
        raise UserError(
            "the clean hold-out would be empty: every class is one group of near-duplicates; give the dataset a clean set of its own"
        )
    left = torch.ones(len(train), dtype=torch.bool)
    left[rows] = False
    return selected(train, torch.nonzero(left).flatten()), selected(train, rows)
