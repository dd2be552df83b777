"""The check suite as a whole: lists of checks, and a pytest decorator that runs them on plugins."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

from gatecrash.contracts.attack import Attack
from gatecrash.contracts.defense import Defense
from gatecrash.testing.attack_checks import ATTACK_CHECKS
from gatecrash.testing.check import Check
from gatecrash.testing.defense_checks import DEFENSE_CHECKS

Test = TypeVar("Test", bound=Callable[..., None])


def attack_checks() -> tuple[Check, ...]:
    """Every check of an attack, cheap ones first."""
    return ATTACK_CHECKS


def defense_checks() -> tuple[Check, ...]:
    """Every check of a defense, cheap ones first."""
    return DEFENSE_CHECKS


def checks_for(plugin: Attack | Defense) -> list[Check]:
    """The checks of what this plugin promises: an exact poison rate, say, is asked only of attacks that have one."""
    if not isinstance(plugin, Attack | Defense):
        raise TypeError(f"checks take a configured attack or defense, such as MyAttack(); got {plugin!r}")
    return [check for check in (attack_checks() if isinstance(plugin, Attack) else defense_checks()) if check.applies(plugin)]


def parametrize_with_checks(plugins: Iterable[Attack | Defense]) -> Callable[[Test], Test]:
    """Decorator for a test with the arguments `plugin` and `check`: one test per plugin and check, named for both.

    `plugins` are configured instances; give slow methods options that make them quick. Raises TypeError for anything else.
    """
    import pytest

    cases = [pytest.param(plugin, check, id=f"{plugin.name}-{check.name}") for plugin in plugins for check in checks_for(plugin)]
    return pytest.mark.parametrize(("plugin", "check"), cases)
