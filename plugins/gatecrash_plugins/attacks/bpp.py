"""BPP: fewer grey levels as the trigger, with the residuals of other images as covers."""

from __future__ import annotations

from collections.abc import Callable

from pydantic import Field

from gatecrash import Attack, AttackContext, CoverConfig, ImageSet, PoisonAttack, TriggerContext, Triggers, hookimpl
from gatecrash_plugins.triggers.quantise import REFERENCE, QuantiseMaker


class BPP(PoisonAttack):
    """Quantised images get the label that the attacker wants; negatives, with the residual of another image, keep theirs.

    Trigger and negatives are those of `quantise`, whose page says whose levels and dithering there are; rates .2 and .2 are those of the
    authors' code (github.com/RU-System-Software-and-Security/BppAttack). It deviates in what makes it an attack on data: the authors
    control training and draw poison, negatives and residuals anew in every epoch; here they are drawn once, so that defenses see the images
    that the victim was trained on. Theirs have the residuals of all training images, here `donors` of them. Their augmentation (crop by 5,
    rotation by 10 degrees, flip) belongs to the recipe. ASR leaves out images of the target class, which theirs counts.

    Quantised and dithered images equal those of the authors' functions (docs/measured/bpp.md).
    """

    name = "bpp"
    summary = "fewer grey levels, labels changed, with covers that carry another image's change"
    reference = REFERENCE

    class Config(QuantiseMaker.Config, CoverConfig):
        """Levels, goal and rates."""

        poison_rate: float = Field(
            0.2, gt=0, le=1, description="poisoned share of the whole training set, drawn from images the goal applies to"
        )
        cover_rate: float = Field(0.2, ge=0, lt=1, description="share of the whole training set that becomes negatives, labels true")

    config: Config

    def triggers(self, train: ImageSet, ctx: AttackContext) -> Triggers:
        maker, seen = QuantiseMaker(self.config), TriggerContext(ctx.shape, ctx.device, ctx.stream, train)
        trigger = maker.make(seen)
        return Triggers(trigger, trigger, maker.make_cover(seen) if self.config.cover_rate else None)


@hookimpl
def register_attacks(register: Callable[[type[Attack]], None]) -> None:
    register(BPP)
