"""A `--plugins` file together with what it takes from its own folder: modules that it imports, packages, data files that it names.

All of it decides the results, so all of it makes up the file's content: that enters keys, names the module, and travels to workers.
"""

from __future__ import annotations

import ast
import base64
import hashlib
import json
import os
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from gatecrash.errors import UserError

LIMIT = 256 * 2**20
"""Bytes beside a plugin file that are taken along."""
INSTALLED = {*sys.stdlib_module_names, "gatecrash", "gatecrash_plugins"}
"""Modules that no file beside a plugin replaces."""


@dataclass(frozen=True)
class PluginFile:
    """`beside` holds the other files, by their path below the plugin's folder, in order."""

    path: Path
    source: bytes
    beside: tuple[tuple[str, bytes], ...] = ()

    @cached_property
    def content(self) -> str:
        """sha256 of the file or, where it takes others along, over all of them and their names."""
        own = hashlib.sha256(self.source).hexdigest()
        if not self.beside:
            return own
        others = {name: hashlib.sha256(content).hexdigest() for name, content in self.beside}
        return hashlib.sha256(json.dumps([own, others], sort_keys=True).encode()).hexdigest()

    def written_to(self, folder: Path) -> PluginFile:
        """The file in this folder of this machine, with what it takes along beside it."""
        for name, content in ((self.path.name, self.source), *self.beside):
            place = folder / name
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(content)
        return replace(self, path=folder / self.path.name)

    def to_json(self) -> list[list[str]]:
        """Names and contents (base64), the file's own first."""
        return [[name, base64.b64encode(content).decode()] for name, content in ((self.path.name, self.source), *self.beside)]

    @classmethod
    def from_json(cls, files: list[list[str]]) -> PluginFile:
        (name, source), *beside = ((name, base64.b64decode(content)) for name, content in files)
        return cls(Path(name), source, tuple(beside))


def read_plugin_file(path: Path) -> PluginFile:
    """The file and what it takes along. What is not Python takes nothing along: importing it will say so.

    A file that is found otherwise than by an import statement, or by a path written with `__file__`, is not seen; an option of type
    `gatecrash.File` is the way for it. Raises UserError for what cannot be read, and for more than LIMIT bytes.
    """
    folder = path.parent
    found: dict[str, bytes] = {}
    waiting, source = [path.name], _bytes(path)
    texts, left = {path.name: source}, LIMIT
    while waiting:
        name = waiting.pop()
        for other in _taken(texts[name], folder, name):
            if other in texts:
                continue
            left -= os.path.getsize(folder / other)
            if left < 0:
                raise UserError(
                    f"{path} takes along more than {LIMIT >> 20} MiB from its folder; give big files by a `gatecrash.File` option"
                )
            texts[other] = found[other] = _bytes(folder / other)
            if other.endswith(".py"):
                waiting.append(other)
    return PluginFile(path, source, tuple(sorted(found.items())))


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from None


def _taken(source: bytes, folder: Path, name: str) -> Iterator[str]:
    """Paths below the folder of the files that this source, the file `name` of it, imports or names."""
    try:
        nodes = list(ast.walk(ast.parse(source)))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return
    if str(folder.absolute()) not in sysconfig.get_paths().values():  # not everything that is installed lies "beside" an installed file
        for module in sorted(_imported(nodes)):
            yield from _module(folder, module)
    parts = _parts(nodes)
    stem = Path(name).stem
    yield from _files(folder, {Path(), Path(name).parent}, parts | {stem + part for part in parts if part.startswith(".")})


def _imported(nodes: list[ast.AST]) -> set[str]:
    """Top names of the imported modules that may lie in the same folder."""
    names: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {node.module or ""} | ({alias.name for alias in node.names} if node.level else set())
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module") and node.args:
            names |= set(_texts(node.args[0]))
    return {name.partition(".")[0] for name in names} - INSTALLED - {""}


def _module(folder: Path, name: str) -> Iterator[str]:
    """The module's file; of a package, every file."""
    package = folder / name
    if not any(package.glob("*.py")):
        if os.path.isfile(folder / f"{name}.py"):
            yield f"{name}.py"
        return
    for file in sorted(package.rglob("*")):
        place = file.relative_to(folder)
        if file.is_file() and not any(part.startswith(".") or part == "__pycache__" for part in place.parts):
            yield place.as_posix()


def _parts(nodes: list[ast.AST]) -> set[str]:
    """Texts in expressions on `__file__`, or on a variable made from it: each may be a part of a path."""
    anchors = {"__file__"}
    assigned = [node for node in nodes if isinstance(node, ast.Assign | ast.AnnAssign)]
    for _ in range(3):  # HERE = Path(__file__).parent; DATA = HERE / "data"; FILE = DATA / "x.npy"
        for node in assigned:
            if _mentions(node.value, anchors):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                anchors |= {target.id for target in targets if isinstance(target, ast.Name)}
    paths = [node for node in nodes if isinstance(node, ast.BinOp | ast.Call | ast.JoinedStr) and _mentions(node, anchors)]
    texts = {text.strip("/") for node in paths for text in _texts(node) if len(text) < 200 and text.isprintable()}
    return {text for text in texts if text.strip(".") and ".." not in Path(text).parts}


def _files(folder: Path, prefixes: set[Path], parts: set[str]) -> Iterator[str]:
    """Files of the folder whose path is put together from these parts."""
    for _ in range(4):
        places = {prefix / part for prefix in prefixes for part in parts}
        yield from sorted(place.as_posix() for place in places if os.path.isfile(folder / place))
        prefixes = {place for place in places if os.path.isdir(folder / place)}


def _mentions(node: ast.AST | None, names: set[str]) -> bool:
    return node is not None and any(isinstance(part, ast.Name) and part.id in names for part in ast.walk(node))


def _texts(node: ast.AST) -> list[str]:
    return [part.value for part in ast.walk(node) if isinstance(part, ast.Constant) and isinstance(part.value, str)]
