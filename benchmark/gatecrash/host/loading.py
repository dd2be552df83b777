"""Find and import plugins: the shipped package, entry points of group `gatecrash`, and `--plugins`. Each is imported on its own."""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import pkgutil
import re
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from gatecrash.errors import UserError
from gatecrash.host.file_import import import_file
from gatecrash.host.host import Host, Problem
from gatecrash.host.plugin_file import PluginFile, read_plugin_file
from gatecrash.process.lasting import nothing_collected

SHIPPED = "gatecrash_plugins"
NO_PLUGIN = re.compile(r"_|test_|conftest\.py$|.*_test\.py$")
"""Files of a `--plugins` folder that pytest or the plugins import, but that are none."""


@nothing_collected()
def load_plugins(paths: Sequence[Path | str] = (), *, shipped: bool = True, installed: bool = True) -> Host:
    """Load all plugins: shipped, installed (entry points) and the files or folders in `paths`. The same call serves every worker.

    Raises UserError only for a path in `paths` that does not exist; everything else becomes a Problem.
    """
    host = Host(tuple(Path(path) for path in paths))
    if shipped:
        for name in shipped_modules():
            _load(host, name, partial(importlib.import_module, name))
    if installed:
        for entry in sorted(importlib.metadata.entry_points(group="gatecrash"), key=lambda entry: entry.name):
            _load(host, f"{entry.value} (entry point {entry.name})", entry.load)
    for path in plugin_files(host.paths):
        _load_file(host, path)
    return host


def load_files(host: Host, files: Iterable[PluginFile]) -> Host:
    """Load `--plugins` files that were read before."""
    for file in files:
        host.files.append(file)
        _load(host, str(file.path), partial(import_file, file), file.content)
    return host


def _load_file(host: Host, path: Path) -> None:
    try:
        file = read_plugin_file(path)
    except UserError as error:
        host.problems.append(Problem(str(path), str(error)))
    else:
        load_files(host, [file])


def _load(host: Host, origin: str, importer: Callable[[], Any], content: str | None = None) -> None:
    try:
        module = importer()
    except (Exception, SystemExit) as error:
        host.problems.append(Problem(origin, f"cannot be imported: {type(error).__name__}: {error}", traceback.format_exc()))
        return
    host.add(module, origin, content)


def shipped_modules() -> Iterator[str]:
    package = importlib.import_module(SHIPPED)
    for info in pkgutil.walk_packages(package.__path__, f"{SHIPPED}."):
        if not info.ispkg and not info.name.rpartition(".")[2].startswith("_"):
            yield info.name


def plugin_files(paths: Sequence[Path]) -> Iterator[Path]:
    """The files, and those of the folders but for helpers (`_*.py`) and tests. Raises UserError for what is neither."""
    for path in paths:
        if os.path.isdir(path):
            try:
                yield from sorted(file for file in path.glob("*.py") if file.is_file() and not NO_PLUGIN.match(file.name))
            except OSError as error:
                raise UserError(f"--plugins {path}: {error.strerror or error}; check the path") from None
        elif os.path.isfile(path):
            yield path
        else:
            raise UserError(f"--plugins {path}: no such file or folder; check the path")
