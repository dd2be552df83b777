"""Attacks that use every part of the contract: covers, control of training, a trigger network, two backdoors, lies about rows."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from gatecrash import (
    Attack,
    AttackContext,
    Backbone,
    Backdoor,
    Config,
    Goal,
    ImageSet,
    Implant,
    Model,
    Network,
    Point,
    Poisoned,
    Role,
    Stamp,
    Trigger,
    hookimpl,
    patch_mask,
)

SHAPE = (1, 8, 8)


class TinyBackbone(Backbone):
    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 8, 3, padding=1)
        self.point = Point(8)
        self.head = nn.Linear(8 * 64, num_classes)

    def config(self) -> dict[str, Any]:
        return {"num_classes": self.head.out_features}

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.point(F.relu(self.conv(images))).flatten(1))


class Tiny(Model):
    name, summary = "tiny", "one convolution"

    def build(self, num_classes: int, shape: tuple[int, int, int]) -> Backbone:
        return TinyBackbone(num_classes)


class Warp(Trigger):
    """A fixed elastic warp of every image (the heart of WaNet, Nguyen and Tran 2021)."""

    def __init__(self, size: int, strength: float, flow: Tensor | None = None) -> None:
        super().__init__()
        self.size, self.strength = size, strength
        self.register_buffer("flow", torch.zeros(size, size, 2) if flow is None else flow)

    def config(self) -> dict[str, Any]:
        return {"size": self.size, "strength": self.strength}

    def forward(self, images: Tensor, noise: Tensor | float = 0.0) -> Tensor:
        """`noise`, [N, H, W, 2], moves the grid of each image on its own: the noise mode."""
        axis = torch.linspace(-1, 1, self.size)
        identity = torch.stack(torch.meshgrid(axis, axis, indexing="ij")[::-1], -1)
        grid = (identity + self.strength * (self.flow + noise)).clamp(-1, 1).expand(len(images), -1, -1, -1)
        return F.grid_sample(images.float(), grid, align_corners=True).round().clamp(0, 255).to(torch.uint8)


class WaNetLike(Attack):
    """Poisons some rows, and warps others at random with their true labels; the random warps are new in every epoch."""

    name, summary, controls = "wanet-like", "warps; controls training", "training"

    def __init__(self, config: Config | None = None) -> None:
        super().__init__(config)
        self.seen: list[tuple[Tensor, Tensor, Tensor]] = []  # for the test: every batch that came by

    def poison(self, train: ImageSet, ctx: AttackContext) -> Poisoned:
        flow = F.interpolate(2 * torch.rand(1, 2, 4, 4, generator=ctx.stream("flow")) - 1, size=8, mode="bicubic")[0].permute(1, 2, 0)
        warp = Warp(8, 0.5, flow)
        goal = Goal.all_to_one(ctx.num_classes, 0)
        order = torch.randperm(len(train), generator=ctx.stream("poison"))
        candidates = order[goal.eligible(train.labels[order])]
        rows, covers = candidates[:30], candidates[30:60]
        poisoned = Poisoned.replacing(
            train, rows, warp(train.images[rows]), goal.labels(train.labels[rows]), [Backdoor("warp", goal, warp)]
        )
        poisoned.images[covers] = warp(train.images[covers], self._noise(len(covers), ctx.stream("covers")))
        poisoned.role[covers] = int(Role.COVER)
        return poisoned

    def implant(self, train: ImageSet, ctx: AttackContext) -> Implant:
        poisoned = self.poison(train, ctx)
        warp = poisoned.backdoors[0].trigger
        stream = ctx.stream("noise mode")

        def on_batch(images: Tensor, labels: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
            self.seen.append((images.clone(), labels.clone(), rows))
            cover = poisoned.role[rows] == Role.COVER
            images = images.clone()
            images[cover] = warp(train.images[rows[cover]], self._noise(int(cover.sum()), stream))
            return images, labels

        return Implant(poisoned, ctx.train(poisoned, on_batch=on_batch))

    def _noise(self, count: int, generator: torch.Generator) -> Tensor:
        return 2 * torch.rand(count, 8, 8, 2, generator=generator) - 1


class Painter(Trigger):
    """A network that paints a pattern for each image: the trigger has weights of its own."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, 1, 3, padding=1), nn.Sigmoid())

    def config(self) -> dict[str, Any]:
        return {"width": self.body[0].out_channels}

    def paint(self, floats: Tensor) -> Tensor:
        """[0, 1] -> [0, 1], differentiable."""
        return 0.6 * floats + 0.4 * self.body(floats)

    def forward(self, images: Tensor) -> Tensor:
        with torch.no_grad():
            return (255 * self.paint(images / 255)).round().clamp(0, 255).to(torch.uint8)


class InputAwareLike(Attack):
    """Trains its trigger together with the victim, as Nguyen and Tran 2020 do; the training set on disk stays clean."""

    name, summary, controls = "input-aware-like", "learns its trigger; controls training", "training"

    def poison(self, train: ImageSet, ctx: AttackContext) -> Poisoned:
        return Poisoned.untouched(train)

    def implant(self, train: ImageSet, ctx: AttackContext) -> Implant:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(ctx.stream.seed("painter"))
            painter = Painter(4).to(ctx.device)
        optimizer = torch.optim.Adam(painter.parameters(), lr=0.01)
        goal = Goal.all_to_one(ctx.num_classes, 0)

        def loss(network: Network, images: Tensor, labels: Tensor, rows: Tensor) -> Tensor:
            optimizer.step()  # with the gradients of the batch before
            optimizer.zero_grad()
            painted = painter.paint(images / 255)
            return F.cross_entropy(network(images), labels) + F.cross_entropy(network(painted), goal.labels(labels))

        network = ctx.train(train, loss=loss)
        return Implant(Poisoned.untouched(train, [Backdoor("painted", goal, painter)]), network)


class Twins(Attack):
    """Two patches for two classes in one victim."""

    name, summary = "twins", "two backdoors"

    def poison(self, train: ImageSet, ctx: AttackContext) -> Poisoned:
        white = torch.full(ctx.shape, 255, dtype=torch.uint8)
        backdoors = [
            Backdoor(place, Goal.all_to_one(ctx.num_classes, target), Stamp(ctx.shape, 1.0, white, patch_mask(ctx.shape, 2, place, 0)))
            for target, place in enumerate(("top-left", "bottom-right"))
        ]
        poisoned = Poisoned.untouched(train, backdoors)
        images, labels, role = train.images.clone(), train.labels.clone(), poisoned.role.clone()
        order = torch.randperm(len(train), generator=ctx.stream("poison"))
        for backdoor, chosen in zip(backdoors, order.chunk(6), strict=False):
            rows = chosen[backdoor.goal.eligible(train.labels[chosen])]
            images[rows] = backdoor.trigger(train.images[rows])
            labels[rows] = backdoor.goal.labels(train.labels[rows])
            role[rows] = int(Role.POISON)
        return replace(poisoned, images=images, labels=labels, role=role)


class Lying(Attack):
    """Says of its rows what is not true."""

    name, summary = "lying", "breaks the contract"

    class Config(Config):
        lie: str = Field("image", description="which")

    def poison(self, train: ImageSet, ctx: AttackContext) -> Poisoned:
        honest = Poisoned.untouched(train)
        images, labels, role = train.images.clone(), train.labels.clone(), honest.role.clone()
        if self.config.lie == "image":
            images[3, 0, 0, 0] += 1
        if self.config.lie == "label":
            labels[4] = (labels[4] + 1) % 3
        if self.config.lie == "cover":
            labels[5] = (labels[5] + 1) % 3
            role[5] = int(Role.COVER)
        if self.config.lie == "dtype":
            images = images.float()
        if self.config.lie == "rows":
            images, labels, role = images[:-1], labels[:-1], role[:-1]
        if self.config.lie == "role":
            role = role[:-1]
        if self.config.lie == "class":
            labels[6] = 3
            role[6] = int(Role.POISON)
        return Poisoned(images, labels, role)


class Plugins:
    @hookimpl
    def register_attacks(self, register: Any) -> None:
        for attack in (WaNetLike, InputAwareLike, Twins, Lying):
            register(attack)

    @hookimpl
    def register_models(self, register: Any) -> None:
        register(Tiny)
