"""No attack: the benign control, a row of every grid."""

from __future__ import annotations

from collections.abc import Callable

from gatecrash import Attack, AttackContext, ImageSet, Poisoned, hookimpl


class NoAttack(Attack):
    """Trains on the training set as it is.

    The benign victim gives detectors their false-positive rate, repairs their cost without a backdoor, and every trigger its floor.
    """

    name = "none"
    summary = "the benign control"

    def poison(self, train: ImageSet, ctx: AttackContext) -> Poisoned:
        return Poisoned.untouched(train)


@hookimpl
def register_attacks(register: Callable[[type[Attack]], None]) -> None:
    register(NoAttack)
