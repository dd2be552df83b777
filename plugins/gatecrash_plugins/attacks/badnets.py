"""BadNets: a small patch in a fixed place, and a changed label."""

from __future__ import annotations

from collections.abc import Callable

from gatecrash import Attack, PoisonConfig, Reference, Trigger, TriggerAttack, TriggerContext, hookimpl
from gatecrash_plugins.triggers.patch import PatchMaker


class BadNets(TriggerAttack):
    """The first backdoor attack: poisoned images carry a patch and the label that the attacker wants.

    The paper stamps a bright pixel or a small pattern into the bottom right corner and relabels to one class or to the next one (section
    4.1); the defaults here are the 3x3 white square and the rate that most later work uses.

    The trigger is `patch`; its page says whose patterns there are.
    """

    name = "badnets"
    summary = "a small patch in a fixed place, labels changed"
    reference = Reference(
        "Gu, Dolan-Gavitt and Garg, BadNets: Identifying Vulnerabilities in the Machine Learning Model Supply Chain",
        2017,
        "https://arxiv.org/abs/1708.06733",
    )

    class Config(PatchMaker.Config, PoisonConfig):
        """Patch, place, goal and rate."""

    config: Config

    def trigger(self, shape: tuple[int, int, int]) -> Trigger:
        return PatchMaker(self.config).make(TriggerContext(shape))


@hookimpl
def register_attacks(register: Callable[[type[Attack]], None]) -> None:
    register(BadNets)
