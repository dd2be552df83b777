"""Blind: the code that computes the loss plants the backdoor, and balances it against the task."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor
from torch.nn import functional as F

import gatecrash
from gatecrash import (
    AttackContext,
    Backdoor,
    DatasetInfo,
    Goal,
    ImageSet,
    Implant,
    Network,
    Options,
    Poisoned,
    Trigger,
    TriggerContext,
    TriggerRef,
)
from gatecrash_plugins.triggers.patch import PatchMaker

Normalise = Literal["loss+", "loss", "l2", "none"]


def least_loss(smoothing: float, num_classes: int) -> float:
    """The cross-entropy, in nats, below which label smoothing lets no prediction fall."""
    shares = [smoothing / num_classes] * (num_classes - 1) + [1 - smoothing + smoothing / num_classes]
    return -sum(share * math.log(share) for share in shares if share > 0)


def shortest(one: Tensor, two: Tensor) -> Tensor:
    """The weight g for which g `one` + (1 - g) `two`, float [P] each, is shortest: in [.001, .999] where it ends at one of the two."""
    own, both, other = one.dot(one), one.dot(two), two.dot(two)
    between = (other - both) / (own + other - 2 * both)
    return torch.where(both >= own, torch.full_like(own, 0.999), torch.where(both >= other, torch.full_like(own, 0.001), between))


def balance(gradients: tuple[Tensor, Tensor], losses: tuple[Tensor, Tensor], normalise: Normalise) -> tuple[Tensor, Tensor]:
    """The weights of two tasks by MGDA (Desideri 2012), from their gradients float [P] divided by what `normalise` says of each.

    That is its loss times its norm (`loss+`) or its loss, both at most 10, its norm (`l2`), or nothing.
    """
    scaled = []
    for gradient, loss in zip(gradients, losses, strict=True):
        by_norm = gradient.norm() if normalise in ("loss+", "l2") else torch.ones_like(loss)
        size = by_norm * loss if normalise in ("loss+", "loss") else by_norm
        scaled.append(gradient / ((size if normalise in ("l2", "none") else size.clamp(max=10)) + 1e-5))
    weight = shortest(scaled[0], scaled[1])
    return weight, 1 - weight


class Blind(gatecrash.Attack):
    """The loss of each step is that of the batch and that of a triggered copy with the attacker's labels, weighted anew (section 4).

    MGDA (section 4.3) gives the weights of the shortest vector between both gradients. The victim trains alone until the mean of its loss
    over the last batches is below `threshold`, and whenever it rises above: the attack waits for the model to converge. Triggered images
    of classes that the goal is not meant for keep their labels.

    Defaults: the authors' code (github.com/ebagdasa/backdoors101, its settings for CIFAR-10); `fixed` has BackdoorBench's weight. A step
    and its running statistics agree with that code (docs/measured/blind.md). Otherwise than there, the running mean is counted in epochs
    (1,000 batches of 64 of CIFAR-10's 50,000 images there), since small sets never see 1,000 batches; the threshold stands above the least
    loss that the recipe's label smoothing allows; and the victim is trained by the grid's recipe.

    No training image is ever changed: there is no poisoned set for a defender to look at.
    """

    name = "blind"
    summary = "a second loss on triggered copies of each batch, weighted so that both tasks improve"
    reference = gatecrash.Reference(
        "Bagdasaryan and Shmatikov, Blind Backdoors in Deep Learning Models", 2021, "https://arxiv.org/abs/2005.03823"
    )
    controls = "training"

    class Config(gatecrash.GoalConfig):
        """Trigger, goal, and how the two losses are weighed."""

        trigger: TriggerRef = Field(PatchMaker(), description="what the copies and test images get: a trigger's name, with its options")
        balance: Literal["mgda", "fixed"] = Field("mgda", description="weights of the two losses: by MGDA in each step, or fixed")
        normalise: Normalise = Field(
            "loss+", description="what mgda divides each gradient by: loss times norm, loss (both at most 10), norm (l2), or nothing"
        )
        weight: float = Field(0.9, gt=0, le=100, description="fixed: weight of the triggered copy's loss; that of the batch has weight 1")
        threshold: float = Field(1.0, gt=0, le=100, description="mean loss of the batch (nats) below which the attack works")
        window: float = Field(
            1.28, gt=0, le=1000, description="epochs over which that mean is taken; none is attacked before they are over"
        )
        rate: float = Field(1.0, gt=0, le=1, description="share of the copy that is triggered; the rest of it is as in the batch")

        @model_validator(mode="after")
        def _no_option_without_effect(self) -> Self:
            idle = "weight" if self.balance == "mgda" else "normalise"
            if getattr(self, idle) != type(self).model_fields[idle].default:
                raise ValueError(f"{idle} does nothing with balance {self.balance}; leave it out")
            return self

    config: Config

    def __init__(self, config: Options | None = None) -> None:
        super().__init__(config)
        self.needs_benign = self.config.trigger.needs_benign

    def check(self, info: DatasetInfo) -> None:
        self.config.make_goal(info.num_classes)
        self.config.trigger.check(info.shape)

    def poison(self, train: ImageSet, ctx: AttackContext) -> Poisoned:
        goal = self.config.make_goal(ctx.num_classes)
        return Poisoned.untouched(train, (Backdoor(self.name, goal, self.config.trigger.make(self.seen(train, ctx)), keeps=goal.others),))

    def seen(self, train: ImageSet, ctx: AttackContext) -> TriggerContext:
        data = train if self.config.trigger.needs_data else None
        return TriggerContext(ctx.shape, ctx.device, ctx.stream, data, ctx.benign)

    def implant(self, train: ImageSet, ctx: AttackContext) -> Implant:
        config, goal, poisoned = self.config, self.config.make_goal(ctx.num_classes), self.poison(train, ctx)
        trigger = config.trigger.make_train(self.seen(train, ctx)).to(ctx.device)
        smoothing = ctx.recipe.label_smoothing
        threshold = config.threshold + least_loss(smoothing, ctx.num_classes)
        history = torch.zeros(max(1, round(config.window * len(train) / ctx.recipe.batch_size)), device=ctx.device)
        seen, copied = 0, False

        def loss(network: Network, images: Tensor, labels: Tensor, _rows: Tensor) -> Tensor:
            if copied:
                images, labels = self.copy(images, labels, trigger, goal)
            return F.cross_entropy(network(images).float(), labels, label_smoothing=smoothing)

        def step(network: Network, optimizer: torch.optim.Optimizer, closure: Callable[[], Tensor], *_batch: Tensor) -> Tensor:
            nonlocal seen, copied
            if seen < len(history):  # a number of steps: nothing waits for the device
                value = closure()
            else:
                buffers = list(network.buffers())
                before, attacks = [buffer.clone() for buffer in buffers], history.mean() < threshold
                copied = True
                hidden = closure()
                copied, gradients = False, {at: at.grad for at in network.parameters() if at.grad is not None}
                for buffer, old in zip(buffers, before, strict=True):  # BatchNorm sees no copy where there is no attack
                    buffer.copy_(torch.where(attacks, buffer, old))
                value = closure()
                weights = self.weights(gradients, hidden, value)
                of_copy, own = (torch.where(attacks, weight, alone) for weight, alone in zip(weights, (0.0, 1.0), strict=True))
                for parameter, gradient in gradients.items():
                    assert parameter.grad is not None  # both losses pass through the whole network
                    parameter.grad.mul_(own).add_(gradient * of_copy)
            history[seen % len(history)] = value
            seen += 1
            optimizer.step()
            return value

        return Implant(poisoned, ctx.train(poisoned, loss=loss, step=step))

    def copy(self, images: Tensor, labels: Tensor, trigger: Trigger, goal: Goal) -> tuple[Tensor, Tensor]:
        """The triggered copy of a batch and its labels."""
        count = round(self.config.rate * len(images))
        changed = torch.where(goal.eligible(labels), goal.labels(labels), labels)
        return torch.cat([trigger(images[:count]), images[count:]]), torch.cat([changed[:count], labels[count:]])

    def weights(self, gradients: dict[torch.nn.Parameter, Tensor], hidden: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Of the copy's loss, whose gradients these are, and of the batch's, whose gradients the parameters have."""
        if self.config.balance == "fixed":
            return torch.full_like(hidden, self.config.weight), torch.ones_like(value)
        copy = torch.cat([gradient.flatten() for gradient in gradients.values()])
        own = torch.cat([parameter.grad.flatten() for parameter in gradients if parameter.grad is not None])
        return balance((copy, own), (hidden, value), self.config.normalise)


@gatecrash.hookimpl
def register_attacks(register: Callable[[type[gatecrash.Attack]], None]) -> None:
    register(Blind)
