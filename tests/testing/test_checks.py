"""The check suite: everything that ships passes it, and every check is proved by a plugin that breaks its promise."""

from __future__ import annotations

from typing import Any

import pytest
from test_attack_checks import BROKEN_ATTACKS, FalselyClean
from test_defense_checks import BROKEN_DEFENSES
from test_trigger_checks import BROKEN_TRIGGERS

from gatecrash import (
    Attack,
    Defense,
)
from gatecrash.host.kinds import KINDS
from gatecrash.host.loading import load_plugins
from gatecrash.testing import Check, attack_checks, checks_for, defense_checks, parametrize_with_checks, trigger_checks
from support.sound_plugins import Dot, Tuning

QUICK: dict[str, dict[str, Any]] = {
    "activation-clustering": {"decision": "relative-size"},
    "anp": {"iterations": 20},
    "clean-label": {"iterations": 2},
    "fine-pruning": {"epochs": 3},
    "cognitive-distillation": {"steps": 5},
    "ft": {"epochs": 2},
    "ft-sam": {"epochs": 2},
    "input-aware": {"mask_epochs": 2, "width": 4},
    "lf": {"images": 10, "passes": 1, "iterations": 20},
    "lira": {"trigger_epochs": 2, "width": 2, "eps": 0.1, "alpha": 0.9},
    "narcissus": {"surrogate_epochs": 2, "rounds": 60, "noise_lr": 0.1},
    "neural-cleanse": {"rounds": 4, "samples": 32, "epochs": 1},
    "neural-cleanse-filter": {"rounds": 4, "samples": 32},
    "sau": {"epochs": 2},
    "ssba": {"steps": 5, "min_accuracy": 0.0, "min_psnr": 0.0},
    "trojannn": {"steps": 10, "starts": 2},
}
"""Options that make slow methods quick; the promises do not depend on them."""


def shipped() -> list[Any]:
    host = load_plugins(installed=False)
    return [plugin.configure(QUICK.get(plugin.name)) for kind in KINDS[:3] for plugin in host.all(kind)]


@parametrize_with_checks(shipped(), quick=True)
def test_shipped_plugins_keep_the_contracts(plugin: Attack | Defense, check: Check) -> None:
    check(plugin)


@pytest.mark.slow
@pytest.mark.parametrize("plugin", shipped(), ids=lambda plugin: plugin.name)
def test_shipped_plugins_pass_the_long_checks_too(plugin: Attack | Defense) -> None:
    for check in checks_for(plugin):
        if not check.quick:
            check(plugin)


@parametrize_with_checks([Dot(), Tuning()])
def test_the_sound_plugins_that_the_broken_ones_differ_from_pass(plugin: Attack | Defense, check: Check) -> None:
    check(plugin)


def test_every_check_is_proved_by_a_broken_plugin_and_says_what_it_promises() -> None:
    assert {name for name, _, _ in BROKEN_ATTACKS} == {check.name for check in attack_checks()}
    shared = {check.name for check in attack_checks()} & {check.name for check in defense_checks()}
    assert {name for name, _, _ in BROKEN_DEFENSES} | shared == {check.name for check in defense_checks()}
    assert {name for name, _, _ in BROKEN_TRIGGERS} | {name for name, _, _ in BROKEN_ATTACKS} >= {check.name for check in trigger_checks()}
    assert all(check.summary.endswith(".") for check in (*attack_checks(), *defense_checks(), *trigger_checks()))


def test_checks_are_asked_only_of_plugins_that_make_the_promise() -> None:
    assert "labels-stay-true" not in {check.name for check in checks_for(Dot())}
    assert "goal-images-are-not-candidates" not in {check.name for check in checks_for(FalselyClean())}
    with pytest.raises(TypeError, match=r"such as MyAttack\(\)"):
        parametrize_with_checks([Dot])  # type: ignore[list-item]
