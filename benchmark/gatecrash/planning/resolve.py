"""A grid against the installed plugins: every name and option checked, sweeps expanded."""

from __future__ import annotations

import itertools
import types
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from gatecrash.contracts.recipe import Recipe, recipe_from
from gatecrash.errors import UserError
from gatecrash.host.host import Host, Plugin, PluginKind
from gatecrash.planning.grid import MAX_CELLS, Grid, explain


@dataclass(frozen=True)
class Choice:
    """A plugin with checked options; `label` tells sweep values apart."""

    plugin: Plugin
    instance: Any

    @property
    def name(self) -> str:
        return self.plugin.name

    @property
    def options(self) -> dict[str, Any]:
        """The options that differ from their defaults, as JSON."""
        fields: dict[str, Any] = self.instance.config.model_dump(mode="json", exclude_defaults=True)
        return fields


@dataclass(frozen=True)
class Resolved:
    """A grid whose every name and option has been checked against the host; sweeps are expanded."""

    grid: Grid
    dataset: Choice
    model: Choice
    recipe: Recipe
    attacks: tuple[Choice, ...]
    defenses: tuple[tuple[Choice, ...], ...]
    """Each defense is its stages: one, or several for a chain."""


def resolve(grid: Grid, host: Host) -> Resolved:
    """Check every name and option against the host and expand sweeps. Raises UserError with the field's path."""
    dataset = _single(host, "dataset", grid.dataset)
    model = _single(host, "model", grid.model)
    try:
        recipe = recipe_from(grid.recipe)
    except ValidationError as error:
        raise UserError(explain(error, "recipe", Recipe.model_fields)) from None
    attacks = [choice for index, entry in enumerate(grid.attacks) for choice in _plugins(host, "attack", entry, f"attacks[{index}]")]
    defenses = [stages for index, entry in enumerate(grid.defenses) for stages in _stages(host, entry, f"defenses[{index}]")]
    return Resolved(grid, dataset, model, recipe, tuple(attacks), tuple(defenses))


def _single(host: Host, kind: PluginKind, entry: Any) -> Choice:
    choices = list(_plugins(host, kind, entry, kind))
    if len(choices) != 1:
        raise UserError(f"{kind}: a grid has one {kind}; write one grid for each value")
    return choices[0]


def _stages(host: Host, entry: Any, path: str) -> Iterator[tuple[Choice, ...]]:
    if isinstance(entry, dict) and set(entry) == {"chain"}:
        links = entry["chain"]
        if not isinstance(links, list) or not links:
            raise UserError(f"{path}.chain: needs a list of defenses")
        options = [list(_plugins(host, "defense", link, f"{path}.chain[{index}]")) for index, link in enumerate(links)]
        yield from itertools.product(*options)
    else:
        for choice in _plugins(host, "defense", entry, path):
            yield (choice,)


def _plugins(host: Host, kind: PluginKind, entry: Any, path: str) -> Iterator[Choice]:
    """One choice per combination of swept values."""
    options: Any = {}
    if isinstance(entry, str):
        name = entry
    elif isinstance(entry, dict) and len(entry) == 1 and isinstance(next(iter(entry)), str):
        name, options = next(iter(entry.items()))
        options = {} if options is None else options
    else:
        raise UserError(f"{path}: write a name, or {{name: {{option: value}}}}")
    if not isinstance(options, dict) or not all(isinstance(key, str) for key in options):
        raise UserError(f"{path}.{name}: options must be a mapping of names to values")
    try:
        plugin = host.get(kind, name)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    fields = plugin.cls.Config.model_fields
    axes = [_values(options[option], fields.get(option), f"{path}.{name}.{option}") for option in options]
    total = 1
    for axis in axes:
        total *= len(axis)
    if total > MAX_CELLS:
        raise UserError(f"{path}.{name}: a sweep of {total:,} combinations; use at most {MAX_CELLS:,}")
    for values in itertools.product(*axes):
        try:
            instance = plugin.configure(dict(zip(options, values, strict=True)))
        except ValidationError as error:
            raise UserError(explain(error, f"{path}.{name}", fields)) from None
        yield Choice(plugin, instance)


def _values(value: Any, field: Any, path: str) -> list[Any]:
    if isinstance(value, dict) and set(value) == {"sweep"}:
        value, forced = value["sweep"], True
    else:
        forced = False
    if isinstance(value, list) and (forced or field is None or not _takes_list(field.annotation)):
        if not value:
            raise UserError(f"{path}: an empty sweep; give at least one value")
        return value
    if forced:
        raise UserError(f"{path}.sweep: needs a list of values")
    return [value]


def _takes_list(annotation: Any) -> bool:
    origin = typing.get_origin(annotation)
    if origin in {typing.Union, types.UnionType, typing.Annotated}:
        return any(_takes_list(part) for part in typing.get_args(annotation))
    base = origin or annotation
    return annotation is Any or (isinstance(base, type) and issubclass(base, list | tuple | set | frozenset))
