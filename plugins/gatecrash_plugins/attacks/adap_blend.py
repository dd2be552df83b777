"""Adap-Blend: poison shows half of a blended pattern, covers too, and test images all of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Self

import torch
from pydantic import Field, model_validator

from gatecrash import Attack, CoverConfig, Reference, Stamp, Trigger, TriggerAttack, TriggerContext, UserError, hookimpl
from gatecrash_plugins.attacks._some_of import SomeOf
from gatecrash_plugins.triggers.blend import BlendMaker


class AdapBlend(TriggerAttack):
    """Adaptive-Blend (section 4 of the paper): poison and covers alike show a random half of the pattern's pieces; covers keep their label.

    So neither is apart from clean images in the network's features, and the whole pattern at test time, a little stronger, is what the
    network never saw. Rates, opacities and pieces are those of the authors' code (github.com/vtu81/backdoor-toolbox; CIFAR-10 and GTSRB).

    Otherwise than there: the pattern is noise from a seed unless an image is given (theirs is a picture); poison is not drawn from the
    target class; which pieces an image shows belongs to its pixels, so that equal images show equal ones; where the pieces do not divide
    the image, none of it is left over. docs/measured/adap-blend.md compares with the authors' code.
    """

    name = "adap-blend"
    summary = "a blended pattern, of which training images show random pieces, with covers"
    reference = Reference(
        "Qi, Xie, Li, Mahloujifar and Mittal, Revisiting the Assumption of Latent Separability for Backdoor Defenses",
        2023,
        "https://openreview.net/forum?id=_wSHsgrVali",
    )

    class Config(BlendMaker.Config, CoverConfig):
        """Pattern, opacities, pieces, goal and rates."""

        poison_rate: float = Field(0.003, gt=0, le=1, description="poisoned share of the whole training set")
        cover_rate: float = Field(0.003, ge=0, lt=1, description="covers' share of the whole training set: they keep their label")
        alpha_train: float = Field(0.15, gt=0, le=1, description="opacity of the pattern on poisoned and cover images")
        alpha_test: float = Field(0.2, gt=0, le=1, description="opacity of the pattern on test images")
        pieces: int = Field(4, ge=1, le=32, description="the pattern is cut into this many rows and columns of pieces")
        masked: int = Field(8, ge=0, le=1023, description="pieces that a training image does not show, another draw for each")

        @model_validator(mode="after")
        def _something_is_left(self) -> Self:
            if self.masked >= self.pieces**2:
                raise ValueError(f"masked must be less than the {self.pieces**2} pieces there are")
            return self

    config: Config

    def trigger(self, shape: tuple[int, int, int]) -> Stamp:
        return BlendMaker(self.config).make(TriggerContext(shape))

    def train_trigger(self, shape: tuple[int, int, int]) -> Trigger:
        whole, side = BlendMaker(self.config).make_train(TriggerContext(shape)), self.config.pieces
        if side > min(shape[1:]):
            raise UserError(f"{self.name}: {side} x {side} pieces are more than an image of {shape[1]} x {shape[2]} has; choose fewer")
        rows, columns = (torch.arange(length) * side // length for length in shape[1:])
        piece = rows[:, None] * side + columns
        weights = whole.alpha * whole.mask * (piece == torch.arange(side**2)[:, None, None])
        return SomeOf(shape, side**2, side**2 - self.config.masked, self.config.pattern_seed, True, whole.pattern, weights)


@hookimpl
def register_attacks(register: Callable[[type[Attack]], None]) -> None:
    register(AdapBlend)
