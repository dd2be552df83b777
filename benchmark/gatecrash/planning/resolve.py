"""A grid against the installed plugins: every name and option checked, sweeps expanded."""

from __future__ import annotations

import itertools
import math
import types
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from pydantic import ValidationError

from gatecrash.contracts.config import content_of, key_fields
from gatecrash.contracts.recipe import Recipe, recipe_from
from gatecrash.errors import UserError
from gatecrash.host.host import Host, Plugin
from gatecrash.host.kinds import PluginKind
from gatecrash.planning.grid import MAX_CELLS, Grid, explain
from gatecrash.records.stage import PLUGIN_FILE, Stage


@dataclass(frozen=True)
class ConfiguredPlugin:
    """A plugin with checked options: one value of a sweep."""

    plugin: Plugin
    instance: Any

    @property
    def name(self) -> str:
        return self.plugin.name

    @cached_property
    def stage(self) -> Stage:
        """As stored records name it: all options, defaults too."""
        config = self.instance.config
        content = content_of(config) | ({PLUGIN_FILE: self.plugin.content} if self.plugin.content else {})
        return Stage(name=self.name, version=self.plugin.cls.version, config=config.model_dump(mode="json"), content=content)

    @cached_property
    def identity(self) -> list[Any]:
        """What enters keys: name, version, the options that differ from their defaults, content of a `--plugins` file. JSON."""
        return [self.name, self.plugin.cls.version, key_fields(self.instance.config), self.plugin.content]


Chain = tuple[ConfiguredPlugin, ...]
"""A defense: its stages in order, one for a defense that is no chain."""


@dataclass(frozen=True)
class ResolvedGrid:
    """A grid whose every name and option has been checked against the host; sweeps are expanded."""

    grid: Grid
    dataset: ConfiguredPlugin
    model: ConfiguredPlugin
    recipe: Recipe
    attacks: tuple[ConfiguredPlugin, ...]
    defenses: tuple[Chain, ...]


def resolve(grid: Grid, host: Host) -> ResolvedGrid:
    """Check every name and option against the host and expand sweeps. Raises UserError with the field's path."""
    dataset = _single(host, "dataset", grid.dataset)
    model = _single(host, "model", grid.model)
    try:
        recipe = recipe_from(grid.recipe)
    except ValidationError as error:
        raise UserError(explain(error, "recipe", Recipe.model_fields)) from None
    attacks = [attack for index, entry in enumerate(grid.attacks) for attack in _configured(host, "attack", entry, f"attacks[{index}]")]
    chains = [chain for index, entry in enumerate(grid.defenses) for chain in _chains(host, entry, f"defenses[{index}]")]
    return ResolvedGrid(grid, dataset, model, recipe, tuple(attacks), tuple(chains))


def _single(host: Host, kind: PluginKind, entry: Any) -> ConfiguredPlugin:
    found = list(_configured(host, kind, entry, kind))
    if len(found) != 1:
        raise UserError(f"{kind}: a grid has one {kind}; write one grid for each value")
    return found[0]


def _chains(host: Host, entry: Any, path: str) -> Iterator[Chain]:
    if isinstance(entry, dict) and set(entry) == {"chain"}:
        stages = entry["chain"]
        if not isinstance(stages, list) or not stages:
            raise UserError(f"{path}.chain: needs a list of defenses")
        yield from itertools.product(*(list(_configured(host, "defense", one, f"{path}.chain[{n}]")) for n, one in enumerate(stages)))
    else:
        yield from ((stage,) for stage in _configured(host, "defense", entry, path))


def _configured(host: Host, kind: PluginKind, entry: Any, path: str) -> Iterator[ConfiguredPlugin]:
    """The plugin that an entry of a grid names, once for each combination of swept values."""
    name, options = _name_and_options(entry, path)
    try:
        plugin = host.get(kind, name)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    fields = plugin.cls.Config.model_fields
    axes = [_values(options[option], fields.get(option), f"{path}.{name}.{option}") for option in options]
    total = math.prod(map(len, axes))
    if total > MAX_CELLS:
        raise UserError(f"{path}.{name}: a sweep of {total:,} combinations; use at most {MAX_CELLS:,}")
    for values in itertools.product(*axes):
        try:
            instance = plugin.configure(dict(zip(options, values, strict=True)))
        except ValidationError as error:
            raise UserError(explain(error, f"{path}.{name}", fields)) from None
        yield ConfiguredPlugin(plugin, instance)


def _name_and_options(entry: Any, path: str) -> tuple[str, dict[str, Any]]:
    """`name` or `{name: {option: value}}`, as parsed from YAML."""
    if isinstance(entry, str):
        return entry, {}
    if not (isinstance(entry, dict) and len(entry) == 1 and isinstance(next(iter(entry)), str)):
        raise UserError(f"{path}: write a name, or {{name: {{option: value}}}}")
    name, options = next(iter(entry.items()))
    if options is None:
        return name, {}
    if not isinstance(options, dict) or not all(isinstance(key, str) for key in options):
        raise UserError(f"{path}.{name}: options must be a mapping of names to values")
    return name, options


def _values(value: Any, field: Any, path: str) -> list[Any]:
    """The values of an option: a list of them for a sweep, else the one."""
    if isinstance(value, dict) and set(value) == {"sweep"}:
        value = value["sweep"]
        if not isinstance(value, list):
            raise UserError(f"{path}.sweep: needs a list of values")
    elif not isinstance(value, list) or (field is not None and _takes_list(field.annotation)):
        return [value]
    if not value:
        raise UserError(f"{path}: an empty sweep; give at least one value")
    return value


def _takes_list(annotation: Any) -> bool:
    origin = typing.get_origin(annotation)
    if origin in {typing.Union, types.UnionType, typing.Annotated}:
        return any(_takes_list(part) for part in typing.get_args(annotation))
    base = origin or annotation
    return annotation is Any or (isinstance(base, type) and issubclass(base, list | tuple | set | frozenset))
