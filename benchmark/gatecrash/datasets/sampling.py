"""Selection of rows per class: the only place where images are drawn by class.

All functions draw from the generator that they are given, class by class in ascending order, so that for one state of it a smaller count
gives a subset of what a larger one gives.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import Tensor


def stratified_counts(counts: Sequence[int], total: int) -> tuple[int, ...]:
    """`total` images divided over the classes in proportion to `counts` (largest remainders), at least one for each that has any.

    `total` must be at least the number of classes that are not empty, and at most the sum of `counts`.
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
    """int64 rows, ascending: `counts[c]` random rows of each class c of `labels` (int64 [N], on the CPU), drawn without replacement."""
    import torch

    chosen = []
    for label, count in enumerate(counts):
        members = torch.nonzero(labels == label).flatten()
        chosen.append(members[torch.randperm(len(members), generator=generator)[:count]])
    return torch.cat(chosen).sort().values


def stratified_split(labels: Tensor, counts: Sequence[int], generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """`(rows that are left, chosen rows)`, both int64 and ascending: `counts[c]` random rows of each class c are chosen.

    `labels` is int64 [N], on any device; the rows are on the CPU.
    """
    import torch

    chosen = torch.zeros(len(labels), dtype=torch.bool)
    chosen[stratified_rows(labels.cpu(), counts, generator)] = True
    return torch.nonzero(~chosen).flatten(), torch.nonzero(chosen).flatten()


def group_rows(labels: Tensor, groups: Tensor, counts: Sequence[int], max_share: float, generator: torch.Generator) -> Tensor:
    """int64 rows, ascending: whole groups in random order, until each class c has at least `counts[c]` rows.

    `labels` and `groups` are int64 [N], on the CPU. A group that would take more than `max_share` of a class is passed over. Where that
    leaves a class with nothing, it gives its smallest group, unless a class would then have no row left outside.
    """
    import torch

    ids, group_of = torch.unique(groups, return_inverse=True)
    num_groups, num_classes = len(ids), len(counts)
    # table[g, c]: rows of class c in group g; a group may span classes.
    table = torch.bincount(group_of * num_classes + labels, minlength=num_groups * num_classes).view(num_groups, num_classes)
    totals = table.sum(0)
    most = torch.floor(totals * max_share + 1e-9).long()
    held = torch.zeros(num_classes, dtype=torch.int64)
    taken = torch.zeros(num_groups, dtype=torch.bool)

    def take(group: int) -> None:
        taken[group] = True
        held.add_(table[group])

    order = torch.randperm(num_groups, generator=generator)
    for label, count in enumerate(counts):
        members = order[table[order, label] > 0]
        for group in members.tolist():
            if held[label] < count and not taken[group] and bool((held + table[group] <= most)[table[group] > 0].all()):
                take(group)
        if held[label] == 0 < count and len(members) > 1:
            smallest = int(members[table[members, label].argmin()])
            if bool((held + table[smallest] < totals)[table[smallest] > 0].all()):
                take(smallest)
    return torch.nonzero(taken[group_of]).flatten()
