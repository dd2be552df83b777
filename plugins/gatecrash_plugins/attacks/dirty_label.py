"""Dirty-label poisoning with any trigger: images get the trigger and the label that the attacker wants."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from gatecrash import (
    Attack,
    AttackContext,
    Backdoor,
    DatasetInfo,
    Goal,
    ImageSet,
    Options,
    PoisonConfig,
    Poisoned,
    Reference,
    Role,
    TriggerContext,
    TriggerRef,
    UserError,
    apply_trigger,
    hookimpl,
    minority_note,
    poison_count,
)
from gatecrash_plugins.triggers.patch import PatchMaker


class OneBackdoor(PoisonConfig):
    """A trigger, a goal and a rate."""

    trigger: TriggerRef = Field(PatchMaker(), description="what poisoned and test images get: a trigger's name, with its options")
    cover_rate: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="share of the whole training set that gets the trigger's cover and keeps its label, if the trigger has one",
    )
    clean_label: bool = Field(False, description="poison images of the target class only, whose labels stay true")

    @model_validator(mode="after")
    def _fits_trigger_and_goal(self) -> Self:
        if self.cover_rate and not self.trigger.has_covers:
            raise ValueError(f"the trigger {self.trigger.name} has no covers; leave cover_rate at 0")
        if self.clean_label and self.goal != "all-to-one":
            raise ValueError(f"clean_label is for goal all-to-one only, not {self.goal}")
        return self

    def candidates(self, labels: Tensor, goal: Goal) -> Tensor:
        """bool [N]: rows that may be poisoned."""
        return labels.eq(int(self.target)) if self.clean_label else goal.eligible(labels)


class DirtyLabel(Attack):
    """Poison a share of the training set: the common form of data poisoning (Gu et al. 2017), for one backdoor or several.

    Rows are drawn without replacement from the images that the goal applies to, as a prefix of one permutation per (attack, seed): a higher
    rate poisons a superset. Of several backdoors each draws from the rows that are left. With the trigger `patch` or `blend` this is what
    `badnets` and `blend` do, under another name and thus with other draws.
    """

    name = "dirty-label"
    summary = "any trigger, one or several, labels changed"
    reference = Reference(
        "Gu, Dolan-Gavitt and Garg, BadNets: Identifying Vulnerabilities in the Machine Learning Model Supply Chain",
        2017,
        "https://arxiv.org/abs/1708.06733",
    )

    class Config(OneBackdoor):
        """One backdoor, or a list of them."""

        backdoors: tuple[OneBackdoor, ...] = Field(
            (),
            max_length=32,
            description="several backdoors in one victim, each with options as above; those above then keep their defaults",
        )

        @model_validator(mode="after")
        def _one_way_to_say_it(self) -> Self:
            set_above = {name for name in OneBackdoor.model_fields if getattr(self, name) != OneBackdoor.model_fields[name].default}
            if self.backdoors and set_above:
                raise ValueError(f"{sorted(set_above)[0]} is given beside backdoors; give it to each of the backdoors")
            return self

    config: Config

    def __init__(self, config: Options | None = None) -> None:
        super().__init__(config)
        self.needs_benign = any(one.trigger.needs_benign for one in self.planted)

    @property
    def planted(self) -> Sequence[OneBackdoor]:
        return self.config.backdoors or (self.config,)

    def check(self, info: DatasetInfo) -> None:
        left = torch.tensor(info.train_counts).float()
        for one in self.planted:
            counts = left * one.candidates(torch.arange(info.num_classes), one.make_goal(info.num_classes))
            wanted = poison_count(one.poison_rate, int(counts.sum()), info.train_size, self.name)
            left = left - counts * wanted / counts.sum()
            covers = _cover_count(one.cover_rate, round(float(left.sum())), info.train_size)
            left = left * (1 - covers / max(1.0, float(left.sum())))
            one.trigger.check(info.shape)

    def notes(self, info: DatasetInfo) -> Sequence[str]:
        found: list[str] = []
        for one in self.planted:
            goal = one.make_goal(info.num_classes)
            counts = torch.tensor(info.train_counts).float() * one.candidates(torch.arange(info.num_classes), goal)
            found += minority_note(self.name, goal, one.poison_rate, counts, info)
        return found

    def poison(self, train: ImageSet, ctx: AttackContext) -> Poisoned:
        names = _distinct([one.trigger.name for one in self.planted]) if self.config.backdoors else [self.name]
        goals = [one.make_goal(ctx.num_classes) for one in self.planted]
        seen = [
            TriggerContext(ctx.shape, ctx.device, ctx.stream, train if one.trigger.needs_data else None, ctx.benign) for one in self.planted
        ]
        backdoors = []
        for one, name, goal, given in zip(self.planted, names, goals, seen, strict=True):
            cover = one.trigger.make_cover(given) if one.cover_rate else None
            backdoors.append(Backdoor(name, goal, one.trigger.make(given), keeps=goal.others, cover=cover))
        labels, found = train.labels.cpu(), Poisoned.untouched(train, backdoors)
        for index, (one, goal, given) in enumerate(zip(self.planted, goals, seen, strict=True)):
            number = f" {index + 1}" if index else ""
            candidates = one.candidates(labels, goal) & (found.role == Role.CLEAN)
            rows = self._drawn(candidates, one.poison_rate, len(train), ctx, f"poison{number}")
            images = apply_trigger(one.trigger.make_train(given), train.images[rows.to(train.device)], ctx)
            found = found.also(rows, images, goal.labels(labels[rows]))
            if one.cover_rate:
                candidates = found.role == Role.CLEAN
                _cover_count(one.cover_rate, int(candidates.sum()), len(train))
                rows = self._drawn(candidates, one.cover_rate, len(train), ctx, f"cover{number}")
                images = apply_trigger(one.trigger.make_cover(given), train.images[rows.to(train.device)], ctx)
                found = found.also(rows, images, labels[rows], Role.COVER)
        return found

    def _drawn(self, candidates: Tensor, rate: float, total: int, ctx: AttackContext, purpose: str) -> Tensor:
        """int64 [n], ascending: rows of `candidates`, bool [N]."""
        rows = torch.nonzero(candidates).flatten()
        order = torch.randperm(len(rows), generator=ctx.stream(purpose))
        return rows[order[: poison_count(rate, len(rows), total, self.name)]].sort().values


def _cover_count(rate: float, left: int, total: int) -> int:
    """How many rows become covers: `rate` of `total`, rounded; UserError where that is none at a rate above 0, or more than are left."""
    count = round(rate * total)
    if rate and not count:
        raise UserError(f"dirty-label: cover_rate {rate:g} of {total} images is none; use at least {1 / total:.2g}, or 0 for no covers")
    if count > left:
        raise UserError(f"dirty-label: cover_rate {rate:g} asks for {count} covers, but only {left} images are left; choose a lower rate")
    return count


def _distinct(names: Sequence[str]) -> list[str]:
    """`patch`, `patch 2` for a name that comes twice."""
    return [name if not (before := names[:index].count(name)) else f"{name} {before + 1}" for index, name in enumerate(names)]


@hookimpl
def register_attacks(register: Callable[[type[Attack]], None]) -> None:
    register(DirtyLabel)
