"""SIG: a wave over images of the target class, whose labels stay true."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from pydantic import Field

from gatecrash import Attack, PoisonConfig, Trigger, TriggerAttack, TriggerContext, hookimpl
from gatecrash_plugins.triggers.sinusoid import REFERENCE, SinusoidMaker


class SIG(TriggerAttack):
    """A share of the target class gets a sinusoidal signal and keeps its label; any image with the signal is then taken for the class.

    The signal is `sinusoid`, whose page says whose amplitude and frequency there are. The paper poisons a share of
    the target class; the rate here is of the whole training set, as everywhere, and can be no larger than the class's share: with ten equal
    classes the default poisons half of the class. At the whole share (10% in BackdoorBench) no untouched image of the class is left, and
    what falls is its accuracy.

    Images equal those of BackdoorBench's and FTrojan's implementations up to their truncation (docs/measured/sig.md).
    """

    name = "sig"
    summary = "a wave over target-class images, labels true"
    reference = REFERENCE
    clean_label = True

    class Config(SinusoidMaker.Config, PoisonConfig):
        """Wave, target and rate."""

        goal: Literal["all-to-one"] = Field("all-to-one", description="the poisoned images are of one class, so triggered ones become it")
        poison_rate: float = Field(0.05, gt=0, le=1, description="poisoned share of the whole training set, drawn from the target class")

    config: Config

    def trigger(self, shape: tuple[int, int, int]) -> Trigger:
        return SinusoidMaker(self.config).make(TriggerContext(shape))

    def train_trigger(self, shape: tuple[int, int, int]) -> Trigger:
        return SinusoidMaker(self.config).make_train(TriggerContext(shape))


@hookimpl
def register_attacks(register: Callable[[type[Attack]], None]) -> None:
    register(SIG)
