"""WaNet: a smooth bend of the image as the trigger, with bends by noise as covers."""

from __future__ import annotations

from collections.abc import Callable

from pydantic import Field

from gatecrash import Attack, CoverConfig, Reference, Trigger, TriggerAttack, TriggerContext, hookimpl
from gatecrash_plugins.triggers.warp import WarpMaker


class WaNet(TriggerAttack):
    """Warped images get the label that the attacker wants; twice as many with noise in the warp keep theirs (section 3).

    Field, rates and noise are the paper's and those of github.com/VinAIResearch/Warping-based_Backdoor_Attack-release; the trigger is
    `warp`. It deviates in what makes it an attack on data: the authors control training and warp other rows, with other noise, in every
    epoch; here rows and noise are drawn once, so that defenses see the images that the victim was trained on. Each cover has noise of its
    own, where a public re-implementation has one field for all of them. Their augmentation (crop by 5, rotation by 10 degrees, flip)
    belongs to the recipe. ASR leaves out images of the target class, which theirs counts.

    On equal vectors the images equal those of the authors' expressions byte for byte (docs/measured/wanet.md).
    """

    name = "wanet"
    summary = "a smooth bend of the whole image, labels changed, with covers bent by noise"
    reference = Reference("Nguyen and Tran, WaNet - Imperceptible Warping-based Backdoor Attack", 2021, "https://arxiv.org/abs/2102.10369")

    class Config(WarpMaker.Config, CoverConfig):
        """Field, goal and rates."""

        poison_rate: float = Field(
            0.1, gt=0, le=1, description="poisoned share of the whole training set, drawn from images the goal applies to"
        )
        cover_rate: float = Field(0.2, ge=0, lt=1, description="covers' share of the whole training set: bent by noise too, labels true")

    config: Config

    def trigger(self, shape: tuple[int, int, int]) -> Trigger:
        return WarpMaker(self.config).make(TriggerContext(shape))

    def cover_trigger(self, shape: tuple[int, int, int]) -> Trigger:
        return WarpMaker(self.config).make_cover(TriggerContext(shape))


@hookimpl
def register_attacks(register: Callable[[type[Attack]], None]) -> None:
    register(WaNet)
