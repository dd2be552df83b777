"""gatecrash show."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

import click

from gatecrash.cli.options import overrides_option, parse_overrides, plugins_option, warn_of_problems
from gatecrash.errors import UserError, did_you_mean

CLASSES = "dataset"
"""The word before a dataset or grid whose classes are to be listed."""


@click.command("show")
@click.argument("names", nargs=-1, required=True, metavar="[dataset] NAME")
@overrides_option
@plugins_option
def command(names: tuple[str, ...], overrides: tuple[str, ...], plugin_paths: tuple[Path, ...]) -> None:
    """Show the attack, defense, dataset, model, grid or recipe called NAME: what it does, its paper, its options with defaults and bounds.

    `gatecrash show dataset NAME`, with a dataset's or a grid's name or a YAML file, lists the classes with numbers and counts. Options are
    given as for a run: -o dataset.imagefolder.root=DIR.
    """
    from gatecrash.host.loading import load_plugins

    if len(names) > 2 or (len(names) == 2 and names[0] != CLASSES):
        raise UserError(f"show takes one name, or {CLASSES} and a name; got {' '.join(names)}")
    if len(names) == 1 and overrides:
        raise UserError(f"-o goes with gatecrash show {CLASSES} {names[0]}")
    if len(names) == 2:
        host = load_plugins(plugin_paths)
        warn_of_problems(host)
        click.echo(_classes(names[1], overrides, host))
        return
    found = _texts(names[0], plugin_paths)
    for index, text in enumerate(found):
        click.echo(("\n" if index else "") + text())


def _texts(name: str, plugin_paths: tuple[Path, ...]) -> list[Callable[[], str]]:
    """What is called so, described. Raises UserError for an unknown name. Plugins are loaded only for one of their names."""
    from gatecrash.contracts.recipe import ADAPTIVE, PRESETS
    from gatecrash.host.kinds import KINDS
    from gatecrash.host.listing import list_plugins
    from gatecrash.host.loading import load_plugins
    from gatecrash.planning.grid import shipped_grids

    listing = list_plugins(plugin_paths)
    warn_of_problems(listing)
    recipes, known = [*PRESETS, ADAPTIVE], [plugin.name for plugin in listing.plugins]
    found: list[Callable[[], str]] = [lambda: _grid(name)] if name in shipped_grids() else []
    if name in known:
        host = load_plugins(plugin_paths)
        plugins = [plugin for kind in KINDS for plugin in host.all(kind) if plugin.name == name]
        found += [lambda plugin=plugin: _describe(plugin) for plugin in plugins]  # type: ignore[misc]
    found += [lambda: _recipe(name)] if name in recipes else []
    if not found:
        if listing.problems:
            load_plugins(plugin_paths).check_refused(name)
        raise UserError(f"nothing is called {name!r}; {did_you_mean(name, [*known, *shipped_grids(), *recipes])}")
    return found


def _grid(name: str) -> str:
    return resources.files("gatecrash.grids").joinpath(f"{name}.yaml").read_text(encoding="utf-8").rstrip()


def _recipe(name: str) -> str:
    """A preset's values; of the adaptive one for several sizes of the training set."""
    from tabulate import tabulate

    from gatecrash.contracts.recipe import ADAPTIVE, PRESETS, Recipe, adaptive

    sizes = (500, 2_000, 5_000, 20_000, 50_000) if name == ADAPTIVE else ()
    values = [adaptive(size) for size in sizes] or [PRESETS[name]]
    fields = [(field, *(getattr(recipe, field) for recipe in values), info.description) for field, info in Recipe.model_fields.items()]
    if not sizes:
        return f"{name} (recipe)\n\n" + tabulate(fields, headers=["field", "value", "what it is"], maxcolwidths=[None, None, 60])
    table = tabulate([field[:-1] for field in fields], headers=["field", *(f"{size:,} images" for size in sizes)])
    return f"{name} (recipe)\n{inspect.cleandoc(adaptive.__doc__ or '')}\n\n{table}"


def _classes(name: str, overrides: tuple[str, ...], host: Any) -> str:
    """The classes of a dataset, given by its own name or by a grid's."""
    from tabulate import tabulate

    from gatecrash.datasets.description import class_counts, described
    from gatecrash.datasets.preparation import prepare_dataset
    from gatecrash.planning.grid import is_grid_file, load_grid, parse_grid, shipped_grids
    from gatecrash.planning.resolve import resolve

    parsed = parse_overrides(overrides)
    if is_grid_file(name) or name in shipped_grids():
        grid = load_grid(name, parsed)
    else:
        host.get("dataset", name)
        bare = {"name": "classes", "dataset": name, "model": "small-cnn", "attacks": ["none"], "defenses": ["none"]}
        grid = parse_grid(bare, CLASSES, parsed)
    prepared = prepare_dataset(resolve(grid, host).dataset.instance)
    rows = class_counts(prepared, grid.holdout)
    table = tabulate(rows, headers=["number", "class", "train", "hold-out", "test"], disable_numparse=[1])
    return f"{prepared.name}: {described(prepared, grid.holdout)}\n\n{table}"


def _describe(plugin: Any) -> str:
    from tabulate import tabulate

    from gatecrash.authoring.plugin_docs import needs_of, options_of

    cls = plugin.cls
    lines = [f"{plugin.name} ({plugin.kind}, version {getattr(cls, 'version', 1)})", cls.summary]
    if getattr(cls, "reference", None):
        lines.append(f"Reference: {cls.reference}")
    lines.append(f"From: {plugin.origin}")
    if needs_of(plugin):
        lines.append(needs_of(plugin))
    if plugin.kind == "defense":
        from gatecrash.contracts.defense import access_class

        lines.append(f"Access class: {access_class(frozenset(cls.needs), frozenset(cls.gives))}")
    documentation = inspect.getdoc(cls)
    if documentation:
        lines += ["", documentation]
    options = [(option.name, option.type, option.default, option.bounds, option.description) for option in options_of(cls.Config)]
    if options:
        lines += [
            "",
            tabulate(options, headers=["option", "type", "default", "bounds", "what it does"], maxcolwidths=[None, 30, 20, 16, 60]),
        ]
    else:
        lines += ["", "No options."]
    return "\n".join(lines)
