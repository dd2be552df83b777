"""The physical trigger: a large patch that is learnt to work wherever it lies."""

from __future__ import annotations

from collections.abc import Callable

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from gatecrash import ContractError, Network, Options, Reference, TriggerContext, TriggerMaker, UserError, hookimpl
from gatecrash_plugins.triggers.patch import MovingStamp, paste


class PhysicalMaker(TriggerMaker):
    """A patch that the benign victim takes for the target class in any place, as an adversarial patch (Brown et al., section 2).

    Minimised is the cross-entropy to `target` over training images of other classes, each with the patch in a place of its own, by Adam
    from a grey patch; pixels stay in [0, 1]. Then the patch lies on each image where the image's own draw puts it. Rate, steps and 10x10
    pixels are a course's; it minimises the *negative* cross-entropy on noise and in one place, which drives the patch away from the target.
    Of the paper's transformations, rotation and scale are left out. Give the attack's `target` here as well: a trigger does not know it.
    Validated on a classifier whose best patch is known.
    """

    name = "physical"
    summary = "a learnt patch that works wherever it lies"
    reference = Reference("Brown, Mané, Roy, Abadi and Gilmer, Adversarial Patch", 2017, "https://arxiv.org/abs/1712.09665")
    needs_data = True
    needs_benign = True

    class Config(Options):
        """The patch, and how it is learnt."""

        target: int = Field(0, ge=0, description="class that the patch is learnt for, by number: the attack's target")
        size: int = Field(10, ge=1, le=1024, description="side of the patch in pixels")
        steps: int = Field(100, ge=1, le=100_000, description="steps of Adam")
        lr: float = Field(0.01, gt=0, le=1, description="learning rate of Adam, where pixels lie in [0, 1]")
        batch_size: int = Field(64, ge=1, le=4096, description="training images in a step")

    config: Config

    def check(self, shape: tuple[int, int, int]) -> None:
        MovingStamp(shape, self.config.size)

    def make(self, ctx: TriggerContext) -> MovingStamp:
        if ctx.benign is None or ctx.train is None:
            raise ContractError(f"{self.name} needs the training set and the benign victim of its dataset, model, recipe and seed")
        if self.config.target >= ctx.benign.num_classes:
            raise UserError(f"{self.name}: target class {self.config.target} does not exist; there are {ctx.benign.num_classes} classes")
        images = ctx.train.images[ctx.train.labels != self.config.target]
        patch = self.learnt(ctx.benign, images, ctx)
        return MovingStamp(ctx.shape, self.config.size, patch=(255 * patch).round().to(torch.uint8).cpu())

    def learnt(self, network: Network, images: Tensor, ctx: TriggerContext) -> Tensor:
        """float [C, size, size] in [0, 1], on the context's device: the patch, learnt on `images` uint8 [N, C, H, W]."""
        config, generator = self.config, ctx.stream("physical patch")
        patch = torch.full((ctx.shape[0], config.size, config.size), 0.5, device=ctx.device, requires_grad=True)
        opacity = torch.ones(config.size, config.size, device=ctx.device)
        wanted = torch.full((config.batch_size,), config.target, device=ctx.device)
        adam = torch.optim.Adam([patch], lr=config.lr)
        for _ in range(config.steps):
            rows = torch.randint(len(images), (config.batch_size,), generator=generator).to(images.device)
            draws = torch.rand(config.batch_size, 2, generator=generator).to(ctx.device)
            shown = paste(images[rows].to(ctx.device) / 255, patch, opacity, draws)
            (patch.grad,) = torch.autograd.grad(F.cross_entropy(network(shown), wanted), patch)
            adam.step()
            with torch.no_grad():
                patch.clamp_(0, 1)
        return patch.detach()


@hookimpl
def register_triggers(register: Callable[[type[TriggerMaker]], None]) -> None:
    register(PhysicalMaker)
