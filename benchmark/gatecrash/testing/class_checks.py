"""The checks that attacks, defenses and triggers share: of the class, its options and its documentation. They run nothing."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

from pydantic import ValidationError

from gatecrash.authoring.plugin_docs import options_of
from gatecrash.contracts.attack import Attack
from gatecrash.contracts.defense import Defense
from gatecrash.contracts.evidence import Need
from gatecrash.contracts.model import Model
from gatecrash.contracts.outcome import Give
from gatecrash.contracts.reference import Reference
from gatecrash.contracts.trigger_maker import TriggerMaker
from gatecrash.host.hookspecs import hookimpl
from gatecrash.host.host import Host
from gatecrash.testing.check import CheckFailed, finishing, require
from gatecrash.testing.options import changed, naming

Plugin = Attack | Defense | TriggerMaker
LONGEST_SUMMARY = 120


class Announcement:
    """A plugin module that announces the given classes, for a host of its own."""

    def __init__(self, *classes: type[Any]) -> None:
        self._classes = classes

    @hookimpl
    def register_attacks(self, register: Callable[[type[Any]], None]) -> None:
        self._announce(Attack, register)

    @hookimpl
    def register_defenses(self, register: Callable[[type[Any]], None]) -> None:
        self._announce(Defense, register)

    @hookimpl
    def register_models(self, register: Callable[[type[Any]], None]) -> None:
        self._announce(Model, register)

    @hookimpl
    def register_triggers(self, register: Callable[[type[Any]], None]) -> None:
        self._announce(TriggerMaker, register)

    def _announce(self, base: type[Any], register: Callable[[type[Any]], None]) -> None:
        for cls in self._classes:
            if issubclass(cls, base):
                register(cls)


def can_be_registered(plugin: Plugin) -> None:
    """The host accepts the class, and what it declares are values that the harness knows."""
    cls = type(plugin)
    host = Host()
    host.add(Announcement(cls), cls.__qualname__)  # type: ignore[arg-type]
    if host.problems:
        raise CheckFailed("the host to accept the class", host.problems[0].message, "change the class as the message says")
    require(
        isinstance(cls.version, int) and cls.version >= 1,
        "version to be a whole number from 1",
        repr(cls.version),
        "set `version = 1`, and raise it whenever the numbers may change",
    )
    if isinstance(plugin, Attack):
        require(
            plugin.controls in {"data", "training", "model"},
            "controls to be 'data', 'training' or 'model'",
            repr(plugin.controls),
            "say what the attacker controls: an attack that overrides implant() controls training or the model",
        )
    if not isinstance(plugin, Defense):
        return
    for what, kind in (("needs", Need), ("gives", Give)):
        declared = getattr(cls, what)
        unknown = [value for value in declared if not isinstance(value, kind)]
        require(
            isinstance(declared, frozenset) and not unknown,
            f"{what} to be a frozenset of gatecrash.{kind.__name__}",
            repr(declared),
            f"write {what} = frozenset({{{kind.__name__}.{next(iter(kind)).name}}}) or whichever apply",
        )


def config_round_trips(plugin: Plugin) -> None:
    """The options survive being stored as JSON, with and without defaults, are frozen and refuse unknown names."""
    config, cls, known = plugin.config, type(plugin.config), naming(plugin.config)
    forms: dict[str, Callable[[], Any]] = {
        "model_dump()": lambda: cls.model_validate(config.model_dump(), context=known),
        "model_dump(mode='json')": lambda: cls.model_validate(config.model_dump(mode="json"), context=known),
        "model_dump_json()": lambda: cls.model_validate_json(config.model_dump_json(), context=known),
        "model_dump(mode='json', exclude_defaults=True)": lambda: cls.model_validate(
            config.model_dump(mode="json", exclude_defaults=True), context=known
        ),
    }
    mend = "use field types that pydantic reads back as it writes them, and validators that accept their own output"
    for form, rebuild in forms.items():
        with finishing(f"validating {form}", mend):
            again = rebuild()
        require(again == config, f"validating {form} to give the same options, {config!r}", repr(again), mend)
    base = "derive Config from gatecrash.Options (or PoisonConfig, GoalConfig) and leave its model_config alone"
    try:
        changed(config, no_such_option=1)
    except ValidationError:
        pass
    else:
        raise CheckFailed("an unknown option to be refused", "a Config that ignores it", base)
    require(cls.model_config.get("frozen") is True, "Config to be frozen", "options that can be changed after the key was made", base)


def config_bounds_hold(plugin: Plugin) -> None:
    """Every number among the options has a bound, and a value beyond a bound is refused."""
    config, cls = plugin.config, type(plugin.config)
    for option in options_of(cls):
        require(
            bool(option.limits) or not option.is_number,
            f"the number {option.name} to have bounds",
            "none",
            f"write {option.name}: ... = Field(..., ge=0, le=1, description=...) with the limits of what makes sense",
        )
        for sign, limit in option.limits:
            beyond = {">": limit, ">=": limit - 1, "<": limit, "<=": limit + 1}[sign]
            try:
                made = changed(config, **{option.name: beyond})
            except ValidationError:
                continue
            raise CheckFailed(
                f"{option.name} = {beyond} to be refused, for its bound is {sign} {limit}",
                f"a Config with {option.name} = {getattr(made, option.name)!r}",
                "let no validator change a value into its bounds: refuse it",
            )


def can_be_pickled(plugin: Plugin) -> None:
    """Class and options can be sent to another process."""
    mend = "define the class and its Config at the top level of the module, and keep only plain values in options"
    with finishing("pickling the class and its options", mend):
        cls, config = pickle.loads(pickle.dumps((type(plugin), plugin.config)))
    require(cls is type(plugin) and config == plugin.config, "class and options to come back the same", f"{cls}, {config!r}", mend)


def is_documented(plugin: Plugin) -> None:
    """A one-line summary, docstrings of the class and its Config, a paper, and described options."""
    cls = type(plugin)
    summary = cls.summary
    require(
        isinstance(summary, str) and bool(summary.strip()) and "\n" not in summary and len(summary) <= LONGEST_SUMMARY,
        f"summary to be one line of 1 to {LONGEST_SUMMARY} characters",
        repr(summary),
        "say in one line what the method does; the rest belongs in the docstring",
    )
    for what, documented in (("the class", cls), ("its Config", cls.Config)):
        own = vars(documented).get("__doc__")
        require(
            bool(own and own.strip()),
            f"{what} to have a docstring",
            "none",
            f"write under `class {documented.__name__}` what it does, after which section or equation of the paper",
        )
    if not _is_control(plugin):
        reference = cls.reference
        require(
            isinstance(reference, Reference) and reference.url.startswith(("http://", "https://")) and bool(reference.paper.strip()),
            "reference to be a gatecrash.Reference(paper, year, url)",
            repr(reference),
            "name the paper; for a method of your own, its title, the year and the address of its code",
        )
    for option in options_of(cls.Config):
        require(
            bool(option.description),
            f"the option {option.name} to be described",
            "nothing",
            "give its Field a description=... with its unit",
        )


def _is_control(plugin: Plugin) -> bool:
    """Whether there is nothing to cite: `none`, which is no method."""
    return plugin.name == "none"


CLASS_CHECKS = (can_be_registered, config_round_trips, config_bounds_hold, can_be_pickled, is_documented)
