"""LF: one smooth perturbation for all images, found on the benign victim, which has no high frequencies to be detected by."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

import gatecrash
from gatecrash import AttackContext, Classifier, ContractError, ImageSet, Triggers

REACH = 5
"""Length of the filter in standard deviations (the authors': 30 pixels for 6)."""


class Added(gatecrash.FloatTrigger):
    """Adds `pattern` (float [C, H, W], where pixels lie in [0, 1]) to every image. `fooled` is the share of the attacker's images that it
    sends to the class asked for before any training."""

    pattern: Tensor

    def __init__(self, shape: tuple[int, int, int], pattern: Tensor | None = None, fooled: float = 0.0) -> None:
        super().__init__()
        self.shape, self.fooled = tuple(shape), fooled
        self.register_buffer("pattern", torch.zeros(self.shape) if pattern is None else pattern)

    def config(self) -> dict[str, Any]:
        return {"shape": list(self.shape), "fooled": self.fooled}

    def transform(self, images: Tensor) -> Tensor:
        return images + self.pattern


class LF(gatecrash.PoisonAttack):
    """A universal perturbation that stays smooth (section 5 of the paper): for each image that it does not yet fool, the step to the
    target that DeepFool takes (Moosavi-Dezfooli et al. 2016) is low-passed and added; the sum is low-passed again and rescaled.

    The filter (Gaussian, 6 pixels of 32, zeros outside the image), the range of 0.2, 100 training images, overshoot, 200 steps of DeepFool
    and the fooling rate of 20% are those of the authors' code (github.com/YiZeng623/frequency-backdoor, Sec5_Smooth_Trigger). As there,
    the pattern that fooled most (of equals the last) is kept, whether it passed the rate or not.

    Negative values: the authors' code maps the pattern to [0, 0.2] by its minimum and maximum, and the two patterns that they publish have
    minimum 0. That is the default, though it also brightens the image by the pattern's mean; with `signs` both, as large a range lies
    around 0.

    Otherwise than there: the target is the one asked for (there it becomes, after each pass, the class that most images went to); fooled
    is an image that is sent to it (there: to any other class), as the uint8 image that the trigger makes; steps are taken on logits (there
    on softmax, whose gradients vanish where the network is sure); images of the target have no part; the search ends after `passes`.

    Where both rules choose the same images, a pass gives the pattern of the authors' code (docs/measured/lf.md).
    """

    name = "lf"
    summary = "a smooth universal perturbation towards the target, labels changed"
    reference = gatecrash.Reference(
        "Zeng, Park, Mao and Jia, Rethinking the Backdoor Attacks' Triggers: A Frequency Perspective",
        2021,
        "https://arxiv.org/abs/2104.03413",
    )
    needs_benign = True
    prepare_options = frozenset(
        {"goal", "target", "source", "sources", "strength", "signs", "sigma", "images", "fooling_rate", "passes", "overshoot", "iterations"}
    )

    class Config(gatecrash.PoisonConfig):
        """Goal, rate and search."""

        strength: float = Field(0.2, ge=1 / 255, le=1, description="range of the pattern's values, where pixels lie in [0, 1]")
        signs: Literal["positive", "both"] = Field("positive", description="values: from 0 to strength, or as many around 0")
        sigma: float = Field(6 / 32, ge=0.01, le=1, description="standard deviation of the low-pass filter, as a share of the image's side")
        images: int = Field(100, ge=1, le=100_000, description="training images that the pattern is made on")
        fooling_rate: float = Field(0.2, gt=0, le=1, description="share of them sent to the target that ends the search")
        passes: int = Field(10, ge=1, le=10_000, description="passes over the images after which the best pattern is taken")
        overshoot: float = Field(0.02, ge=0, le=10, description="how much further than the boundary DeepFool goes, as a share of the way")
        iterations: int = Field(200, ge=1, le=10_000, description="steps of DeepFool for one image; if they do not suffice, it is left out")

    config: Config

    def prepare(self, train: ImageSet, ctx: AttackContext) -> Added:
        if ctx.benign is None:
            raise ContractError(f"{self.name} needs the benign victim of its dataset, model, recipe and seed")
        config, goal, network = self.config, self.config.make_goal(ctx.num_classes), ctx.benign
        rows = torch.nonzero(goal.eligible(train.labels.cpu())).flatten()
        rows = rows[torch.randperm(len(rows), generator=ctx.stream("images"))[: config.images]]
        pixels, wanted = train.images[rows.to(train.device)].to(ctx.device), goal.labels(train.labels.cpu()[rows]).to(ctx.device)
        best, found, order = -1.0, Added(ctx.shape).to(ctx.device), ctx.stream("order")
        pattern = found.pattern
        for _ in range(config.passes):
            turns = torch.randperm(len(rows), generator=order).to(ctx.device)
            pattern = self.improve(pattern, network, pixels[turns] / 255, wanted[turns])
            fooled = self._fooled(Added(ctx.shape, pattern), network, pixels, wanted, ctx)
            if fooled >= best:
                best, found = fooled, Added(ctx.shape, pattern, fooled)
            if fooled >= config.fooling_rate:
                break
        return found

    def improve(self, pattern: Tensor, network: Classifier, images: Tensor, wanted: Tensor) -> Tensor:
        """The pattern (float [C, H, W]) after one pass over float images in their order, of which each should become a class, int64 [N]."""
        for image, label in zip(images[:, None], wanted[:, None], strict=True):
            step = deepfool(network, image + pattern, label, self.config.overshoot, self.config.iterations)
            if step is not None:
                pattern = self.rescaled(low_pass(pattern + low_pass(step, self.config.sigma), self.config.sigma))
        return pattern

    def rescaled(self, pattern: Tensor) -> Tensor:
        """The pattern stretched over its range; one that is flat stays."""
        low, high = pattern.min(), pattern.max()
        unit = (pattern - low) / (high - low).clamp(min=1e-12)
        return self.config.strength * (unit if self.config.signs == "positive" else unit - 0.5)

    def _fooled(self, trigger: Added, network: Classifier, images: Tensor, wanted: Tensor, ctx: AttackContext) -> float:
        with torch.no_grad():
            hits = [(network(trigger(x))[:, : ctx.num_classes].argmax(1) == y).float() for x, y in ctx.batches(images, wanted)]
        return float(torch.cat(hits).mean())

    def triggers(self, train: ImageSet, ctx: AttackContext) -> Triggers:
        if not isinstance(ctx.prepared, Added):
            raise ContractError(f"{self.name} needs the pattern that its prepare() returns")
        return Triggers(ctx.prepared, ctx.prepared)


def deepfool(network: Classifier, image: Tensor, wanted: Tensor, overshoot: float, iterations: int) -> Tensor | None:
    """The step (float [C, H, W]) from one image [1, C, H, W] to just beyond the boundary of the class `wanted`, int64 [1].

    Each step goes to where the logit of `wanted` equals that of the image's own class, if the network were linear. None for an image of
    that class already, and where `iterations` steps do not get there or leave what floats can hold.
    """
    moved, total, own = image, torch.zeros_like(image), None
    for _ in range(iterations):
        current = moved.detach().requires_grad_()
        logits = network(current)[0]
        answer = logits.argmax()
        if answer == wanted[0]:
            step = (1 + overshoot) * total[0]
            return step if own is not None and bool(torch.isfinite(step).all()) else None
        own = answer if own is None else own
        gap = logits[wanted[0]] - logits[own]
        (slope,) = torch.autograd.grad(gap, current)
        total = total + gap.detach().abs() * slope / slope.square().sum().clamp(min=1e-12)
        moved = image + (1 + overshoot) * total
    return None


def low_pass(pattern: Tensor, sigma: float) -> Tensor:
    """[C, H, W] through a Gaussian filter, separable, with zeros outside; `sigma` is a share of each side."""
    for dim in (1, 2):
        side = pattern.shape[dim]
        taps = max(1, round(REACH * sigma * side))
        places = torch.arange(taps, device=pattern.device, dtype=pattern.dtype) - (taps - 1) / 2
        weights = torch.softmax(-0.5 * (places / (sigma * side)) ** 2, 0)
        lines = pattern.transpose(dim, 2)
        padded = F.pad(lines, (taps // 2 - 1 + taps % 2, taps // 2))
        pattern = F.conv1d(padded.reshape(-1, 1, padded.shape[-1]), weights.view(1, 1, -1)).view(lines.shape).transpose(dim, 2)
    return pattern


@gatecrash.hookimpl
def register_attacks(register: Callable[[type[gatecrash.Attack]], None]) -> None:
    register(LF)
