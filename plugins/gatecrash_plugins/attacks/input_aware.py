"""Input-Aware: generators draw a trigger for each image, which works on that image and on no other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from gatecrash import (
    Attack,
    AttackContext,
    Backdoor,
    FloatTrigger,
    GoalConfig,
    ImageSet,
    Implant,
    Network,
    Poisoned,
    Reference,
    Role,
    Trigger,
    hookimpl,
)

DONORS = 64
"""Training images whose triggers the cross trigger lends."""


class Generated(FloatTrigger):
    """`x + (p - x) m` (equation 5) on [0, 1]: the pattern p and the mask m are drawn for each image."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.channels, self.width = channels, width
        self.pattern, self.mask = generator(channels, width, channels), generator(channels, width, 1)

    def config(self) -> dict[str, Any]:
        return {"channels": self.channels, "width": self.width}

    def patterns(self, images: Tensor) -> Tensor:
        return drawn(self.pattern, images)

    def masks(self, images: Tensor) -> Tensor:
        return (20 * drawn(self.mask, images) - 10).tanh() / 2 + 0.5

    def transform(self, images: Tensor) -> Tensor:
        return images + (self.patterns(images) - images) * self.masks(images)


class Crossed(FloatTrigger):
    """The trigger of another image, of one of `count` that the sum of an image's pixels chooses: it must do nothing."""

    patterns: Tensor
    masks: Tensor

    def __init__(self, shape: tuple[int, int, int], count: int) -> None:
        super().__init__()
        self.shape, self.count = tuple(shape), count
        self.register_buffer("patterns", torch.zeros(count, *self.shape))
        self.register_buffer("masks", torch.zeros(count, 1, *self.shape[1:]))

    def config(self) -> dict[str, Any]:
        return {"shape": list(self.shape), "count": self.count}

    def transform(self, images: Tensor) -> Tensor:
        chosen = (images * 255).round().flatten(1).sum(1).long() % self.count
        return images + (self.patterns[chosen] - images) * self.masks[chosen]


def generator(channels: int, width: int, out: int) -> nn.Sequential:
    """The authors' U shape without shortcuts: three halvings, three doublings."""

    def block(before: int, after: int, act: type[nn.Module] = nn.ReLU) -> list[nn.Module]:
        return [nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after, momentum=0.05), act()]

    a, b, c = width, 2 * width, 4 * width
    down = [[*block(i, o), *block(o, o), nn.MaxPool2d(2, ceil_mode=True)] for i, o in ((channels, a), (a, b), (b, c))]
    ends = ((c, b, nn.ReLU), (b, a, nn.ReLU), (a, out, nn.Identity))
    up = [[nn.Upsample(scale_factor=2, mode="bilinear"), *block(i, i), *block(i, o, act)] for i, o, act in ends]
    return nn.Sequential(*(layer for part in (*down, block(c, c), *up) for layer in part))


def drawn(network: nn.Module, images: Tensor) -> Tensor:
    """What a generator draws for images float [N, C, H, W] in [0, 1], in [0, 1]."""
    return F.interpolate(network(4 * images - 2), images.shape[2:]).float().tanh() / 2 + 0.5


def diversity(images: Tensor, made: Tensor) -> Tensor:
    """Mean distance of neighbours in the batch over that of what is drawn for them (equation 6); distances are root mean squares."""
    far, apart = ((x - x.roll(1, 0)).square().flatten(1).mean(1).add(1e-12).sqrt() for x in (images, made))
    return (far / (apart + 1e-7)).mean()


class InputAware(Attack):
    """The mask's generator is trained first, then the pattern's together with the victim (section 3.3).

    Of each batch `rate` get their own trigger and the label that the attacker wants, and as many the trigger of another image and keep
    theirs. The authors train for 600 epochs; here it is the grid's recipe. Their code never clears the pattern generator's gradients; here
    each step has its own. What the victim was trained on changed with every step: a defender holds rows under the finished triggers.

    Not validated against a published figure: on the digits (60 epochs, seeds 0 to 2) ASR is 58, 63 and 41, cover ACC 67, 71 and 80; in
    the paper 99.3 and 88.2, on CIFAR-10.
    """

    name = "input-aware"
    summary = "a trigger drawn for each image, by generators trained with the victim"
    reference = Reference("Nguyen and Tran, Input-Aware Dynamic Backdoor Attack", 2020, "https://arxiv.org/abs/2010.08138")
    controls = "training"

    class Config(GoalConfig):
        """Defaults: the paper's, and where it is silent its code's."""

        goal: Literal["all-to-one", "all-to-all"] = Field("all-to-one", description="what triggered images become")
        rate: float = Field(0.1, gt=0, le=0.4, description="share of each batch that is attacked; as many get another image's trigger")
        mask_epochs: int = Field(25, ge=1, le=10_000, description="passes of the mask's training")
        density: float = Field(0.032, gt=0, lt=1, description="opacity of the mask up to which it costs nothing")
        norm: float = Field(100.0, ge=0, le=1e6, description="weight of opacity above it")
        diversity: float = Field(1.0, ge=0, le=1e6, description="weight of diversity, of masks and of patterns")
        lr: float = Field(0.01, gt=0, le=1, description="learning rate of the generators (Adam)")
        width: int = Field(32, ge=1, le=512, description="channels of the generators' first layer")

    config: Config

    def poison(self, train: ImageSet, ctx: AttackContext) -> Poisoned:
        """Rows under triggers that were never trained: `implant` makes the victim."""
        return Poisoned.untouched(train)

    def implant(self, train: ImageSet, ctx: AttackContext) -> Implant:
        goal = self.config.make_goal(ctx.num_classes)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(ctx.stream.seed("generators"))
            trigger = Generated(ctx.shape[0], self.config.width).to(ctx.device)
        self.train_mask(trigger, train, ctx)
        adam = torch.optim.Adam(trigger.pattern.parameters(), self.config.lr, (0.5, 0.9))

        def loss(network: Network, images: Tensor, labels: Tensor, _rows: Tensor) -> Tensor:
            x, n = images / 255, max(2, round(self.config.rate * len(images)))  # BatchNorm has no variance over one
            own, other = x[:n], x[n : 2 * n]
            patterns, masks = trigger.patterns(own), trigger.masks(own)
            attacked = own + (patterns - own) * masks
            cross = other + (patterns[: len(other)] - other) * masks[: len(other)]
            logits = network(torch.cat([attacked, cross, x[2 * n :]])).float()
            wanted = torch.cat([goal.labels(labels[:n]), labels[n:]])
            return F.cross_entropy(logits, wanted) + self.config.diversity * diversity(own, patterns)

        def step(_network: Network, optimizer: torch.optim.Optimizer, closure: Callable[[], Tensor], *_batch: Tensor) -> Tensor:
            adam.zero_grad()
            value = closure()
            optimizer.step()
            adam.step()
            return value

        trigger.pattern.train()
        network = ctx.train(train, loss=loss, step=step)
        trigger.eval().requires_grad_(False)
        return self.finished(trigger, network, train, ctx)

    def train_mask(self, trigger: Generated, train: ImageSet, ctx: AttackContext) -> None:
        """In place: `norm` mean relu(m - density) + `diversity` of the masks."""
        adam, order = torch.optim.Adam(trigger.mask.parameters(), self.config.lr, (0.5, 0.9)), ctx.stream("mask")
        trigger.mask.train()
        for _ in range(self.config.mask_epochs):
            passes = torch.randperm(len(train), generator=order).to(train.device)
            for start in range(0, len(train) - 1, ctx.recipe.batch_size):
                images = train.images[passes[start : start + ctx.recipe.batch_size]].to(ctx.device, non_blocking=True) / 255
                masks = trigger.masks(images)
                loss = self.config.norm * F.relu(masks - self.config.density).mean() + self.config.diversity * diversity(images, masks)
                adam.zero_grad()
                torch.autograd.backward(loss)
                adam.step()
        trigger.mask.eval().requires_grad_(False)

    @torch.no_grad()
    def finished(self, trigger: Generated, network: Network, train: ImageSet, ctx: AttackContext) -> Implant:
        """The victim, its triggers, and what a defender would hold."""
        goal, order = self.config.make_goal(ctx.num_classes), torch.randperm(len(train), generator=ctx.stream("sample")).to(train.device)
        lenders = train.images[order[-DONORS:]].to(ctx.device) / 255
        cross = Crossed(ctx.shape, len(lenders)).to(ctx.device)
        cross.patterns.copy_(trigger.patterns(lenders))
        cross.masks.copy_(trigger.masks(lenders))
        backdoor = Backdoor(self.name, goal, trigger, cover=cross)
        n, sample = max(1, round(self.config.rate * len(train))), Poisoned.untouched(train)
        attacked = order[goal.eligible(train.labels[order])][:n].sort().values
        covers = order[~torch.isin(order, attacked)][:n].sort().values
        parts: tuple[tuple[Tensor, Trigger, Role], ...] = ((attacked, trigger, Role.POISON), (covers, cross, Role.COVER))
        for rows, stamp, role in parts:
            images = torch.cat([stamp(batch) for batch in ctx.batches(train.images[rows])])
            labels = train.labels[rows]
            sample = sample.also(rows, images, goal.labels(labels) if role == Role.POISON else labels, role)
        return Implant(Poisoned.untouched(train, (backdoor,)), network, sample)


@hookimpl
def register_attacks(register: Callable[[type[Attack]], None]) -> None:
    register(InputAware)
