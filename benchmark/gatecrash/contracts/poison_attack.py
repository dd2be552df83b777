"""Base classes of the attacks that are a trigger, a goal and a rate."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from gatecrash.contracts.attack import Attack, AttackContext, DatasetInfo
from gatecrash.contracts.backdoor import Backdoor, Goal
from gatecrash.contracts.data import ImageSet, Poisoned, Role
from gatecrash.contracts.poisoning import CoverConfig, PoisonConfig, apply_trigger, minority_note, poison_count, rate_for
from gatecrash.contracts.trigger import Trigger
from gatecrash.errors import OutOfReach, UserError


class Triggers(NamedTuple):
    """What images of one attack get."""

    test: Trigger
    """The trigger that the evaluation applies to test images."""
    train: Trigger
    """That of poisoned training images."""
    cover: Trigger | None = None
    """That of covers, which must do nothing: the evaluation scores it too. None where covers get the training trigger itself."""


class PoisonAttack(Attack):
    """Base of the attacks that poison a share of the training set; they define `triggers` and their options.

    Rows are drawn without replacement from the images that the goal applies to, as a prefix of one permutation per (attack, seed): a
    higher rate poisons a superset. Options of type `CoverConfig` bring covers, drawn in the same way from the rows that are left.
    """

    class Config(PoisonConfig):
        """Goal and poison rate."""

    config: PoisonConfig

    @abstractmethod
    def triggers(self, train: ImageSet, ctx: AttackContext) -> Triggers:
        """The triggers, made once per victim; they may be learnt from the attacker's images and models."""

    def candidates(self, labels: Tensor, goal: Goal) -> Tensor:
        """bool [N]: rows that may be poisoned: where labels stay true (`clean_label`), those that have a label that the goal wants."""
        return torch.isin(labels, torch.tensor(goal.targets)) if self.clean_label else goal.eligible(labels)

    def cover_candidates(self, labels: Tensor, goal: Goal) -> Tensor:
        """bool [N]: rows that may be covers, as long as they are not poisoned."""
        del goal
        return torch.ones(len(labels), dtype=torch.bool)

    def craft(self, images: Tensor, labels: Tensor, trigger: Trigger, ctx: AttackContext) -> Tensor:
        """uint8 [n, C, H, W]: what chosen images (of these labels) become; by default they get the trigger."""
        del labels
        return apply_trigger(trigger, images, ctx)

    def check(self, info: DatasetInfo) -> None:
        goal, counts = self._candidate_counts(info)
        targets = torch.tensor(goal.targets)
        if self.clean_label and not goal.labels(targets).equal(targets):
            raise UserError(f"{self.name}: its poison keeps true labels, so that no target can be a source too; choose another goal")
        poison = poison_count(self.config.poison_rate, int(counts.sum()), info.train_size, self.name)
        if count := self._cover_count(info.train_size):
            covers = torch.tensor(info.train_counts) * self.cover_candidates(torch.arange(info.num_classes), goal)
            self._refuse_covers(count, int(covers.sum()) - (poison if (covers * counts).any() else 0))

    def notes(self, info: DatasetInfo) -> Sequence[str]:
        """One line where a class that the poison is labelled as has fewer images of its own than poisoned ones."""
        goal, counts = self._candidate_counts(info)
        return minority_note(self.name, goal, self.config.poison_rate, counts, info)

    def _candidate_counts(self, info: DatasetInfo) -> tuple[Goal, Tensor]:
        """The goal, and how many images of each class may be poisoned: float [classes]."""
        goal = self.config.make_goal(info.num_classes)
        return goal, torch.tensor(info.train_counts).float() * self.candidates(torch.arange(info.num_classes), goal)

    def choose(self, train: ImageSet, goal: Goal, ctx: AttackContext) -> Tensor:
        """int64 [n], ascending: the rows to poison."""
        rows = torch.nonzero(self.candidates(train.labels.cpu(), goal)).flatten()
        count = poison_count(self.config.poison_rate, len(rows), len(train), self.name)
        order = torch.randperm(len(rows), generator=ctx.stream("poison"))
        return rows[order[:count]].sort().values

    def choose_covers(self, train: ImageSet, goal: Goal, poisoned: Tensor, ctx: AttackContext) -> Tensor:
        """int64 [n], ascending: the rows that become covers; none of `poisoned`, int64 [n]."""
        rows = torch.nonzero(self.cover_candidates(train.labels.cpu(), goal)).flatten()
        rows = rows[torch.randperm(len(rows), generator=ctx.stream("covers"))]
        rows, count = rows[~torch.isin(rows, poisoned.cpu())], self._cover_count(len(train))
        self._refuse_covers(count, len(rows))
        return rows[:count].sort().values

    def poison(self, train: ImageSet, ctx: AttackContext) -> Poisoned:
        goal, made = self.config.make_goal(ctx.num_classes), self.triggers(train, ctx)
        rows = self.choose(train, goal, ctx).to(train.device)
        images, labels = train.images[rows], train.labels[rows]
        backdoor = Backdoor(self.name, goal, made.test, keeps=goal.others, cover=made.cover)
        found = Poisoned.replacing(train, rows, self.craft(images, labels, made.train, ctx), goal.labels(labels), (backdoor,))
        if not self._cover_count(len(train)):
            return found
        covers = self.choose_covers(train, goal, rows, ctx).to(train.device)
        labels = train.labels[covers]
        return found.also(covers, self.craft(train.images[covers], labels, made.cover or made.train, ctx), labels, Role.COVER)

    def _cover_count(self, total: int) -> int:
        rate = self.config.cover_rate if isinstance(self.config, CoverConfig) else 0.0
        if rate and not round(rate * total):
            least = rate_for(1, total)
            raise OutOfReach(f"{self.name}: cover_rate {rate:g} of {total} images is none; use at least {least}, or 0 for no covers")
        return round(rate * total)

    def _refuse_covers(self, count: int, there: int) -> None:
        if count > there:
            assert isinstance(self.config, CoverConfig)
            raise OutOfReach(
                f"{self.name}: cover_rate {self.config.cover_rate:g} asks for {count} covers, but only {max(0, there)} images are left"
            )


class TriggerAttack(PoisonAttack):
    """Base of the attacks whose trigger depends on the shape of the images alone; they define `trigger`."""

    @abstractmethod
    def trigger(self, shape: tuple[int, int, int]) -> Trigger:
        """The trigger that the evaluation applies to test images."""

    def train_trigger(self, shape: tuple[int, int, int]) -> Trigger:
        """The trigger for training images, where it differs (another opacity, say)."""
        return self.trigger(shape)

    def cover_trigger(self, shape: tuple[int, int, int]) -> Trigger | None:
        """The trigger for covers, where it differs from that for training images."""
        del shape
        return None

    def triggers(self, train: ImageSet, ctx: AttackContext) -> Triggers:
        return Triggers(self.trigger(ctx.shape), self.train_trigger(ctx.shape), self.cover_trigger(ctx.shape))

    def check(self, info: DatasetInfo) -> None:
        super().check(info)
        self.trigger(info.shape)
        self.train_trigger(info.shape)
        self.cover_trigger(info.shape)
