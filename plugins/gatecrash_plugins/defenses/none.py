"""No defense: the column that all others are compared with."""

from __future__ import annotations

from collections.abc import Callable

from gatecrash import Defense, Evidence, Outcome, hookimpl


class NoDefense(Defense):
    """Leaves the victim as it is; its scores are the attack's own, a column of every grid."""

    name = "none"
    summary = "the victim as it is"
    needs = frozenset()
    gives = frozenset()

    def defend(self, evidence: Evidence) -> Outcome:
        return Outcome()


@hookimpl
def register_defenses(register: Callable[[type[Defense]], None]) -> None:
    register(NoDefense)
