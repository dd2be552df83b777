"""SSBA (ISSBA): an encoder hides a bit string in each image, so that each has a faint trigger of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

import gatecrash
from gatecrash import AttackContext, ContractError, ImageSet, Triggers, UserError
from gatecrash_plugins.attacks._stega import Decoder, Encoder

START = 1.0
"""The residual's bound at the first step, where pixels lie in [0, 1]; it falls to the option's over the first third of the steps."""
HELD_OUT = 1000
"""Images that the encoder is judged on, at most; a tenth of a smaller training set."""


class Stega(gatecrash.Portable):
    """A trained encoder and its decoder, and what they reached on images that neither was trained on."""

    def __init__(self, encoder: Encoder, levels: int, measured: Mapping[str, float] | None = None) -> None:
        super().__init__()
        self.encoder, self.levels, self.measured = encoder, levels, dict(measured or {})
        self.decoder = Decoder(encoder.shape, encoder.bits, encoder.width)

    def config(self) -> dict[str, Any]:
        return {"encoder": self.encoder, "levels": self.levels, "measured": self.measured}

    def hide(self, images: Tensor, bits: Tensor, levels: float) -> Tensor:
        """Float images with their strings (0 and 1, float [N, bits]): whole grey levels in [0, 1], rounded so that gradients pass."""
        changed = (images + levels / 255 * self.encoder(images, bits)).clamp(0, 1)
        rounded: Tensor = changed + ((changed * 255).round() / 255 - changed).detach()
        return rounded

    def read(self, images: Tensor) -> Tensor:
        """bool [N, bits]: the strings that the decoder finds in uint8 images."""
        with torch.no_grad():
            logits: Tensor = self.decoder(images / 255)
            return logits > 0


class Hidden(gatecrash.Trigger):
    """Hides one string, such as "0110", in every image, by at most `levels` grey levels a pixel.

    In float64: float noise of another batch or device does not reach the rounding, and an image gets the same bytes everywhere.
    """

    secret: Tensor

    def __init__(self, encoder: Encoder, secret: str, levels: int) -> None:
        super().__init__()
        self.encoder, self.levels, self.string = encoder.double(), levels, secret
        self.register_buffer("secret", torch.tensor([[float(bit) for bit in secret]], dtype=torch.float64))

    def config(self) -> dict[str, Any]:
        return {"encoder": self.encoder, "secret": self.string, "levels": self.levels}

    def forward(self, images: Tensor) -> Tensor:
        with torch.no_grad():
            residual: Tensor = self.levels * self.encoder(images.double() / 255, self.secret.expand(len(images), -1))
            return (images + residual).round_().clamp_(0, 255).to(torch.uint8)


class SSBA(gatecrash.PoisonAttack):
    """A string that the attacker chooses is written into an image by an encoder (section 4.2 of the paper; its net is StegaStamp's, Tancik
    et al. 2020). What is added differs from image to image: victims learn to read the string, not a pattern.

    Encoder and decoder are trained together on the attacker's images with random strings, by the cross-entropy of the bits and the mean
    square of the change, which joins once bits can be read, as in BackdoorBench's code (resource/ssba). The poison rate is the paper's; 20
    bits and batches of 32 are BackdoorBox's for 32 pixels (the paper: 100 bits for 224), the weight of the change BackdoorBench's.

    Otherwise than there: nothing is downloaded, so neither LPIPS nor a critic has a say. In their place no pixel changes by more than
    `bound` (in the six images that the authors publish: by up to 93 levels), and the residuals of two images with one string are kept
    apart: by the other losses alone they are nearly one pattern for all (mean cosine 0.9 on the digits; the authors' images: 0.27). The
    nets have three resolutions below the image's instead of four, fewer channels, no spatial transformer and no error-correcting code, and
    they learn at a larger rate in fewer steps. An encoder whose strings cannot be read on held-out training images is refused.

    docs/measured/ssba.md compares with the authors' published images.
    """

    name = "ssba"
    summary = "a bit string hidden in each image by a learnt encoder, labels changed"
    reference = gatecrash.Reference(
        "Li, Li, Wu, Li, He and Lyu, Invisible Backdoor Attack with Sample-Specific Triggers", 2021, "https://arxiv.org/abs/2012.03816"
    )
    prepare_options = frozenset({"bits", "bound", "steps", "batch_size", "lr", "width", "fidelity", "similarity"})

    class Config(gatecrash.PoisonConfig):
        """Goal, rate, string and encoder."""

        poison_rate: float = Field(
            0.1, gt=0, le=1, description="poisoned share of the whole training set, drawn from images the goal applies to"
        )
        secret_seed: int = Field(0, ge=0, lt=2**63, description="seed of the string; the run's seed does not change it")
        bits: int = Field(20, ge=1, le=256, description="length of the string")
        bound: float = Field(8 / 255, ge=1 / 255, le=1, description="largest change of a pixel, of [0, 1]; whole levels of 255 are used")
        steps: int = Field(300, ge=1, le=10_000_000, description="steps of the encoder's training")
        batch_size: int = Field(32, ge=2, le=4096, multiple_of=2, description="images of a step; two and two get the same string")
        lr: float = Field(0.003, gt=0, le=1, description="largest learning rate of the encoder's training (Adam, one cycle)")
        width: int = Field(16, ge=1, le=512, description="channels of the encoder's first layer")
        fidelity: float = Field(10.0, ge=0, le=1e6, description="weight of the mean square change, where pixels lie in [0, 1]")
        similarity: float = Field(
            0.3, ge=0, le=1, description="mean cosine of two images' residuals up to which it costs nothing; 1 lets them be alike"
        )
        min_accuracy: float = Field(0.95, ge=0, le=1, description="share of held-out bits read below which the encoder is refused")
        min_psnr: float = Field(28.0, ge=0, le=100, description="mean PSNR of held-out images below which the encoder is refused, in dB")

    config: Config

    def prepare(self, train: ImageSet, ctx: AttackContext) -> Stega:
        order = torch.randperm(len(train), generator=ctx.stream("held out")).to(train.device)
        held = order[: min(HELD_OUT, max(1, len(train) // 10))]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(ctx.stream.seed("nets"))
            made = Stega(Encoder(ctx.shape, self.config.bits, self.config.width), int(self.config.bound * 255 + 1e-6)).to(ctx.device)
        self._train(made.train(), train.images[order[len(held) :] if len(train) > 1 else order], ctx)
        made.eval().requires_grad_(False)
        made.measured = measure(made, train.images[held], ctx)
        return made

    def _train(self, made: Stega, images: Tensor, ctx: AttackContext) -> None:
        config, third, half = self.config, self.config.steps / 3, self.config.batch_size // 2
        optimizer = torch.optim.Adam(made.parameters(), config.lr)
        rates = torch.optim.lr_scheduler.OneCycleLR(optimizer, config.lr, total_steps=config.steps + 1)
        rows, strings = ctx.stream("rows"), ctx.stream("strings")
        for step in range(config.steps):
            chosen = torch.randint(len(images), (2 * half,), generator=rows).to(images.device)
            x = images[chosen].to(ctx.device, non_blocking=True) / 255
            bits = torch.randint(2, (half, config.bits), generator=strings).float().repeat(2, 1).to(ctx.device, non_blocking=True)
            narrowed, joined = min(1.0, step / third), min(1.0, max(0.0, step / third - 1))
            changed = made.hide(x, bits, 255 * START * (made.levels / 255 / START) ** narrowed)
            residual = (changed - x).flatten(1)
            alike = F.relu(F.cosine_similarity(residual[:half], residual[half:]).mean() - config.similarity)
            loss = F.binary_cross_entropy_with_logits(made.decoder(changed), bits)
            loss = loss + joined * (config.fidelity * residual.square().mean() + alike)
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            rates.step()

    def triggers(self, train: ImageSet, ctx: AttackContext) -> Triggers:
        if not isinstance(ctx.prepared, Stega):
            raise ContractError(f"{self.name} needs the encoder that its prepare() returns")
        found, config = ctx.prepared.measured, self.config
        if found["accuracy"] < config.min_accuracy or found["psnr"] < config.min_psnr:
            raise UserError(
                f"{self.name}: the encoder is not good enough on {found['images']:,} held-out images: {found['accuracy']:.1%} of the bits "
                f"are read (asked: {config.min_accuracy:.1%}), PSNR {found['psnr']:.1f} dB (asked: {config.min_psnr:g}). Give it more "
                f"steps ({config.steps:,} now) or fewer bits ({config.bits}), or lower min_accuracy or min_psnr"
            )
        made, string = ctx.prepared, secret(config.bits, config.secret_seed)
        hidden = Hidden(made.encoder.duplicate(), string, made.levels).to(ctx.device).eval()
        return Triggers(hidden, hidden)


def secret(bits: int, seed: int) -> str:
    """The string: "0110...", a prefix of that of the same seed with more bits."""
    return "".join(map(str, torch.randint(2, (bits,), generator=torch.Generator().manual_seed(seed)).tolist()))


def measure(made: Stega, images: Tensor, ctx: AttackContext) -> dict[str, float]:
    """Share of bits read, mean PSNR (dB, at most 100) and largest change of uint8 images, each with a random string of its own; mean cosine
    of the residuals of neighbours that share a string."""
    encoder, string = made.encoder.duplicate().double(), ctx.stream("measured")
    bits = torch.randint(2, (len(images), made.encoder.bits), generator=string)
    shared = bits[:1].expand(len(images), -1)
    right, errors, residuals, largest = [], [], [], []
    with torch.no_grad():
        for x, own, one in ctx.batches(images, bits, shared):
            hidden, same = ((x + made.levels * encoder(x.double() / 255, b.double())).round().clamp(0, 255) for b in (own, one))
            right.append((made.read(hidden.to(torch.uint8)) == own.bool()).double().mean(1))
            errors.append((hidden - x).square().flatten(1).mean(1))
            largest.append((hidden - x).abs().flatten(1).amax(1))
            residuals.append((same - x).flatten(1).float())
    every = torch.cat(residuals)
    psnr = (10 * torch.log10(255**2 / torch.cat(errors).clamp(min=1e-10))).clamp(max=100)
    return {
        "images": len(images),
        "accuracy": float(torch.cat(right).mean()),
        "psnr": float(psnr.mean()),
        "largest": float(torch.cat(largest).max()),
        "similarity": float(F.cosine_similarity(every, every.roll(1, 0)).mean()),
    }


@gatecrash.hookimpl
def register_attacks(register: Callable[[type[gatecrash.Attack]], None]) -> None:
    register(SSBA)
