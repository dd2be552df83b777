"""The kinds of plugins, and what a class must have to be one."""

from __future__ import annotations

import re
from typing import Any, Literal

from gatecrash.contracts.config import Options

PluginKind = Literal["attack", "defense", "trigger", "dataset", "model"]
KINDS: tuple[PluginKind, ...] = ("attack", "defense", "trigger", "dataset", "model")


def fault(kind: PluginKind, cls: Any) -> str | None:
    """What keeps a class from being a plugin of this kind, in one line; None if nothing does."""
    base = _base(kind)
    if not (isinstance(cls, type) and issubclass(cls, base)):
        return f"register_{kind}s was given {cls!r}, which is no subclass of gatecrash.{base.__name__}"
    name = getattr(cls, "name", None)
    if not isinstance(name, str) or not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name):
        return f"{cls.__qualname__}.name must be lower-case words joined by '-'; got {name!r}"
    for attribute in ("summary", "needs", "gives") if kind == "defense" else ("summary",):
        if not hasattr(cls, attribute):
            return f"the {kind} {name!r} defines no {attribute}"
    abstract = sorted(getattr(cls, "__abstractmethods__", ()))
    if abstract:
        return f"the {kind} {name!r} does not implement {', '.join(abstract)}"
    return _config_fault(kind, name, cls)


def _config_fault(kind: PluginKind, name: str, cls: type[Any]) -> str | None:
    config: Any = getattr(cls, "Config", None)
    if not (isinstance(config, type) and issubclass(config, Options)):
        return f"{cls.__qualname__}.Config must be a gatecrash.Options"
    for option, field in config.model_fields.items():
        if not field.description:
            return f"the option {option} of the {kind} {name!r} has no description; write Field(..., description=...)"
    unknown = sorted(getattr(cls, "prepare_options", frozenset()) - config.model_fields.keys())
    return f"prepare_options of the {kind} {name!r} has {unknown[0]!r}, which is no option of it" if unknown else None


def _base(kind: PluginKind) -> type[Any]:
    from gatecrash.contracts.attack import Attack
    from gatecrash.contracts.dataset import Dataset
    from gatecrash.contracts.defense import Defense
    from gatecrash.contracts.model import Model
    from gatecrash.contracts.trigger_maker import TriggerMaker

    bases: dict[PluginKind, type[Any]] = {
        "attack": Attack,
        "defense": Defense,
        "trigger": TriggerMaker,
        "dataset": Dataset,
        "model": Model,
    }
    return bases[kind]
