"""Input-Aware: generators draw a trigger for each image, which works on that image and on no other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

import gatecrash
from gatecrash import AttackContext, Backdoor, ImageSet, Implant, Network, Poisoned, defender_sample

DONORS = 64
"""Training images whose triggers the cross trigger lends."""


class Generator(nn.Sequential):
    """What it draws for images float [N, C, H, W] in [0, 1], in [0, 1]: the authors' U shape without shortcuts."""

    def __init__(self, channels: int, width: int, out: int) -> None:
        def block(before: int, after: int) -> list[nn.Module]:
            return [nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after, momentum=0.05), nn.ReLU()]

        a, b, c = width, 2 * width, 4 * width
        layers: list[nn.Module] = []
        for before, after in ((channels, a), (a, b), (b, c)):
            layers += [*block(before, after), *block(after, after), nn.MaxPool2d(2, ceil_mode=True)]
        layers += block(c, c)
        for before, after in ((c, b), (b, a), (a, out)):
            layers += [nn.Upsample(scale_factor=2, mode="bilinear"), *block(before, before), *block(before, after)]
        super().__init__(*layers[:-1])

    def forward(self, images: Tensor) -> Tensor:
        height, width = images.shape[2:]
        drawn: Tensor = super().forward(4 * images - 2)  # type: ignore[no-untyped-call]
        return drawn[..., :height, :width].float().tanh() / 2 + 0.5


class Generated(gatecrash.FloatTrigger):
    """`x + (p - x) m` (equation 5): the pattern p and the mask m are drawn for the image itself or, where there are `donors`, for the one
    that the sum of its pixels chooses: the cross trigger, which must do nothing."""

    donors: Tensor

    def __init__(self, shape: tuple[int, int, int], width: int, donors: int = 0) -> None:
        super().__init__()
        self.options = {"shape": list(shape), "width": width, "donors": donors}
        self.pattern, self.mask = Generator(shape[0], width, shape[0]), Generator(shape[0], width, 1)
        self.register_buffer("donors", torch.zeros(donors, *shape))

    def config(self) -> dict[str, Any]:
        return self.options

    def masks(self, images: Tensor) -> Tensor:
        drawn: Tensor = self.mask(images)
        return (20 * drawn - 10).tanh() / 2 + 0.5

    def onto(self, images: Tensor, sources: Tensor) -> tuple[Tensor, Tensor]:
        """The images under the triggers of the sources, and the patterns of these."""
        patterns = self.pattern(sources)
        return images + (patterns - images) * self.masks(sources), patterns

    def transform(self, images: Tensor) -> Tensor:
        chosen = (images * 255).round().flatten(1).sum(1).long() % max(1, len(self.donors))
        return self.onto(images, self.donors[chosen] if len(self.donors) else images)[0]


def diversity(images: tuple[Tensor, Tensor], made: tuple[Tensor, Tensor]) -> Tensor:
    """Mean distance of two images over that of what is drawn for them (equation 6); distances are root mean squares."""
    far, apart = ((one - two).square().flatten(1).mean(1).add(1e-12).sqrt() for one, two in (images, made))
    return (far / (apart + 1e-7)).mean()


class InputAware(gatecrash.Attack):
    """The mask's generator is trained first, then the pattern's together with the victim (section 3.3).

    Of each batch `rate` get their own trigger and the label that the attacker wants, and as many the trigger of another image and keep
    theirs. What the victim was trained on changed with every step: a defender holds rows under the finished triggers.

    One step gives the weights of the authors' code (github.com/VinAIResearch/input-aware-backdoor-attack-release), and 60 epochs on the
    digits its rates (docs/measured.md); the published ones took 600 epochs of 50,000 images. Otherwise than there, each step of the pattern
    generator has gradients of its own (they are never cleared there), its rate does not fall (there first at epoch 200), the victim is
    trained by the grid's recipe, and the mask's generator sees images without augmentation.
    """

    name = "input-aware"
    summary = "a trigger drawn for each image, by generators trained with the victim"
    reference = gatecrash.Reference("Nguyen and Tran, Input-Aware Dynamic Backdoor Attack", 2020, "https://arxiv.org/abs/2010.08138")
    version = 2
    controls = "training"

    class Config(gatecrash.GoalConfig):
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

    def check(self, info: gatecrash.DatasetInfo) -> None:
        self.config.make_goal(info.num_classes)

    def poison(self, train: ImageSet, ctx: AttackContext) -> Poisoned:
        """Rows under triggers that were never trained: `implant` makes the victim."""
        return Poisoned.untouched(train)

    def implant(self, train: ImageSet, ctx: AttackContext) -> Implant:
        config, goal = self.config, self.config.make_goal(ctx.num_classes)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(ctx.stream.seed("generators"))
            trigger = Generated(ctx.shape, config.width).to(ctx.device)
        self.train_mask(trigger, train, ctx)
        adam = torch.optim.Adam(trigger.pattern.parameters(), config.lr, (0.5, 0.9))

        def loss(network: Network, images: Tensor, labels: Tensor, _rows: Tensor) -> Tensor:
            x, n = images / 255, max(2, round(config.rate * len(images)))  # BatchNorm has no variance over one
            if len(x) < 2 * n:
                return F.cross_entropy(network(x).float(), labels)
            sources = x.roll(-2 * n, 0)[:n]
            attacked, patterns = trigger.onto(x[:n], x[:n])
            cross, lent = trigger.onto(x[n : 2 * n], sources)
            logits = network(torch.cat([attacked, cross, x[2 * n :]])).float()
            wanted = torch.cat([goal.labels(labels[:n]), labels[n:]])
            return F.cross_entropy(logits, wanted) + config.diversity * diversity((x[:n], sources), (patterns, lent))

        def step(_network: Network, optimizer: torch.optim.Optimizer, closure: Callable[[], Tensor], *_batch: Tensor) -> Tensor:
            adam.zero_grad()
            value = closure()
            optimizer.step()
            adam.step()
            return value

        trigger.pattern.train()
        network = ctx.train(train, loss=loss, step=step)
        trigger.eval().requires_grad_(False)
        rows = torch.randperm(len(train), generator=ctx.stream("donors"))[:DONORS].to(train.device)
        cross = Generated(ctx.shape, config.width, len(rows)).to(ctx.device)
        cross.load_state_dict({**trigger.state_dict(), "donors": train.images[rows].to(ctx.device) / 255})
        backdoor = Backdoor(self.name, goal, trigger, cover=cross.eval().requires_grad_(False))
        return Implant(Poisoned.untouched(train, (backdoor,)), network, defender_sample(backdoor, train, ctx, config.rate, config.rate))

    def train_mask(self, trigger: Generated, train: ImageSet, ctx: AttackContext) -> None:
        """In place: `norm` mean relu(m - density) + `diversity` of the masks; the rate falls as in the authors' 25 epochs, at 10 and 20."""
        config, order, batches = self.config, ctx.stream("mask"), max(1, len(train) // ctx.recipe.batch_size)
        adam = torch.optim.Adam(trigger.mask.parameters(), config.lr, (0.5, 0.9))
        rates = torch.optim.lr_scheduler.MultiStepLR(adam, [round(0.4 * config.mask_epochs), round(0.8 * config.mask_epochs)], 0.1)
        trigger.mask.train()
        for _ in range(config.mask_epochs):
            for rows in torch.randperm(len(train), generator=order).to(train.device).tensor_split(batches):
                images = train.images[rows].to(ctx.device, non_blocking=True) / 255
                masks = trigger.masks(images)
                density = F.relu(masks - config.density).mean()
                seen = 4 * images  # the authors' distances of images, but not of masks, are those of what a generator sees
                loss = config.norm * density + config.diversity * diversity((seen, seen.roll(1, 0)), (masks, masks.roll(1, 0)))
                adam.zero_grad()
                torch.autograd.backward(loss)
                adam.step()
            rates.step()
        trigger.mask.eval().requires_grad_(False)


@gatecrash.hookimpl
def register_attacks(register: Callable[[type[gatecrash.Attack]], None]) -> None:
    register(InputAware)
