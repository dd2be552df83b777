"""The plugin host: finds plugins, loads each on its own, and answers for their names.

Plugins come from the shipped package `gatecrash_plugins` (scanned), from entry points of group `gatecrash`, and from `--plugins`. One that
cannot be imported, misspells a hook or claims a taken name becomes a `Problem` that names it; the others load all the same.
"""

from __future__ import annotations

import re
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import pluggy

from gatecrash.contracts.config import Options
from gatecrash.errors import UserError, did_you_mean
from gatecrash.host import hookspecs

PluginKind = Literal["attack", "defense", "dataset", "model"]


KINDS: tuple[PluginKind, ...] = ("attack", "defense", "dataset", "model")


FILE_PREFIX = "gatecrash_file_plugins_"


@dataclass(frozen=True)
class Problem:
    """A plugin that could not be used, and why: one line, and the traceback where there is one."""

    origin: str
    message: str
    details: str = ""


@dataclass(frozen=True)
class Plugin:
    """A registered class: `origin` is what a person can find (module or file)."""

    kind: PluginKind
    name: str
    cls: type[Any]
    origin: str
    content: str | None = None
    """sha256 of the file for plugins given by `--plugins`: their version alone cannot be relied upon while they are written."""

    def configure(self, options: dict[str, Any] | None = None) -> Any:
        """An instance with these options; raises pydantic.ValidationError."""
        return self.cls(self.cls.Config.model_validate(options or {}))


@dataclass
class Host:
    """What is installed. Use `load_plugins`."""

    paths: tuple[Path, ...] = ()
    problems: list[Problem] = field(default_factory=list)
    plugins: dict[tuple[PluginKind, str], Plugin] = field(default_factory=dict)
    _claims: dict[tuple[PluginKind, str], list[str]] = field(default_factory=dict)
    _manager: pluggy.PluginManager = field(default_factory=lambda: pluggy.PluginManager("gatecrash"))

    def __post_init__(self) -> None:
        self._manager.add_hookspecs(hookspecs)

    def all(self, kind: PluginKind) -> list[Plugin]:
        """The usable plugins of a kind, by name."""
        return sorted((p for p in self.plugins.values() if p.kind == kind), key=lambda plugin: plugin.name)

    def get(self, kind: PluginKind, name: str) -> Plugin:
        """Raises UserError for an unknown name (with close matches) and for one that two plugins claim (with both origins)."""
        claims = self._claims.get((kind, name), [])
        if len(claims) > 1:
            raise UserError(f"two plugins claim the {kind} {name!r}: {' and '.join(claims)}; rename or remove one")
        if not claims:
            raise UserError(f"unknown {kind} {name!r}; {did_you_mean(name, (plugin.name for plugin in self.all(kind)))}")
        return self.plugins[kind, name]

    def files_of(self, names: Iterable[tuple[PluginKind, str]], stored: str = "") -> frozenset[str]:
        """sha256 of the `--plugins` files that hold these plugins, or a class that `stored` (specs of Portables, as JSON) refers to."""
        contents = {plugin.content for plugin in self.plugins.values() if plugin.content is not None}
        held = {self.get(kind, name).content for kind, name in names}
        return frozenset(content for content in contents if content in held or f"{FILE_PREFIX}{content[:12]}_" in stored)

    def observers(self, hook: str) -> Iterator[tuple[str, Callable[..., None], Sequence[str]]]:
        """(plugin name, function, names of its arguments) of every implementation of an observation hook."""
        for impl in getattr(self._manager.hook, hook).get_hookimpls():
            yield impl.plugin_name, impl.function, impl.argnames

    def modules(self) -> list[str]:
        return sorted(str(self._manager.get_name(plugin)) for plugin in self._manager.get_plugins())

    # loading

    def add(self, module: ModuleType, origin: str, content: str | None = None) -> None:
        """Register one plugin module (or any object with hook functions) and collect what it announces."""
        try:
            name = self._manager.register(module, origin)
            self._manager.check_pending()
        except Exception as error:
            if self._manager.get_plugin(origin) is not None:
                self._manager.unregister(name=origin)
            self.problems.append(Problem(origin, _misspelt(error), traceback.format_exc()))
            return
        self._report_unmarked(module, origin)
        if not name:
            return
        others = [other for other in self._manager.get_plugins() if other is not module]
        for kind in KINDS:
            hook = self._manager.subset_hook_caller(f"register_{kind}s", others)
            try:
                hook(register=self._registrar(kind, origin, content))
            except Exception as error:
                message = f"register_{kind}s failed: {type(error).__name__}: {error}"
                self.problems.append(Problem(origin, message, traceback.format_exc()))

    def _registrar(self, kind: PluginKind, origin: str, content: str | None) -> Callable[[type[Any]], None]:
        def register(cls: type[Any]) -> None:
            fault = _fault(kind, cls)
            if fault:
                self.problems.append(Problem(origin, fault))
                return
            claims = self._claims.setdefault((kind, cls.name), [])
            claims.append(origin)
            if len(claims) > 1:
                self.plugins.pop((kind, cls.name), None)
                self.problems.append(
                    Problem(
                        origin, f"the {kind} {cls.name!r} is already registered by {claims[0]}; neither can be used until one is renamed"
                    )
                )
                return
            self.plugins[kind, cls.name] = Plugin(kind, cls.name, cls, origin, content)

        return register

    def _report_unmarked(self, module: ModuleType, origin: str) -> None:
        """A function named like a hook but without the marker would silently never be called."""
        known = [name for name in vars(hookspecs) if name.startswith(("register_", "run_", "victim_", "cell_"))]
        for name, value in vars(module).items():
            if name in known and callable(value) and not hasattr(value, "gatecrash_impl"):
                self.problems.append(Problem(origin, f"{name} is not marked with @gatecrash.hookimpl, so it is never called"))


def _misspelt(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    unknown = re.search(r"unknown hook '(\w+)'", text)
    if unknown:
        hooks = [name for name in vars(hookspecs) if name.startswith(("register_", "run_", "victim_", "cell_"))]
        return f"unknown hook {unknown[1]!r}; {did_you_mean(unknown[1], hooks)}"
    return text


def _fault(kind: PluginKind, cls: Any) -> str | None:
    """What keeps a class from being a plugin of this kind, in one line."""
    base = _base(kind)
    if not (isinstance(cls, type) and issubclass(cls, base)):
        return f"register_{kind}s was given {cls!r}, which is no subclass of gatecrash.{base.__name__}"
    name = getattr(cls, "name", None)
    if not isinstance(name, str) or not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name):
        return f"{cls.__qualname__}.name must be lower-case words joined by '-'; got {name!r}"
    missing = [what for what in _REQUIRED[kind] if not hasattr(cls, what)]
    if missing:
        return f"the {kind} {name!r} defines no {missing[0]}"
    abstract = sorted(getattr(cls, "__abstractmethods__", ()))
    if abstract:
        return f"the {kind} {name!r} does not implement {', '.join(abstract)}"
    config: Any = getattr(cls, "Config", None)
    if not (isinstance(config, type) and issubclass(config, Options)):
        return f"{cls.__qualname__}.Config must be a gatecrash.Options"
    undescribed = [option for option, info in config.model_fields.items() if not info.description]
    if undescribed:
        return f"the {kind} {name!r} has an option without description: {undescribed[0]}"
    return None


_REQUIRED: dict[PluginKind, tuple[str, ...]] = {
    "attack": ("summary",),
    "defense": ("summary", "needs", "gives"),
    "dataset": ("summary",),
    "model": ("summary",),
}


def _base(kind: PluginKind) -> type[Any]:
    from gatecrash.contracts.attack import Attack
    from gatecrash.contracts.dataset import Dataset
    from gatecrash.contracts.defense import Defense
    from gatecrash.contracts.model import Model

    bases: dict[PluginKind, type[Any]] = {"attack": Attack, "defense": Defense, "dataset": Dataset, "model": Model}
    return bases[kind]
