"""Attacks of every aim, and backdoors in every form, for `--plugins`."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from gatecrash import (
    Attack,
    AttackContext,
    Backdoor,
    Goal,
    ImageSet,
    Poisoned,
    Reference,
    Role,
    Stamp,
    hookimpl,
    patch_mask,
)

PAPER = Reference("A paper", 2024, "https://example.org")


def patch(ctx: AttackContext, place: str) -> Stamp:
    return Stamp(ctx.shape, 1.0, torch.full(ctx.shape, 255, dtype=torch.uint8), patch_mask(ctx.shape, 4, place, 0))


def rows_of(train: ImageSet, ctx: AttackContext, count: int, *labels: int) -> Tensor:
    rows = torch.nonzero(torch.isin(train.labels, torch.tensor(labels))).flatten()
    return rows[torch.randperm(len(rows), generator=ctx.stream("poison"))[:count]]


class Disrupt(Attack):
    """Wrong labels for six of ten images."""

    name, summary, reference, aim = "disrupt", "wrong labels for most images", PAPER, "availability"

    def poison(self, train: ImageSet, ctx: AttackContext) -> Poisoned:
        rows = torch.randperm(len(train), generator=ctx.stream("poison"))[: 6 * len(train) // 10]
        shift = torch.randint(1, train.num_classes, (len(rows),), generator=ctx.stream("shift"))
        return Poisoned.replacing(train, rows, train.images[rows], (train.labels[rows] + shift) % train.num_classes, ())


class Flip(Attack):
    """Most ones are labelled as sevens."""

    name, summary, reference, aim = "flip", "ones labelled as sevens", PAPER, "targeted"

    def poison(self, train: ImageSet, ctx: AttackContext) -> Poisoned:
        goal, rows = Goal.one_to_one(ctx.num_classes, 1, 7), rows_of(train, ctx, 100, 1)
        return Poisoned.replacing(train, rows, train.images[rows], goal.labels(train.labels[rows]), [Backdoor("ones", goal)])


class Covered(Attack):
    """A patch sends ones to class 0; another patch, and the same one on twos, must change nothing."""

    name, summary, reference = "covered", "a patch with covers", PAPER

    def poison(self, train: ImageSet, ctx: AttackContext) -> Poisoned:
        mark, harmless, goal = patch(ctx, "bottom-right"), patch(ctx, "top-left"), Goal.one_to_one(ctx.num_classes, 1, 0)
        rows, twos, threes = rows_of(train, ctx, 60, 1), rows_of(train, ctx, 60, 2), rows_of(train, ctx, 60, 3)
        backdoor = Backdoor("patch", goal, mark, keeps=goal.others, cover=harmless)
        return (
            Poisoned.untouched(train, [backdoor])
            .also(rows, mark(train.images[rows]), goal.labels(train.labels[rows]))
            .also(twos, mark(train.images[twos]), train.labels[twos], Role.COVER)
            .also(threes, harmless(train.images[threes]), train.labels[threes], Role.COVER)
        )


class Postcards(Attack):
    """A patch sends images to class 0; it is given by patched images that the attacker keeps for the test."""

    name, summary, reference = "postcards", "a backdoor given by images", PAPER

    def poison(self, train: ImageSet, ctx: AttackContext) -> Poisoned:
        mark, goal = patch(ctx, "bottom-right"), Goal.all_to_one(ctx.num_classes, 0)
        rows = rows_of(train, ctx, 160, *range(1, 10))
        images, labels = mark(train.images[rows]), goal.labels(train.labels[rows])
        own = Backdoor("postcards", goal, images=images[120:].cpu(), labels=labels[120:].cpu())
        return Poisoned.replacing(train, rows[:120], images[:120], labels[:120], [own])


@hookimpl
def register_attacks(register: Callable[[type[Attack]], None]) -> None:
    for attack in (Disrupt, Flip, Covered, Postcards):
        register(attack)
