"""Find and import plugins: the shipped package, entry points of group `gatecrash`, and `--plugins`. Each is imported on its own."""

from __future__ import annotations

import hashlib
import importlib
import importlib.metadata
import importlib.util
import pkgutil
import re
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

from gatecrash.errors import UserError
from gatecrash.host.host import FILE_PREFIX, Host, Problem

SHIPPED = "gatecrash_plugins"


def load_plugins(paths: Sequence[Path | str] = (), *, shipped: bool = True, installed: bool = True) -> Host:
    """Load all plugins: shipped, installed (entry points) and the files or folders in `paths`. The same call serves every worker.

    Raises UserError only for a path in `paths` that does not exist; everything else becomes a Problem.
    """
    host = Host(tuple(Path(path) for path in paths))
    if shipped:
        for name in _shipped_modules():
            _load(host, name, partial(importlib.import_module, name))
    if installed:
        for entry in sorted(importlib.metadata.entry_points(group="gatecrash"), key=lambda entry: entry.name):
            _load(host, f"{entry.value} (entry point {entry.name})", entry.load)
    for file in plugin_files(host.paths):
        content = hashlib.sha256(file.read_bytes()).hexdigest()
        _load(host, str(file), partial(_import_file, file, content), content)
    return host


def _load(host: Host, origin: str, importer: Callable[[], Any], content: str | None = None) -> None:
    try:
        module = importer()
    except (Exception, SystemExit) as error:
        host.problems.append(Problem(origin, f"cannot be imported: {type(error).__name__}: {error}", traceback.format_exc()))
        return
    host.add(module, origin, content)


def _shipped_modules() -> Iterator[str]:
    package = importlib.import_module(SHIPPED)
    for info in pkgutil.walk_packages(package.__path__, f"{SHIPPED}."):
        if not info.ispkg and not info.name.rpartition(".")[2].startswith("_"):
            yield info.name


def plugin_files(paths: Sequence[Path]) -> Iterator[Path]:
    for path in paths:
        if path.is_dir():
            yield from sorted(file for file in path.glob("*.py") if not file.name.startswith("_"))
        elif path.is_file():
            yield path
        else:
            raise UserError(f"--plugins {path}: no such file or folder; check the path")


def _import_file(file: Path, content: str) -> ModuleType:
    """Import a file under a name made of its stem and content, so that equal stems in two folders do not collide and the stored reference
    of a Portable finds the same code in every process."""
    name = f"{FILE_PREFIX}{content[:12]}_{re.sub(r'[^0-9A-Za-z_]', '_', file.stem)}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise ImportError(f"{file} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module
