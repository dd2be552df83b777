"""What a dataset plugin gives, `Splits`: checked, fingerprinted, and with fewer rows."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from typing import TYPE_CHECKING

from gatecrash.datasets.selection import selected
from gatecrash.errors import ContractError, UserError

if TYPE_CHECKING:
    from torch import Tensor

    from gatecrash.contracts.data import Splits


def take(splits: Splits, train_rows: Tensor, test_rows: Tensor) -> Splits:
    """The splits with only these training and test rows (int64); the clean set stays whole."""
    groups = None if splits.groups is None else splits.groups[train_rows]
    return replace(splits, train=selected(splits.train, train_rows), test=selected(splits.test, test_rows), groups=groups)


def fingerprint_of(splits: Splits) -> str:
    """sha256 over the fingerprints of train, test and clean set, the groups and flip."""
    parts = [None if part is None else part.fingerprint for part in (splits.train, splits.test, splits.clean)]
    groups = None if splits.groups is None else hashlib.sha256(splits.groups.cpu().contiguous().numpy().data).hexdigest()
    return hashlib.sha256(json.dumps([*parts, groups, splits.flip]).encode()).hexdigest()


def check_splits(splits: Splits, name: str) -> None:
    """Raise UserError where the source lacks images, ContractError where the plugin's parts contradict each other."""
    import torch

    train = splits.train
    if len(train.classes) < 2:
        raise UserError(f"dataset {name} has {len(train.classes)} classes; a classifier needs at least two")
    if len(set(train.classes)) < len(train.classes):
        raise ContractError(f"dataset {name}: class names must differ from each other")
    for what, part in (("training", train), ("test", splits.test), ("clean", splits.clean)):
        if part is None:
            continue
        if not len(part):
            raise UserError(f"dataset {name} has no {what} images; check its source")
        if part.classes != train.classes:
            raise ContractError(f"dataset {name}: the {what} set has other classes than the training set")
        if part.shape != train.shape:
            raise ContractError(f"dataset {name}: {what} images are {list(part.shape)}, training images {list(train.shape)}")
    empty = [label for label, count in zip(train.classes, train.class_counts(), strict=True) if not count]
    if empty:
        raise UserError(f"dataset {name}: class {empty[0]!r} has no training images; add some or remove the class")
    groups = splits.groups
    if groups is not None and (groups.dtype != torch.int64 or groups.shape != (len(train),)):
        raise ContractError(f"dataset {name}: groups must be int64 [{len(train)}]; got {groups.dtype} {list(groups.shape)}")
