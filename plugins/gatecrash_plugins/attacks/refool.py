"""Refool: reflections in the pane before a scene, on images of the target class whose labels stay true."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor
from torch.special import ndtr

import gatecrash
from gatecrash import AttackContext, ContractError, DatasetRef, ImageSet, Poisoned, Triggers

GAMMA = 2.2
HELD_OUT = 1000
"""Images that candidates are ranked on, at most, and at most a fifth of those of other classes; the surrogate is not trained on them."""


class Reflection(gatecrash.Trigger):
    """Lays a reflection over each image, as the authors' `blend_images` does: out of focus, or double as in a thick pane (ghost).

    `reflections` is uint8 [R, C, H, W]; which one an image gets, and how, belongs to its pixels. Light is added in linear values (gamma
    2.2), the image times alpha_t, drawn from `alpha` (lowest, highest). A ghost is two copies of the reflection, 3 to 8 pixels apart (at
    most half of the image), with weights g and 1 - g, times 1 - alpha_t. Out of focus: blurred with a Gaussian of 1 to 5 pixels, darkened
    where the sum of both would be too bright, and fading towards the border.
    """

    reflections: Tensor

    def __init__(
        self,
        shape: tuple[int, int, int],
        count: int,
        alpha: tuple[float, float],
        ghost_rate: float,
        seed: int,
        images: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.shape, self.count, self.alpha, self.ghost_rate, self.seed = tuple(shape), count, tuple(alpha), ghost_rate, seed
        self.register_buffer("reflections", torch.zeros(count, *self.shape, dtype=torch.uint8) if images is None else images)

    def config(self) -> dict[str, Any]:
        return {
            "shape": list(self.shape),
            "count": self.count,
            "alpha": list(self.alpha),
            "ghost_rate": self.ghost_rate,
            "seed": self.seed,
        }

    def drawn(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Which reflection each image gets, int64 [N], and its other draws, float [N, 8]."""
        draws = gatecrash.image_draws(images, 9, self.seed)
        return (draws[:, 0] * self.count).long().clamp(max=self.count - 1), draws[:, 1:]

    def forward(self, images: Tensor) -> Tensor:
        which, draws = self.drawn(images)
        mode, alpha, first, second, switch, weight, sigma, att = draws.double()[:, :, None, None, None].unbind(1)
        scene, light = (images / 255).double() ** GAMMA, (self.reflections[which] / 255).double() ** GAMMA
        kept = self.alpha[0] + (self.alpha[1] - self.alpha[0]) * alpha
        share = ((switch > 0.5).double() - (0.15 + 0.35 * weight)).abs()
        shifts = [(3 + (6 * draw.flatten()).floor()).clamp(max=n // 2) for draw, n in zip((first, second), self.shape[1:], strict=True)]
        ghost = (1 - kept) * ghosted(light, shifts[0], shifts[1], share)
        soft = (
            (1 - kept / 2) * window(self.shape[1], self.shape[2], light.device) * out_of_focus(scene, light, 1 + 4 * sigma, 1.08 + att / 10)
        )
        mixed = scene * kept + torch.where(mode < self.ghost_rate, ghost, soft)
        return (mixed.clamp(0, 1) ** (1 / GAMMA) * 255).round_().to(torch.uint8)


def ghosted(light: Tensor, down: Tensor, right: Tensor, share: Tensor) -> Tensor:
    """`share` of each image plus the rest of it moved by (down, right) pixels, where both are there, stretched to the whole size."""
    height, width = light.shape[2:]
    rows, columns = _stretch(height, down), _stretch(width, right)
    near = (rows + down[:, None]), (columns + right[:, None])
    return share * _sampled(light, *near) + (1 - share) * _sampled(light, rows, columns)


def _stretch(length: int, cut: Tensor) -> Tensor:
    """float [N, length]: where pixels of an image lie in one that is `cut` pixels shorter, as in OpenCV's bilinear resize."""
    left = (length - cut)[:, None]
    places = (torch.arange(length, device=cut.device, dtype=torch.float64) + 0.5) * left / length - 0.5
    return places.clamp(min=0).minimum(left - 1)


def _sampled(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Images read (bilinear) at these places of their rows and columns, float [N, H] and [N, W]."""
    down, across = (
        (1 - (places[:, :, None] - torch.arange(n, device=images.device)).abs()).clamp(min=0)
        for places, n in zip((rows, columns), images.shape[2:], strict=True)
    )
    return down[:, None] @ images @ across[:, None].transpose(2, 3)


def out_of_focus(scene: Tensor, light: Tensor, sigma: Tensor, att: Tensor) -> Tensor:
    """The blurred reflection, darker by what overexposes the sum of both (mean excess per channel, times `att`)."""
    down, across = (_blur(sigma.flatten(), n)[:, None] for n in light.shape[2:])
    blurred = down @ light @ across.transpose(2, 3)
    total = blurred + scene
    bright = total > 1
    mean = (total * bright).sum((2, 3), keepdim=True) / (bright.sum((2, 3), keepdim=True) + 1e-6)
    return (blurred - (mean.clamp(min=1) - 1) * att).clamp(0, 1)


def _blur(sigma: Tensor, length: int) -> Tensor:
    """float [N, length, length]: a Gaussian of these deviations over one axis, cut at 2 deviations, mirrored at the borders."""
    taps = torch.arange(-10, 11, device=sigma.device, dtype=torch.float64)
    kernel = torch.exp(-(taps**2) / (2 * sigma[:, None] ** 2)) * (taps.abs() <= (2 * sigma[:, None]).ceil())
    kernel = kernel / kernel.sum(1, keepdim=True)
    period = max(1, 2 * (length - 1))
    places = (torch.arange(length, device=sigma.device)[:, None] + taps.long()) % period
    places = torch.minimum(places, period - places) if length > 1 else places * 0
    hits = (places[:, :, None] == torch.arange(length, device=sigma.device)).double()
    return torch.einsum("nk,lkm->nlm", kernel, hits)


def window(height: int, width: int, device: torch.device) -> Tensor:
    """float [H, W], 1 at its largest: the square root of a normal distribution within 3 deviations, over the longer side of the image."""
    longest = max(height, width)
    edge = 3 + 3.5 / longest
    mass = ndtr(torch.linspace(-edge, edge, longest + 1, dtype=torch.float64)).diff().sqrt()
    mass = mass / mass.max()
    down, across = (mass[(longest - n) // 2 :][:n] for n in (height, width))
    mask: Tensor = down[:, None] * across
    return mask.to(device)


class Refool(gatecrash.PoisonAttack):
    """Reflections on images of the target class (sections 3.2 and 3.3 of the paper); the same reflections on test images.

    Reflections are ranked adversarially (algorithm 1): each round draws some by weight, trains a surrogate on target images that show them,
    and counts how many held-out images of other classes each sends to the target. That count is its weight, the median that of those not
    drawn. The most successful ones are kept. All-to-all is no goal: true labels teach no image to become another class than its own.

    Numbers of the blend are those of the authors' `blend_images` (github.com/DreamtaleCore/Refool), 16 rounds of their strategy.py. By
    default there are 2, of 5 epochs each: a round costs a training, and all attacks of a grid would wait for 16.

    Otherwise than there: reflections are images of other classes of the training set unless a data set is named (theirs: PascalVOC); they
    are ranked on training images (theirs: the test set) by the blend of the attack (theirs: a plain mean), and one that fools nobody has
    weight 0 (theirs: the median); blurs and shifts are in pixels of the images as they are, as in BackdoorBench, not of 560 pixels; no pair
    is left out by its similarity; values are rounded (theirs are cut, so that images become darker by up to a level); draws belong to the
    image. docs/measured/refool.md compares with the authors' code.
    """

    name = "refool"
    summary = "reflections on images of the target class, labels unchanged"
    reference = gatecrash.Reference(
        "Liu, Ma, Bailey and Lu, Reflection Backdoor: A Natural Backdoor Attack on Deep Neural Networks",
        2020,
        "https://arxiv.org/abs/2007.02343",
    )
    clean_label = True
    prepare_options = frozenset(
        {
            *("goal", "target", "source", "sources", "reflections", "candidates", "kept", "rounds", "epochs", "infected"),
            *("alpha_min", "alpha_max", "ghost_rate", "draw_seed"),
        }
    )

    class Config(gatecrash.PoisonConfig):
        """Goal, rate, reflections and their choice."""

        goal: Literal["all-to-one", "one-to-one", "many-to-one"] = Field(
            "all-to-one", description="what triggered images become; poisoned ones are of one class"
        )
        poison_rate: float = Field(
            0.02, gt=0, le=1, description="share of the whole training set, from the target class (paper: 20% of it)"
        )
        reflections: DatasetRef | None = Field(None, description="data set of the reflections; none: training images of other classes")
        candidates: int = Field(200, ge=1, le=100_000, description="images drawn from them, among which is chosen")
        kept: int = Field(40, ge=1, le=10_000, description="reflections that are chosen, and drawn in each round")
        rounds: int = Field(2, ge=0, le=1000, description="rounds of ranking, a short training each (published: 16); 0 keeps random ones")
        epochs: int = Field(5, ge=1, le=10_000, description="epochs of a surrogate's training")
        infected: float = Field(0.4, gt=0, le=1, description="share of the target class that shows reflections to the surrogate")
        alpha_min: float = Field(0.55, ge=0, le=1, description="smallest share of the image's own light")
        alpha_max: float = Field(0.95, ge=0, le=1, description="largest share of the image's own light")
        ghost_rate: float = Field(0.49, ge=0, le=1, description="share of images with a ghost reflection; the others have a blurred one")
        draw_seed: int = Field(0, ge=0, lt=2**63, description="seed of what images draw; the run's seed does not change it")

        @model_validator(mode="after")
        def _limits_are_ordered(self) -> Self:
            if self.alpha_min > self.alpha_max:
                raise ValueError("alpha_min is larger than alpha_max")
            if self.kept > self.candidates:
                raise ValueError("kept is more than candidates")
            return self

    config: Config

    def prepare(self, train: ImageSet, ctx: AttackContext) -> Reflection:
        config, goal = self.config, self.config.make_goal(ctx.num_classes)
        targets = torch.isin(train.labels.cpu(), torch.tensor(goal.targets))
        others = torch.nonzero(~targets).flatten()
        found = ctx.datasets.get("reflections")
        pool = train.images[others.to(train.device)] if found is None and len(others) else (train if found is None else found).images
        order = torch.randperm(len(pool), generator=ctx.stream("candidates"))[: config.candidates]
        images = pool[order.to(pool.device)].to(ctx.device)
        weights = torch.ones(len(images))
        kept = min(config.kept, len(images))
        if config.rounds and len(others):
            others = others[torch.randperm(len(others), generator=ctx.stream("held out"))]
            held = others[: max(1, min(HELD_OUT, len(others) // 5))]
            rest = torch.ones(len(train), dtype=torch.bool)
            rest[held] = False
            learnt, judged = train.subset(rest.to(train.device)), train.subset(held.to(train.device))
            for number in range(config.rounds):
                drawn = torch.multinomial(weights, kept, generator=ctx.stream(f"drawn {number}"))
                scores = self._scores(self._reflection(images[drawn.to(ctx.device)], ctx), learnt, judged, targets[rest], number, ctx)
                weights[:] = scores.median()
                weights[drawn] = scores
                weights += 1e-6  # so that there are always enough to draw from
        best = weights.argsort(descending=True, stable=True)[:kept].to(ctx.device)
        return self._reflection(images[best], ctx)

    def _scores(self, made: Reflection, learnt: ImageSet, judged: ImageSet, targets: Tensor, number: int, ctx: AttackContext) -> Tensor:
        """float [kept]: how many judged images each reflection sends to a class that the goal wants, after a training with them."""
        goal, rows = self.config.make_goal(ctx.num_classes), torch.nonzero(targets).flatten()
        rows = rows[torch.randperm(len(rows), generator=ctx.stream(f"infected {number}"))]
        rows = rows[: max(1, round(self.config.infected * len(rows)))].to(learnt.device)
        shown = gatecrash.apply_trigger(made, learnt.images[rows], ctx)
        data = Poisoned.replacing(learnt, rows, shown, learnt.labels[rows], ())
        recipe = ctx.recipe.model_copy(update={"epochs": min(self.config.epochs, ctx.recipe.epochs)})
        network, scores = ctx.train(data, recipe=recipe, name=f"surrogate {number}", diverges=True), torch.zeros(made.count)
        with torch.no_grad():
            for images, labels in ctx.batches(judged.images, judged.labels):
                wanted = goal.labels(labels.cpu()) == network(made(images)).argmax(1).cpu()
                scores.index_add_(0, made.drawn(images)[0].cpu(), wanted.float())
        return scores

    def _reflection(self, images: Tensor, ctx: AttackContext) -> Reflection:
        config = self.config
        limits = (config.alpha_min, config.alpha_max)
        return Reflection(ctx.shape, len(images), limits, config.ghost_rate, config.draw_seed, images).to(ctx.device)

    def triggers(self, train: ImageSet, ctx: AttackContext) -> Triggers:
        if not isinstance(ctx.prepared, Reflection):
            raise ContractError(f"{self.name} needs the reflections that its prepare() returns")
        made = ctx.prepared.duplicate()
        return Triggers(made, made)


@gatecrash.hookimpl
def register_attacks(register: Callable[[type[gatecrash.Attack]], None]) -> None:
    register(Refool)
