"""Blend: one pattern mixed into the whole image, and a changed label."""

from __future__ import annotations

from collections.abc import Callable

from gatecrash import Attack, PoisonConfig, Reference, Trigger, TriggerAttack, TriggerContext, hookimpl
from gatecrash_plugins.triggers.blend import BlendMaker


class Blend(TriggerAttack):
    """The blended injection strategy: `x' = (1 - alpha) x + alpha pattern` over the whole image.

    The pattern may be weaker in training, where people look at the data, than at test time. It is drawn from a seed of its own, so that all
    runs of a grid face the same trigger.
    """

    name = "blend"
    summary = "a faint pattern over the whole image, labels changed"
    reference = Reference(
        "Chen, Liu, Li, Lu and Song, Targeted Backdoor Attacks on Deep Learning Systems Using Data Poisoning",
        2017,
        "https://arxiv.org/abs/1712.05526",
    )

    class Config(BlendMaker.Config, PoisonConfig):
        """Pattern, opacities, goal and rate."""

    config: Config

    def trigger(self, shape: tuple[int, int, int]) -> Trigger:
        return BlendMaker(self.config).make(TriggerContext(shape))

    def train_trigger(self, shape: tuple[int, int, int]) -> Trigger:
        return BlendMaker(self.config).make_train(TriggerContext(shape))


@hookimpl
def register_attacks(register: Callable[[type[Attack]], None]) -> None:
    register(Blend)
