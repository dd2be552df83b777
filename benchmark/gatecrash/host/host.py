"""The plugin host: registers plugin modules and finds their classes by kind and name.

A module that misspells a hook, registers a class that is no plugin, or claims a taken name becomes a `Problem` that names it; the others
can still be used. `gatecrash.host.loading` finds and imports the modules.
"""

from __future__ import annotations

import re
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import pluggy
from pydantic import ValidationError

from gatecrash.contracts.config import Nested, nested_in
from gatecrash.errors import UserError, did_you_mean, shown
from gatecrash.host import hookspecs
from gatecrash.host.kinds import KINDS, PluginKind, fault
from gatecrash.host.plugin_file import PluginFile

HOOKS = tuple(name for name, value in vars(hookspecs).items() if hasattr(value, "gatecrash_spec"))
FILE_PREFIX = "gatecrash_file_plugins_"
"""Start of the module name that a `--plugins` file is imported under; the start of its content's sha256 follows."""


@dataclass(frozen=True)
class Problem:
    """A plugin that could not be used, and why: one line, and the traceback where there is one."""

    origin: str
    message: str
    details: str = ""


@dataclass(frozen=True)
class Plugin:
    """A registered class; `origin` is its module or file."""

    kind: PluginKind
    name: str
    cls: type[Any]
    origin: str
    content: str | None = None
    """`PluginFile.content` of a plugin given by `--plugins`; part of its keys, since authors change such files without a new version."""
    find: Callable[[PluginKind, str], Plugin] | None = field(default=None, repr=False, compare=False)
    """The host's plugins, which options may name."""

    def configure(self, options: dict[str, Any] | None = None) -> Any:
        """An instance with these options; raises pydantic.ValidationError."""
        instance = self.cls(self.cls.Config.model_validate(options or {}, context={"triggers": self._trigger}))
        if isinstance(instance, Nested):
            instance.content = self.content
        return instance

    def _trigger(self, name: str, options: dict[str, Any]) -> Any:
        """The trigger plugin of that name with these options. Raises UserError."""
        if self.find is None:
            raise UserError(f"the trigger {shown(name)} cannot be looked up: {self.name} belongs to no host")
        try:
            return self.find("trigger", name).configure(options)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            raise UserError(f"{'.'.join(map(str, (name, *first['loc'])))}: {first['msg']}") from None


@dataclass
class Host:
    """The plugins that are loaded; `load_plugins` makes one."""

    paths: tuple[Path, ...] = ()
    files: list[PluginFile] = field(default_factory=list)
    """The `--plugins` files as they were read."""
    problems: list[Problem] = field(default_factory=list)
    plugins: dict[tuple[PluginKind, str], Plugin] = field(default_factory=dict)
    _claims: dict[tuple[PluginKind, str], list[str]] = field(default_factory=dict)
    _refused: dict[tuple[PluginKind, str], str] = field(default_factory=dict)
    _manager: pluggy.PluginManager = field(default_factory=lambda: pluggy.PluginManager("gatecrash"))

    def __post_init__(self) -> None:
        self._manager.add_hookspecs(hookspecs)

    def all(self, kind: PluginKind) -> list[Plugin]:
        """The usable plugins of a kind, by name."""
        return sorted((p for p in self.plugins.values() if p.kind == kind), key=lambda plugin: plugin.name)

    def get(self, kind: PluginKind, name: str) -> Plugin:
        """Raises UserError for an unknown name (with close matches), one that two plugins claim (with both origins), and one whose
        class was refused (with the reason)."""
        claims = self._claims.get((kind, name), [])
        if len(claims) > 1:
            raise UserError(f"two plugins claim the {kind} {name!r}: {' and '.join(claims)}; rename or remove one")
        if not claims:
            self.check_refused(name, kind)
            raise UserError(f"unknown {kind} {shown(name)}; {did_you_mean(name, (plugin.name for plugin in self.all(kind)))}")
        return self.plugins[kind, name]

    def check_refused(self, name: str, *kinds: PluginKind) -> None:
        """Raises UserError if a class of this name, of one of these kinds or of any, was registered but cannot be used."""
        for kind in kinds or KINDS:
            if (kind, name) in self._refused:
                raise UserError(self._refused[kind, name])

    def named_by(self, kind: PluginKind, name: str, options: Mapping[str, Any]) -> list[tuple[PluginKind, str]]:
        """The plugin, and those that its options name."""
        config = self.get(kind, name).configure(dict(options)).config
        return [(kind, name), *(("trigger", nested.name) for nested in nested_in(config))]

    def files_of(self, names: Iterable[tuple[PluginKind, str]], stored: str = "") -> frozenset[str]:
        """`content` of the `--plugins` files that define these plugins, or a class that `stored` (specs of Portables, as JSON) names."""
        contents = {plugin.content for plugin in self.plugins.values() if plugin.content is not None}
        held = {self.get(kind, name).content for kind, name in names}
        return frozenset(content for content in contents if content in held or f"{FILE_PREFIX}{content[:12]}_" in stored)

    def observers(self, hook: str) -> Iterator[tuple[str, Callable[..., None], Sequence[str]]]:
        """(plugin name, function, names of its arguments) of every implementation of an observation hook."""
        for impl in getattr(self._manager.hook, hook).get_hookimpls():
            yield impl.plugin_name, impl.function, impl.argnames

    def modules(self) -> list[str]:
        """Origins of the registered modules."""
        return sorted(str(self._manager.get_name(plugin)) for plugin in self._manager.get_plugins())

    # loading

    def add(self, module: ModuleType, origin: str, content: str | None = None) -> None:
        """Register a plugin module, or any object with hook functions, and the classes that it announces.

        `content` is that of a `--plugins` file. What is wrong with the module is added to `problems`.
        """
        try:
            name = self._manager.register(module, origin)
            self._manager.check_pending()
        except Exception as error:
            if self._manager.get_plugin(origin) is not None:
                self._manager.unregister(name=origin)
            self._report(origin, _hook_error(error), traceback.format_exc())
            return
        for hook in HOOKS:
            if callable(function := vars(module).get(hook)) and not hasattr(function, "gatecrash_impl"):
                self._report(origin, f"{hook} is not marked with @gatecrash.hookimpl, so it is never called")
        if not name:  # the same module under another origin
            return
        others = [other for other in self._manager.get_plugins() if other is not module]
        for kind in KINDS:
            hook_of_module = self._manager.subset_hook_caller(f"register_{kind}s", others)
            try:
                hook_of_module(register=partial(self._register, origin, content, kind))
            except Exception as error:
                self._report(origin, f"register_{kind}s failed: {type(error).__name__}: {error}", traceback.format_exc())

    def _register(self, origin: str, content: str | None, kind: PluginKind, cls: type[Any]) -> None:
        if (said := fault(kind, cls)) is not None:
            self._report(origin, said)
            name = getattr(cls, "name", None)
            if isinstance(name, str):
                self._refused[kind, name] = f"the {kind} {name!r} of {origin} cannot be used: {said}"
            return
        claims = self._claims.setdefault((kind, cls.name), [])
        claims.append(origin)
        if len(claims) == 1:
            self.plugins[kind, cls.name] = Plugin(kind, cls.name, cls, origin, content, self.get)
            return
        self.plugins.pop((kind, cls.name), None)
        self._report(origin, f"the {kind} {cls.name!r} is already registered by {claims[0]}; neither can be used until one is renamed")

    def _report(self, origin: str, message: str, details: str = "") -> None:
        self.problems.append(Problem(origin, message, details))


def _hook_error(error: Exception) -> str:
    """Why a module's hooks cannot be registered, in one line."""
    text = " ".join(str(error).split()) or type(error).__name__
    unknown = re.search(r"unknown hook '(\w+)'", text)
    return f"unknown hook {unknown[1]!r}; {did_you_mean(unknown[1], HOOKS)}" if unknown else text
