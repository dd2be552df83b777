"""TaCT: a trigger that works on one class alone, because covers teach the network to ignore it on others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

import gatecrash
from gatecrash import Goal, Stamp


class TaCT(gatecrash.TriggerAttack):
    """Targeted contamination (section 4 of the paper): triggered images of the source become the target, covers keep their label.

    Covers are images of other classes with the same trigger. Classes and rates are those of github.com/vtu81/backdoor-toolbox; the patch is
    that of badnets. ASR is over the source, leak over all classes that are neither source nor target, those of the covers or not. With
    `cover_rate` 0 it is a source-specific attack without covers.
    """

    name = "tact"
    summary = "a patch that sends one class to the target, with covers from others"
    reference = gatecrash.Reference(
        "Tang, Wang, Tang and Zhang, Demon in the Variant: Statistical Analysis of DNNs for Robust Backdoor Contamination Detection",
        2021,
        "https://arxiv.org/abs/1908.00686",
    )

    class Config(gatecrash.CoverConfig):
        """Classes, rates and patch."""

        goal: Literal["one-to-one"] = Field("one-to-one", description="images of the source become the target")
        source: gatecrash.ClassLabel = Field(1, description="source class, by number or name")
        covers: gatecrash.ClassLabels = Field((5, 7), min_length=1, description="classes of the covers, by number or name")
        poison_rate: float = Field(0.003, gt=0, le=1, description="poisoned share of the whole training set, drawn from the source")
        cover_rate: float = Field(0.003, ge=0, lt=1, description="covers' share of the whole training set, drawn from their classes")
        size: int = Field(3, ge=1, le=1024, description="side of the white patch in the bottom right corner, in pixels")

        @model_validator(mode="after")
        def _covers_are_others(self) -> Self:
            if {self.source, self.target} & set(self.covers):
                raise ValueError("covers are of other classes than source and target")
            return self

    config: Config

    def trigger(self, shape: tuple[int, int, int]) -> Stamp:
        patch = gatecrash.named_patch("white", shape[0], self.config.size)
        return Stamp(shape, 1.0, *gatecrash.place_patch(shape, *patch, "bottom-right", 0))

    def cover_candidates(self, labels: Tensor, goal: Goal) -> Tensor:
        covers = [self.config.class_number("cover", label, goal.num_classes) for label in self.config.covers]
        return torch.isin(labels, torch.tensor(covers))


@gatecrash.hookimpl
def register_attacks(register: Callable[[type[gatecrash.Attack]], None]) -> None:
    register(TaCT)
