"""FTrojan: two frequencies of the image's colours are raised, and the label is changed."""

from __future__ import annotations

from collections.abc import Callable

from gatecrash import Attack, PoisonConfig, Trigger, TriggerAttack, TriggerContext, hookimpl
from gatecrash_plugins.triggers.frequency import REFERENCE, FrequencyMaker


class FTrojan(TriggerAttack):
    """Poisoned images get the trigger `frequency`, whose page says whose magnitude and positions there are, and the attacker's label.

    The rate is the one most attacks here have (the authors' scripts poison 2% of CIFAR-10 and 5% of GTSRB). Their clean-label variant is
    left out; `clean-label` with this trigger is near to it, with bounded steps where theirs is one step of the gradient.

    The pattern equals that of the authors' transforms within float noise; their images differ by what they truncate and wrap
    (docs/measured/ftrojan.md).
    """

    name = "ftrojan"
    summary = "two frequencies of the colours raised, labels changed"
    reference = REFERENCE

    class Config(FrequencyMaker.Config, PoisonConfig):
        """Frequencies, goal and rate."""

    config: Config

    def trigger(self, shape: tuple[int, int, int]) -> Trigger:
        return FrequencyMaker(self.config).make(TriggerContext(shape))


@hookimpl
def register_attacks(register: Callable[[type[Attack]], None]) -> None:
    register(FTrojan)
