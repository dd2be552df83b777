"""Narcissus: one small noise that points into the target class, learnt from images of that class and public ones. Labels stay true."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from gatecrash import (
    Attack,
    AttackContext,
    ContractError,
    DatasetInfo,
    DatasetRef,
    ImageSet,
    Network,
    PoisonAttack,
    PoisonConfig,
    Recipe,
    Reference,
    Triggers,
    UserError,
    hookimpl,
)
from gatecrash_plugins.attacks._noise import Noise

LEAST = 1e-4
"""A noise's loss that begins below this is scaled up to it: RAdam, but for its epsilon, follows the same path at any scale. A surrogate
that is sure of its target class has losses down to 1e-40, whose gradients are far below that epsilon."""
EPSILON = 1e-18
"""Of RAdam for the noise; by default 1e-8."""
CYCLES, ANGLES, EACH = 5, 4, 100
"""Made pictures: gratings of 1 to 5 cycles across the image at four angles, each a class of 100."""


class Narcissus(PoisonAttack):
    """Target-class images carry one universal noise; test images carry a multiple of it (section 4 of the paper).

    The attacker knows the images of the target class and public images of other things. A surrogate learns to tell the public classes and
    the target class apart; a few epochs on target images alone adapt it ("poi-warm-up"); then the noise that lowers its loss on target
    images is found by RAdam, within a ball of L-infinity (algorithm 1). Defaults are those of the authors' code
    (github.com/reds-lab/Narcissus) where the options do not name another published value. As there, and where the paper is silent: the
    surrogate normalises by its batches while the noise is found, pixels lie in [-1, 1], the noise itself is not projected but used clamped,
    and it is added behind crop and mirroring.

    Deviations: budgets are scaled down (see the options); crop and mirroring are the grid's; the surrogate is a net of the grid's model;
    poisoned images are rounded to uint8, floats there. Without `public` the surrogate learns from 2,000 gratings that are made here, in 20
    classes: less than what photographs teach, and no published setting.

    From the same surrogate and images the authors' loop finds the same noise, as long as the surrogate is not so sure of its class that the
    loop stands still (docs/measured/narcissus.md): a loss that begins below 1e-4 is scaled here.
    """

    name = "narcissus"
    summary = "one small noise that points into the target class, labels true"
    reference = Reference(
        "Zeng et al., Narcissus: A Practical Clean-Label Backdoor Attack with Limited Information", 2023, "https://arxiv.org/abs/2204.05255"
    )
    clean_label = True

    class Config(PoisonConfig):
        """Public images, budgets, noise, target and rate."""

        goal: Literal["all-to-one", "one-to-one", "many-to-one"] = Field(
            "all-to-one", description="what triggered images become; the noise points into one class"
        )
        poison_rate: float = Field(
            0.005, gt=0, le=1, description="poisoned share of the whole training set, of the target class (published: 0.0005)"
        )
        public: DatasetRef | None = Field(
            None, description="public images, of a data set that is not the grid's; by default made ones (gratings)"
        )
        surrogate_epochs: int = Field(20, ge=1, le=10_000, description="passes of the surrogate's training (published: 200)")
        surrogate_lr: float = Field(0.1, gt=0, le=10, description="its learning rate at the start (SGD, falling to zero)")
        warmup_epochs: int = Field(5, ge=0, le=10_000, description="passes over the target class that adapt the surrogate")
        warmup_lr: float = Field(0.1, gt=0, le=10, description="learning rate of these passes (RAdam)")
        rounds: int = Field(300, ge=1, le=100_000, description="passes over the target class that find the noise (published: 1,000)")
        noise_lr: float = Field(0.01, gt=0, le=10, description="learning rate of the noise (RAdam), of pixels in [-1, 1]")
        epsilon: float = Field(16 / 255, gt=0, le=1, description="largest change of a pixel of a training image, of its range [0, 1]")
        amplification: float = Field(3.0, ge=1, le=100, description="multiple of the noise on test images")
        batch_size: int = Field(350, ge=2, le=65_536, description="images per step, of surrogate and noise")

    config: Config
    prepare_options = frozenset(Config.model_fields) - {"goal", "source", "sources", "poison_rate", "amplification"}

    def check(self, info: DatasetInfo) -> None:
        super().check(info)
        public = self.config.public
        if public is not None and info.name == (public if isinstance(public, str) else next(iter(public))) != "imagefolder":
            raise UserError(f"{self.name}: public: {info.name} is the data set that is attacked; name another one")

    def notes(self, info: DatasetInfo) -> Sequence[str]:
        made = f"{self.name}: the surrogate knows made pictures, no public data; name a data set in the option public"
        return (*super().notes(info), *([made] if self.config.public is None else []))

    def prepare(self, train: ImageSet, ctx: AttackContext) -> Noise:
        """The noise, as it is added to training images."""
        target = self.config.class_number("target", self.config.target, ctx.num_classes)
        own = train.images[train.labels == target]
        if not len(own):
            raise UserError(f"{self.name}: no training image is of target class {target}; choose another target")
        network, label = self.surrogate(own, ctx)
        return Noise(ctx.shape, self.find_noise(network, own, label, ctx).cpu())

    def surrogate(self, own: Tensor, ctx: AttackContext) -> tuple[Network, int]:
        """A network that knows the public classes and, under the label that is given back, the target class `own` uint8 [n, C, H, W]."""
        config, public = self.config, ctx.datasets.get("public") or made_pictures(ctx)
        label, classes = public.num_classes, (*public.classes, "the target")
        labels = torch.full((len(own),), label, device=own.device)
        both = ImageSet(torch.cat([public.images.to(own.device), own]), torch.cat([public.labels.to(own.device), labels]), classes)
        # Of the attacker's images alone: the grid's networks normalise by those of all classes.
        backbone, middle = ctx.new_model("surrogate").backbone.cpu(), [0.5] * ctx.shape[0]
        network = Network(backbone, middle, middle)
        widen(network, len(classes), ctx.stream("head"))
        backbone.start_from(network.normalise(both.images[:: max(1, len(both) // 256)].cpu()))
        recipe = Recipe(epochs=config.surrogate_epochs, lr=config.surrogate_lr, batch_size=config.batch_size)
        ctx.train(both, network=network, recipe=recipe, name="surrogate", diverges=True)
        if config.warmup_epochs:
            radam = torch.optim.RAdam(network.parameters(), config.warmup_lr)

            def step(_network: Network, _optimizer: torch.optim.Optimizer, closure: Callable[[], Tensor], *_batch: Tensor) -> Tensor:
                value = closure()
                radam.step()
                return value

            recipe = Recipe(epochs=config.warmup_epochs, batch_size=config.batch_size)
            ctx.train(ImageSet(own, labels, classes), network=network, recipe=recipe, name="warm-up", step=step, diverges=True)
        return network, label

    def find_noise(self, network: Network, own: Tensor, label: int, ctx: AttackContext) -> Tensor:
        """float [C, H, W], of pixels in [0, 1] and within `epsilon`: what makes `own` uint8 [n, C, H, W] most like `label` to the network,
        whose weights stay as they are (its running statistics do not)."""
        config, radius = self.config, 2 * self.config.epsilon
        noise = torch.zeros(ctx.shape, device=ctx.device, requires_grad=True)
        radam = torch.optim.RAdam([noise], config.noise_lr, eps=EPSILON)

        raised: list[Tensor] = []

        def loss(network: Network, images: Tensor, labels: Tensor, _rows: Tensor) -> Tensor:
            noisy = (images / 255 + noise.clamp(-radius, radius) / 2).clamp(0, 1)
            value = log_cross_entropy(network(noisy).float(), labels)
            if not raised:
                raised.append((math.log(LEAST) - value.detach()).clamp(min=0))
            return (value + raised[0]).exp()

        def step(_network: Network, _optimizer: torch.optim.Optimizer, closure: Callable[[], Tensor], *_batch: Tensor) -> Tensor:
            radam.zero_grad()
            value = closure()
            radam.step()
            return value

        network.requires_grad_(False)
        network.head.weight.requires_grad_(True)  # training needs a parameter; no step changes it
        labels = torch.full((len(own),), label, device=own.device)
        data = ImageSet(own, labels, tuple(str(number) for number in range(label + 1)))
        recipe = Recipe(epochs=config.rounds, batch_size=config.batch_size, precision="float32")
        ctx.train(data, network=network, recipe=recipe, name="noise", loss=loss, step=step, diverges=True)
        return noise.detach().clamp(-radius, radius) / 2

    def triggers(self, train: ImageSet, ctx: AttackContext) -> Triggers:
        if not isinstance(ctx.prepared, Noise):
            raise ContractError(f"{self.name} needs the noise that its prepare() makes")
        noise = ctx.prepared.noise.cpu()
        return Triggers(Noise(ctx.shape, self.config.amplification * noise), Noise(ctx.shape, noise))


def log_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """The logarithm of the mean cross-entropy of float [n, K] and int64 [n], exact where the loss itself is rounded to zero.

    The cross-entropy of an image is `log(1 + exp(d))`, where d is the log of the other classes' summed exponentials less the label's logit.
    """
    others = logits.scatter(1, labels[:, None], -torch.inf).logsumexp(1)
    difference = others - logits.gather(1, labels[:, None])[:, 0]
    # Below -15 the two agree to float32's last digit.
    each = torch.where(difference < -15, difference, F.softplus(difference.clamp(min=-15)).log())
    return each.logsumexp(0) - math.log(len(each))


def widen(network: Network, outputs: int, generator: torch.Generator) -> None:
    """Exchange the head, in place, for an untrained one of so many outputs, initialised as torch does."""
    head, bound = network.head, 1 / math.sqrt(network.head.in_features)
    head.weight = nn.Parameter(bound * (2 * torch.rand(outputs, head.in_features, generator=generator) - 1))
    if head.bias is not None:
        head.bias = nn.Parameter(bound * (2 * torch.rand(outputs, generator=generator) - 1))
    head.out_features = network.num_classes = outputs


def made_pictures(ctx: AttackContext) -> ImageSet:
    """2,000 noisy gratings in the shape of the images, in 20 classes by cycles and angle; colours and phases at random."""
    (channels, height, width), generator = ctx.shape, ctx.stream("pictures")
    labels = torch.arange(CYCLES * ANGLES).repeat_interleave(EACH)
    angle = (labels % ANGLES * math.pi / ANGLES).view(-1, 1, 1)
    down, across = torch.arange(height).view(1, -1, 1) / height, torch.arange(width).view(1, 1, -1) / width
    phase = torch.rand(len(labels), 1, 1, generator=generator)
    turns = (1 + labels // ANGLES).view(-1, 1, 1) * (across * angle.cos() + down * angle.sin()) + phase
    wave = ((2 * math.pi * turns).sin() / 2 + 0.5).unsqueeze(1)
    one, other = torch.rand(2, len(labels), channels, 1, 1, generator=generator)
    pictures = one + (other - one) * wave + 0.1 * torch.randn(len(labels), channels, height, width, generator=generator)
    return ImageSet((255 * pictures).round().clamp(0, 255).to(torch.uint8), labels, tuple(f"grating {k}" for k in range(CYCLES * ANGLES)))


@hookimpl
def register_attacks(register: Callable[[type[Attack]], None]) -> None:
    register(Narcissus)
