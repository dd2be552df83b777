"""Selection of rows per class: the only place where images are drawn by class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from gatecrash.contracts.data import Splits
if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from gatecrash.contracts.data import Splits


def stratified_counts(counts: Sequence[int], total: int) -> tuple[int, ...]:
    """`total` images divided over the classes in proportion to `counts` (largest remainders), at least one for each that has any.

    Needs as many images as non-empty classes, and no more than there are.
    """
    whole = sum(counts)
    shares = [total * count // whole for count in counts]
    by_remainder = sorted(range(len(counts)), key=lambda label: (-(total * counts[label] % whole), label))
    for label in by_remainder[: total - sum(shares)]:
        shares[label] += 1
    for label, count in enumerate(counts):
        if count and not shares[label]:
            shares[max(range(len(shares)), key=shares.__getitem__)] -= 1
            shares[label] = 1
    return tuple(shares)


def stratified_rows(labels: Tensor, counts: Sequence[int], generator: torch.Generator) -> Tensor:
    """int64 rows, ascending: `counts[c]` random rows of each class c, drawn without replacement.

    For one state of the generator a smaller count gives a subset of what a larger one gives.
    """
    import torch

    chosen = []
    for label, count in enumerate(counts):
        members = torch.nonzero(labels == label).flatten()
        chosen.append(members[torch.randperm(len(members), generator=generator)[:count]])
    return torch.cat(chosen).sort().values


def take(splits: Splits, train_rows: Tensor, test_rows: Tensor) -> Splits:
    """The splits with only these training and test rows; the clean set stays whole."""
    groups = None if splits.groups is None else splits.groups[train_rows]
    return replace(splits, train=splits.train.subset(train_rows), test=splits.test.subset(test_rows), groups=groups)
