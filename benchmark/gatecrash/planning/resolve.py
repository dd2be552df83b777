"""A grid against the installed plugins: every name and option checked, sweeps expanded."""

from __future__ import annotations

import itertools
import math
import types
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from gatecrash.contracts.config import content_of, find_mark, key_fields, nested_content
from gatecrash.contracts.naming import NamesTrigger
from gatecrash.contracts.recipe import Recipe, recipe_from
from gatecrash.datasets.clean_data import CleanData
from gatecrash.datasets.preparation import PreparedDataset
from gatecrash.errors import UserError, counted, path_fault, shown
from gatecrash.host.host import Host, Plugin
from gatecrash.host.kinds import PluginKind
from gatecrash.planning.grid import MAX_CELLS, Grid
from gatecrash.planning.messages import ENTRY, explain
from gatecrash.records.stage import DATASET, PLUGIN_FILE, Stage


@dataclass(frozen=True)
class ConfiguredPlugin:
    """A plugin with checked options: one value of a sweep."""

    plugin: Plugin
    instance: Any
    when: Literal["accused"] | None = None
    """Of a stage of a chain: the verdict so far under which it runs; None for one that always does."""
    clean: CleanData | None = None
    """What clean images a defense is given, where it is not the whole hold-out."""
    datasets: Mapping[str, PreparedDataset] = field(default_factory=dict)
    """By option, the second data sets that the options name; `references.with_datasets` finds them."""

    @property
    def name(self) -> str:
        return self.plugin.name

    @cached_property
    def stage(self) -> Stage:
        """As stored records name it: all options, defaults too."""
        config = self.instance.config
        content = content_of(config) | nested_content(config) | self._fingerprints
        content |= {PLUGIN_FILE: self.plugin.content} if self.plugin.content else {}
        clean = self.clean and self.clean.model_dump(mode="json")
        described = {"config": config.model_dump(mode="json"), "content": content, "when": self.when, "clean": clean}
        return Stage(name=self.name, version=self.plugin.cls.version, **described)

    @cached_property
    def identity(self) -> list[Any]:
        """What enters keys: name, version, the options that differ from their defaults, content of a `--plugins` file. JSON."""
        said = [part for part in (self.when, self.clean and key_fields(self.clean)) if part]
        fields = key_fields(self.instance.config) | self._fingerprints
        return [self.name, self.plugin.cls.version, fields, self.plugin.content, *said]

    @property
    def _fingerprints(self) -> dict[str, str]:
        """By option, what stands in keys and records for the data set that it names."""
        return {option: f"{DATASET}{prepared.fingerprint}" for option, prepared in self.datasets.items()}

    @property
    def preparation_identity(self) -> list[Any]:
        """What enters the key of what an attack prepares: its identity, without the options that this does not depend on."""
        name, version, fields, *rest = self.identity
        declared = self.plugin.cls.prepare_options
        return [name, version, {option: value for option, value in fields.items() if option in declared}, *rest]


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
    dataset = single(host, "dataset", grid.dataset)
    model = single(host, "model", grid.model)
    try:
        recipe = recipe_from(grid.recipe)
    except ValidationError as error:
        raise UserError(explain(error, "recipe", Recipe.model_fields)) from None
    attacks = [[_asked(host, "attack", entry, f"attacks[{index}]")] for index, entry in enumerate(grid.attacks)]
    everywhere = _clean_data(grid.clean_data, "clean_data") if grid.clean_data else [CleanData()]
    defenses = [_asked_chain(host, entry, f"defenses[{index}]", everywhere) for index, entry in enumerate(grid.defenses)]
    check_size(_count(attacks), sum(defense.count for defense in defenses))
    return ResolvedGrid(
        grid,
        dataset,
        model,
        recipe,
        tuple(attack for [asked] in attacks for attack in asked.configured()),
        tuple(chain for defense in defenses for chain in defense.chains()),
    )


def check_size(attacks: int, defenses: int, seeds: int = 1) -> None:
    """Raise UserError for a grid that is taken for a mistake. Called before anything is built, since that may not fit in memory."""
    if attacks * defenses * seeds > MAX_CELLS:
        product = f"{counted(attacks, 'attack')} x {counted(defenses, 'defense')} x {counted(seeds, 'seed')}"
        total = counted(attacks * defenses * seeds, "cell")
        raise UserError(f"a grid of {total} ({product}); use at most {MAX_CELLS:,}: fewer values in its sweeps and chains, or fewer seeds")


@dataclass(frozen=True)
class _Asked:
    """The plugin that an entry of a grid names, with the values of each option: several for a sweep."""

    plugin: Plugin
    path: str
    axes: dict[str, list[Any]]
    when: Literal["accused"] | None = None

    @property
    def count(self) -> int:
        return math.prod(map(len, self.axes.values()))

    def configured(self) -> Iterator[ConfiguredPlugin]:
        """The plugin once for each combination of values."""
        for values in itertools.product(*self.axes.values()):
            try:
                instance = self.plugin.configure(dict(zip(self.axes, values, strict=True)))
            except ValidationError as error:
                raise UserError(explain(error, f"{self.path}.{self.plugin.name}", self.plugin.cls.Config.model_fields)) from None
            for option, value in instance.config:
                if isinstance(value, Path) and (fault := path_fault(value)) is not None:
                    raise UserError(f"{self.path}.{self.plugin.name}.{option}: {shown(str(value))}: {fault}")
            yield ConfiguredPlugin(self.plugin, instance, self.when)


@dataclass(frozen=True)
class _AskedDefense:
    """A defense of a grid: its stages, and what clean images it is given: several for a sweep."""

    stages: Sequence[_Asked]
    clean: Sequence[CleanData]

    @property
    def count(self) -> int:
        return math.prod(asked.count for asked in self.stages) * len(self.clean)

    def chains(self) -> Iterator[Chain]:
        for chain in itertools.product(*(list(stage.configured()) for stage in self.stages)):
            for clean in self.clean:
                yield tuple(replace(stage, clean=clean if _wants_clean(stage.plugin) and clean != CleanData() else None) for stage in chain)


def _wants_clean(plugin: Plugin) -> bool:
    return "clean-data" in plugin.cls.needs


def _count(entries: Iterable[Sequence[_Asked]]) -> int:
    return sum(math.prod(asked.count for asked in stages) for stages in entries)


def configured(host: Host, kind: PluginKind, entry: Any, path: str) -> list[ConfiguredPlugin]:
    """What an entry of a grid names: `name` or `{name: {option: value}}`, one for each value of a sweep. Raises UserError with `path`."""
    return list(_asked(host, kind, entry, path).configured())


def single(host: Host, kind: PluginKind, entry: Any) -> ConfiguredPlugin:
    """The one plugin that the field `kind` of a grid names. Raises UserError."""
    asked = _asked(host, kind, entry, kind)
    if asked.count != 1:
        raise UserError(f"{kind}: a grid has one {kind}; write one grid for each value")
    return next(asked.configured())


def _asked_chain(host: Host, entry: Any, path: str, everywhere: Sequence[CleanData]) -> _AskedDefense:
    """A defense, or `{chain: [defense, ...]}`; beside either `clean: {kind: …, per_class: …}` in place of what the grid says of all."""
    said = isinstance(entry, dict) and len(entry) == 2 and "clean" in entry
    clean = _clean_data(entry["clean"], f"{path}.clean") if said else everywhere
    if said:
        entry = {name: options for name, options in entry.items() if name != "clean"}
    stages = _asked_stages(host, entry, path)
    if said and not any(_wants_clean(stage.plugin) for stage in stages):
        raise UserError(f"{path}.clean: {stages[0].plugin.name} is given no clean images; leave it out")
    return _AskedDefense(stages, clean if any(_wants_clean(stage.plugin) for stage in stages) else [CleanData()])


def _asked_stages(host: Host, entry: Any, path: str) -> list[_Asked]:
    """The stages of a defense: one where it is no chain."""
    if not (isinstance(entry, dict) and set(entry) == {"chain"}):
        return [_asked(host, "defense", entry, path)]
    stages = entry["chain"]
    if not isinstance(stages, list) or not stages:
        raise UserError(f"{path}.chain: needs a list of defenses")
    return [_asked_stage(host, stage, f"{path}.chain[{index}]") for index, stage in enumerate(stages)]


def _clean_data(value: Any, path: str) -> list[CleanData]:
    """`seen`, `{kind: seen, per_class: 10}`, or lists of these and of numbers: one for each value, each once."""
    found = []
    for index, entry in enumerate(value if isinstance(value, list) else [value]):
        where = f"{path}[{index}]" if isinstance(value, list) else path
        fields = {"kind": entry} if isinstance(entry, str) else entry
        if not isinstance(fields, dict) or not fields:
            raise UserError(f"{where}: write a kind, or {{kind: seen, per_class: 10}}")
        axes = {name: part if isinstance(part, list) else [part] for name, part in fields.items()}
        for values in itertools.product(*axes.values()):
            try:
                found.append(CleanData.model_validate(dict(zip(axes, values, strict=True))))
            except ValidationError as error:
                raise UserError(explain(error, where, CleanData.model_fields)) from None
    if not found:
        raise UserError(f"{path}: is empty; leave it out, or write a kind")
    return list({one.model_dump_json(): one for one in found}.values())


def _asked_stage(host: Host, entry: Any, path: str) -> _Asked:
    """A stage of a chain: as any defense, or `{name: {option: value}, when: accused}`."""
    if not (isinstance(entry, dict) and len(entry) == 2 and "when" in entry):
        return _asked(host, "defense", entry, path)
    if entry["when"] != "accused":
        raise UserError(f"{path}.when: {shown(str(entry['when']))} is no condition; write when: accused, or leave it out")
    return replace(_asked(host, "defense", {name: options for name, options in entry.items() if name != "when"}, path), when="accused")


def _asked(host: Host, kind: PluginKind, entry: Any, path: str) -> _Asked:
    name, options = _name_and_options(entry, path)
    try:
        plugin = host.get(kind, name)
    except UserError as error:
        raise UserError(f"{path}: {error}{_wrapped(host, kind, name)}") from None
    fields = plugin.cls.Config.model_fields
    return _Asked(
        plugin, path, {option: _values(host, value, fields.get(option), f"{path}.{name}.{option}") for option, value in options.items()}
    )


def _wrapped(host: Host, kind: PluginKind, name: str) -> str:
    """A plugin that knows architectures by name may know this one."""
    wrappers = [plugin.name for plugin in host.all(kind) if "arch" in plugin.cls.Config.model_fields]
    return f" Or, if {wrappers[0]} has it: {{{wrappers[0]}: {{arch: {name[:40]}}}}}" if wrappers and name.isidentifier() else ""


def _name_and_options(entry: Any, path: str) -> tuple[str, dict[str, Any]]:
    """`name` or `{name: {option: value}}`, as parsed from YAML."""
    if isinstance(entry, str):
        return entry, {}
    if not (isinstance(entry, dict) and len(entry) == 1 and isinstance(next(iter(entry)), str)):
        raise UserError(f"{path}: {ENTRY}")
    name, options = next(iter(entry.items()))
    if options is None:
        return name, {}
    if not isinstance(options, dict) or not all(isinstance(key, str) for key in options):
        raise UserError(f"{path}.{name}: options must be a mapping of names to values")
    return name, options


def _values(host: Host, value: Any, field: Any, path: str) -> list[Any]:
    """The values of an option: several for a sweep, else the one. A trigger's own options may be swept too."""
    values = _swept(value, field, path)
    if field is None or find_mark((*field.metadata, field.annotation), NamesTrigger) is None or _takes_list(field.annotation):
        return values
    named = [_asked(host, "trigger", entry, path) if entry is not None else None for entry in values]
    check_size(sum(asked.count for asked in named if asked), 1)
    return [found for asked in named for found in (([configured.instance for configured in asked.configured()]) if asked else [None])]


def _swept(value: Any, field: Any, path: str) -> list[Any]:
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
