"""The distributed trigger: four small patches, one in each corner, white and black by turns."""

from __future__ import annotations

from collections.abc import Callable

import torch
from pydantic import Field

from gatecrash import Options, Reference, Stamp, TriggerContext, TriggerMaker, hookimpl, patch_mask


class DistributedMaker(TriggerMaker):
    """White patches in the left corners and black ones in the right, all four at once.

    The parts of Xie et al.'s distributed trigger are given to four attackers there; here one attacker plants the whole, which is what they
    test with. The corners, colours and 3x3 pixels are a course's. Validated by hand-worked pixels.
    """

    name = "distributed"
    summary = "four small patches, white left and black right"
    reference = Reference(
        "Xie, Huang, Chen and Li, DBA: Distributed Backdoor Attacks Against Federated Learning",
        2020,
        "https://openreview.net/forum?id=rkgyS0VFvr",
    )

    class Config(Options):
        """Size and place of the patches."""

        size: int = Field(3, ge=1, le=1024, description="side of each patch in pixels")
        inset: int = Field(0, ge=0, le=1024, description="distance of the patches from the border in pixels")
        alpha: float = Field(1.0, gt=0, le=1, description="opacity of the patches")

    config: Config

    def make(self, ctx: TriggerContext) -> Stamp:
        mask = patch_mask(ctx.shape, self.config.size, "four-corners", self.config.inset)
        pattern = torch.zeros(ctx.shape, dtype=torch.uint8)
        pattern[:, :, : ctx.shape[2] // 2] = 255
        return Stamp(ctx.shape, self.config.alpha, pattern, mask)


@hookimpl
def register_triggers(register: Callable[[type[TriggerMaker]], None]) -> None:
    register(DistributedMaker)
