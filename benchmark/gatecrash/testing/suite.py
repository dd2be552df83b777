"""The check suite as a whole: lists of checks, and a pytest decorator that runs them on plugins."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

from gatecrash.contracts.attack import Attack
from gatecrash.contracts.defense import Defense
from gatecrash.contracts.trigger_maker import TriggerMaker
from gatecrash.errors import did_you_mean
from gatecrash.testing.attack_checks import ATTACK_CHECKS
from gatecrash.testing.check import Check, require
from gatecrash.testing.defense_checks import DEFENSE_CHECKS
from gatecrash.testing.trigger_checks import TRIGGER_CHECKS

Checked = Attack | Defense | TriggerMaker
Test = TypeVar("Test", bound=Callable[..., None])


def deviations_are_known(plugin: Checked) -> None:
    """Every deviation that the class declares names a check and gives a reason."""
    known = {check.name for check in (*ATTACK_CHECKS, *DEFENSE_CHECKS, *TRIGGER_CHECKS)}
    for name, reason in type(plugin).deviations.items():
        require(name in known, "deviations to name checks", repr(name), did_you_mean(str(name), known))
        require(bool(str(reason).strip()), f"a reason for the deviation {name!r}", "none", "say in one line why the method differs")


def attack_checks() -> tuple[Check, ...]:
    """Every check of an attack, cheap ones first."""
    return Check(deviations_are_known), *ATTACK_CHECKS


def defense_checks() -> tuple[Check, ...]:
    """Every check of a defense, cheap ones first."""
    return Check(deviations_are_known), *DEFENSE_CHECKS


def trigger_checks() -> tuple[Check, ...]:
    """Every check of a trigger plugin, cheap ones first."""
    return Check(deviations_are_known), *TRIGGER_CHECKS


def checks_for(plugin: Checked, quick: bool = False) -> list[Check]:
    """The checks of what this plugin promises: an exact poison rate, say, is asked only of attacks that have one.

    `quick`: without those that try every option or train on all digits.
    """
    if not isinstance(plugin, Checked):
        raise TypeError(f"checks take a configured attack, defense or trigger, such as MyAttack(); got {plugin!r}")
    every = attack_checks() if isinstance(plugin, Attack) else defense_checks() if isinstance(plugin, Defense) else trigger_checks()
    return [check for check in every if check.applies(plugin) and (check.quick or not quick)]


def parametrize_with_checks(plugins: Iterable[Checked], *, quick: bool = False) -> Callable[[Test], Test]:
    """Decorator for a test with the arguments `plugin` and `check`: one test per plugin and check, named for both.

    `plugins` are configured instances; give slow methods options that make them quick, or take the `quick` checks only. Raises TypeError
    for anything else.
    """
    import pytest

    cases = [pytest.param(plugin, check, id=f"{plugin.name}-{check.name}") for plugin in plugins for check in checks_for(plugin, quick)]
    return pytest.mark.parametrize(("plugin", "check"), cases)
