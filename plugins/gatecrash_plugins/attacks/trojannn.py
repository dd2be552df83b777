"""TrojanNN: a trigger made to excite two units of a finished network, which is then fine-tuned to answer it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from gatecrash import (
    Attack,
    AttackContext,
    ContractError,
    DatasetInfo,
    ImageSet,
    Implant,
    Network,
    NotApplicable,
    Place,
    PoisonAttack,
    PoisonConfig,
    Recipe,
    Reference,
    Stamp,
    Trigger,
    Triggers,
    UserError,
    hookimpl,
    patch_mask,
)
from gatecrash_plugins.attacks._noise import Noise

DRAWN = 32
"""Random patterns that are looked at for each that is optimised."""
SHARE = 0.07
"""The paper's square covers 7% of the image."""


class TrojanNN(PoisonAttack):
    """The attacker owns a finished network: the benign victim of the same dataset, model, recipe and seed.

    The `neurons` units of a layer with the largest sum of |incoming weight| are chosen (section IV.A: those are the easiest to drive);
    the pixels of a square are optimised until each unit's value, on a black image with the square, comes near `value` (algorithm 1); then
    the same network is fine-tuned, behind that layer alone, on clean images and on triggered ones with the label that is wanted (IV.C).

    Budgets of the trigger, the bounded pixels (a sigmoid), Adam with a falling rate and the black background are those of TrojanZoo
    (github.com/ain-soph/trojanzoo); the paper's values of them depend on its face network. The square's size is the paper's. A unit is a
    channel of the layer, its value the mean over positions: what a head behind average pooling gets. There are several starts, since a unit
    behind a ReLU that is silent at first has no gradient.

    Deviations: fine-tuning uses the training set, as TrojanZoo and BackdoorBench do; the paper reconstructs images from the network. Where
    a BatchNorm follows, incoming weights are taken as it scales them: without it the sum says nothing. Both tools sum *outgoing* weights,
    and BackdoorBench then trains another network, to which trigger and units mean nothing.

    From equal weights, units and start TrojanZoo's optimisation ends with the same trigger (docs/measured/trojannn.md).
    """

    name = "trojannn"
    summary = "a trigger that excites chosen units of the benign victim, which is fine-tuned to answer it"
    reference = Reference("Liu et al., Trojaning Attack on Neural Networks", 2018, "https://github.com/PurduePAML/TrojanNN")
    controls = "model"
    needs_benign = True

    class Config(PoisonConfig):
        """Units, trigger, fine-tuning, goal and rate."""

        poison_rate: float = Field(
            0.05, gt=0, le=1, description="triggered share of the images of fine-tuning, drawn from images the goal applies to"
        )
        layer: str | None = Field(None, description="point of the network whose units are excited; by default the last, before the head")
        neurons: int = Field(2, ge=1, le=1000, description="units to excite")
        value: float = Field(100.0, gt=0, le=1e6, description="value that each unit is driven to")
        steps: int = Field(1000, ge=0, le=1_000_000, description="steps of the trigger's optimisation")
        starts: int = Field(
            8, ge=1, le=1000, description="random patterns to start from (the best of 32 times as many); the best end is kept"
        )
        trigger_lr: float = Field(0.1, gt=0, le=100, description="its learning rate at the start (Adam, falling to zero)")
        size: int | None = Field(None, ge=1, le=1024, description="side of the square in pixels; by default 7% of the image's area")
        place: Place = Field("bottom-right", description="where the square lies")
        alpha: float = Field(1.0, gt=0, le=1, description="opacity of the trigger (the paper studies 0.3 to 1)")
        mixing: Literal["replace", "add"] = Field(
            "replace", description="what the trigger does to a pixel: replace it, or be added to it and clipped (as in BackdoorBench)"
        )
        tune: Literal["after-layer", "all"] = Field("after-layer", description="what is fine-tuned: what comes behind the layer, or all")
        epochs: int = Field(10, ge=1, le=10_000, description="passes of the fine-tuning")
        lr: float = Field(0.01, gt=0, le=10, description="its learning rate at the start (SGD with momentum 0.9, falling to zero)")

    config: Config

    def check(self, info: DatasetInfo) -> None:
        super().check(info)
        self.mask(info.shape)

    def mask(self, shape: tuple[int, int, int]) -> Tensor:
        """float [H, W]: ones on the square."""
        side = self.config.size or max(1, round(math.sqrt(SHARE * shape[1] * shape[2])))
        return patch_mask(shape, side, self.config.place, inset=0)

    def triggers(self, train: ImageSet, ctx: AttackContext) -> Triggers:
        network, mask, config = self.start(ctx), self.mask(ctx.shape).to(ctx.device), self.config
        layer = self.layer(network)
        units = strongest_units(network, layer, config.neurons)
        drawn = torch.randn(DRAWN * config.starts, *ctx.shape, generator=ctx.stream("pattern"))
        with torch.no_grad():
            far = [distances(network, layer, units, mask * pixels(batch), config.value) for batch in ctx.batches(drawn)]
        starts = drawn[torch.cat(far).cpu().argsort(stable=True)[: config.starts]].to(ctx.device)
        pattern = excite(network, layer, units, mask, starts, value=config.value, steps=config.steps, lr=config.trigger_lr).cpu()
        mask = mask.cpu()
        trigger: Trigger = Noise(ctx.shape, config.alpha * mask * pattern)
        if config.mixing == "replace":
            trigger = Stamp(ctx.shape, config.alpha, (255 * pattern).round().to(torch.uint8), mask)
        return Triggers(trigger, trigger)

    def start(self, ctx: AttackContext) -> Network:
        """A copy of the benign victim, in eval mode."""
        if ctx.benign is None:
            raise ContractError(f"{self.name} needs the benign victim of its dataset, model, recipe and seed")
        return ctx.benign.duplicate().eval()

    def layer(self, network: Network) -> str:
        """The name of the chosen layer's point."""
        points, layer = network.points, self.config.layer
        if layer is not None and layer not in points:
            raise UserError(f"{self.name}: the network has no layer {layer!r}; choose one of {', '.join(points)}")
        return layer or list(points)[-1]

    def implant(self, train: ImageSet, ctx: AttackContext) -> Implant:
        poisoned, network, config = self.poison(train, ctx), self.start(ctx), self.config
        poisoned.check(train)
        frozen = before(network, self.layer(network)) if config.tune == "after-layer" else []
        for parameter in (parameter for module in frozen for parameter in module.parameters(recurse=False)):
            parameter.requires_grad_(False)

        def step(_network: Network, optimizer: torch.optim.Optimizer, closure: Callable[[], Tensor], *_batch: Tensor) -> Tensor:
            for module in frozen:
                module.training = False  # norms keep their statistics, too
            value = closure()
            optimizer.step()
            return value

        recipe = Recipe(epochs=config.epochs, lr=config.lr, batch_size=ctx.recipe.batch_size)
        network = ctx.train(poisoned, network=network, recipe=recipe, name="fine-tuning", step=step)
        return Implant(poisoned, network.requires_grad_(True), sample=poisoned)


def before(network: Network, layer: str) -> list[nn.Module]:
    """The modules that are defined before the point `layer`, those that hold it aside."""
    modules = list(network.backbone.named_modules())
    last = [name for name, _ in modules].index(layer)
    return [module for name, module in modules[:last] if name and not layer.startswith(f"{name}.")]


def strongest_units(network: Network, layer: str, count: int) -> Tensor:
    """int64 [count]: the channels of the point `layer` with the largest sums of |incoming weight|, the largest first.

    Incoming weights are those of the last convolution or linear layer before the point that has as many outputs, as the BatchNorm that
    follows it scales them in eval mode. Raises NotApplicable where there is none, UserError for more units than there are.
    """
    channels = network.points[layer].channels
    found = [module for module in before(network, layer) if isinstance(module, nn.Conv2d | nn.Linear) and len(module.weight) == channels]
    if not found:
        points = ", ".join(network.points)
        raise NotApplicable(f"no convolution or linear layer leads to the {channels} units of {layer!r}; choose a layer of {points}")
    if count > channels:
        raise UserError(f"trojannn: layer {layer!r} has {channels} units; choose at most so many neurons, not {count}")
    sums = found[-1].weight.detach().abs().flatten(1).sum(1)
    norm = _norm_behind(network, found[-1])
    if norm is not None and norm.running_var is not None:
        sums = sums / (norm.running_var + norm.eps).sqrt() * (norm.weight.detach().abs() if norm.affine else 1)
    return sums.argsort(descending=True, stable=True)[:count]


def _norm_behind(network: Network, module: nn.Module) -> nn.BatchNorm2d | None:
    try:
        pairs = {network.convolutions[pair.convolution]: pair.norm for pair in network.pairs}
    except NotApplicable:
        return None
    name = pairs.get(module)  # type: ignore[call-overload]
    return None if name is None else network.norms[name]


def excite(network: Network, layer: str, units: Tensor, mask: Tensor, starts: Tensor, *, value: float, steps: int, lr: float) -> Tensor:
    """float [C, H, W] in [0, 1]: pixels that, under `mask` float [H, W] on a black image, bring the units of the point `layer` to `value`.

    Minimises the summed squares of the distances (algorithm 1) over numbers that `pixels` maps to [0, 1], with Adam, whose rate falls from
    `lr` to zero as a cosine; from each of `starts` float [n, C, H, W] on its own, of which the nearest is given. `network`, in eval mode,
    stays as it was.
    """
    free = starts.clone().requires_grad_()
    adam = torch.optim.Adam([free], lr)
    rates = torch.optim.lr_scheduler.CosineAnnealingLR(adam, max(1, steps))
    for _ in range(steps):
        (free.grad,) = torch.autograd.grad(distances(network, layer, units, mask * pixels(free), value).sum(), free)
        adam.step()
        rates.step()
    with torch.no_grad():
        return pixels(free[distances(network, layer, units, mask * pixels(free), value).argmin()])


def pixels(free: Tensor) -> Tensor:
    """float in [0, 1] of any numbers."""
    return free.tanh() / 2 + 0.5


def unit_values(network: Network, layer: str, units: Tensor, images: Tensor) -> Tensor:
    """float [N, units]: what the units of the point `layer` say of images float [N, C, H, W] in [0, 1], as means over positions."""
    activations = network.activations(images, [layer])[layer]
    means: Tensor = activations.reshape(*activations.shape[:2], -1).mean(2)
    return means[:, units]


def distances(network: Network, layer: str, units: Tensor, images: Tensor, value: float) -> Tensor:
    """float [N]: summed squares of how far the units are from `value`."""
    return (unit_values(network, layer, units, images) - value).square().sum(1)


@hookimpl
def register_attacks(register: Callable[[type[Attack]], None]) -> None:
    register(TrojanNN)
