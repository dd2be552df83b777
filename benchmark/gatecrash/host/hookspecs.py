"""Every hook, on one screen. A plugin is a module whose functions are marked with `gatecrash.hookimpl`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from gatecrash.contracts.attack import Attack
    from gatecrash.contracts.dataset import Dataset
    from gatecrash.contracts.defense import Defense
    from gatecrash.contracts.model import Model
    from gatecrash.contracts.trigger_maker import TriggerMaker
    from gatecrash.records.plan import Cell, Plan, Victim
    from gatecrash.records.result import Result
    from gatecrash.records.summary import Summary


hookspec = pluggy.HookspecMarker("gatecrash")


hookimpl = pluggy.HookimplMarker("gatecrash")
"""Marks a function of a plugin's module as an implementation of the hook of its name."""


@hookspec
def register_attacks(register: Callable[[type[Attack]], None]) -> None:
    """At start-up, in the driver and in every worker: call `register(AttackClass)` for each attack."""


@hookspec
def register_defenses(register: Callable[[type[Defense]], None]) -> None:
    """At start-up: call `register(DefenseClass)` for each defense."""


@hookspec
def register_triggers(register: Callable[[type[TriggerMaker]], None]) -> None:
    """At start-up: call `register(TriggerMakerClass)` for each trigger that attacks can take by its name."""


@hookspec
def register_datasets(register: Callable[[type[Dataset]], None]) -> None:
    """At start-up: call `register(DatasetClass)` for each dataset."""


@hookspec
def register_models(register: Callable[[type[Model]], None]) -> None:
    """At start-up: call `register(ModelClass)` for each model."""


@hookspec
def run_started(plan: Plan) -> None:
    """In the driver, before the first task. Exceptions of this and the following hooks are logged and ignored."""


@hookspec
def victim_finished(victim: Victim, error: str | None) -> None:
    """In the driver, when a victim is in the store (`error` is None) or has failed."""


@hookspec
def cell_finished(cell: Cell, result: Result) -> None:
    """In the driver, when a cell's result (ok, failed or not applicable) has been written."""


@hookspec
def run_finished(summary: Summary) -> None:
    """In the driver, after the last task, also after an interruption."""
