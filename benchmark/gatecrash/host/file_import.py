"""Importing a `--plugins` file under a name made of its content, and the modules beside it as parts of it.

So equal names in two folders do not collide, a changed helper is another module, the stored reference of a Portable finds the same code in
every process, and what is executed are the bytes that were hashed.
"""

from __future__ import annotations

import builtins
import importlib.util
import re
import sys
from collections.abc import Mapping, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

from gatecrash.host.host import FILE_PREFIX
from gatecrash.host.plugin_file import PluginFile

_files: dict[str, PluginFile] = {}
"""By the name of the plugin's module."""


def import_file(file: PluginFile) -> ModuleType:
    """The file's module, imported once per content. Raises whatever the file raises."""
    name = f"{FILE_PREFIX}{file.content[:12]}_{re.sub(r'[^0-9A-Za-z_]', '_', file.path.stem)}"
    if name in sys.modules:
        return sys.modules[name]
    _files[name] = file
    spec = _spec(name, name, file.path, file.source, is_package=bool(file.beside))
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        assert spec.loader is not None
        spec.loader.exec_module(module)
    except BaseException:
        for loaded in [loaded for loaded in sys.modules if loaded == name or loaded.startswith(f"{name}.")]:
            del sys.modules[loaded]
        raise
    return module


def _spec(plugin: str, name: str, path: Path, source: bytes, *, is_package: bool) -> ModuleSpec:
    places = [str(path.parent)] if is_package else None
    spec = importlib.util.spec_from_file_location(name, path, loader=_Source(plugin, path, source), submodule_search_locations=places)
    if spec is None:
        raise ImportError(f"{path} is not a Python file")
    return spec


class _Source(Loader):
    """Executes the bytes that were read."""

    def __init__(self, plugin: str, path: Path, source: bytes) -> None:
        self._plugin, self._path, self._source = plugin, path, source

    def exec_module(self, module: ModuleType) -> None:
        if _files[self._plugin].beside:
            vars(module)["__builtins__"] = {**vars(builtins), "__import__": _importer(self._plugin)}
        exec(compile(self._source, str(self._path), "exec", dont_inherit=True), vars(module))


def _importer(plugin: str) -> Any:
    """An `__import__` to which modules beside the plugin file are parts of it."""
    beside = {Path(name).parts[0].removesuffix(".py") for name, _ in _files[plugin].beside if name.endswith(".py")}

    def importer(
        name: str,
        globals: Mapping[str, Any] | None = None,
        locals: Mapping[str, Any] | None = None,
        fromlist: Sequence[str] | None = (),
        level: int = 0,
    ) -> Any:
        head = name.partition(".")[0]
        if level or head not in beside:
            return builtins.__import__(name, globals, locals, fromlist or (), level)
        found = builtins.__import__(f"{plugin}.{name}", globals, locals, fromlist or ("__name__",), 0)
        return found if fromlist else sys.modules[f"{plugin}.{head}"]

    return importer


class _Beside(MetaPathFinder):
    """Finds `<module of the plugin>.<module beside it>`, at any depth."""

    def find_spec(self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        plugin, _, rest = fullname.partition(".")
        if plugin not in _files or not rest:
            return None
        file, place = _files[plugin], rest.replace(".", "/")
        beside = dict(file.beside)
        for name, is_package in ((f"{place}/__init__.py", True), (f"{place}.py", False)):
            if name in beside:
                return _spec(plugin, fullname, file.path.parent / name, beside[name], is_package=is_package)
        if any(name.startswith(f"{place}/") and name.endswith(".py") for name in beside):
            return ModuleSpec(fullname, None, is_package=True)
        return None


sys.meta_path.insert(0, _Beside())
