"""What is installed, without importing it: names and summaries, kept in the cache folder until a file changes that was imported for them.

What a plugin registers is known only once it has run, which takes torch. So all that was imported then is remembered by size and time of
change, torch's own files included, and so are the folders that Python searches: a change to any, another plugin module, entry point or
`--plugins` file, and the plugins are loaded again. Where one is broken nothing is kept: what mends it may lie anywhere.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import sys
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from pydantic import BaseModel

from gatecrash.errors import UserError
from gatecrash.host.host import Host, Problem
from gatecrash.host.kinds import KINDS, PluginKind
from gatecrash.host.loading import load_plugins, plugin_files, shipped_modules
from gatecrash.host.plugin_file import read_plugin_file
from gatecrash.process.cache_folder import cache_folder
from gatecrash.process.whole_file import replacing
from gatecrash.versions import VERSION

Stamps = dict[str, tuple[int, int]]
"""By path, a file's size and time of change in nanoseconds."""


class Listed(BaseModel):
    """A plugin by name; `origin` is its module or file."""

    kind: PluginKind
    name: str
    summary: str
    origin: str


class Listing(BaseModel):
    """The usable plugins by kind and name, the modules that were loaded, and what is wrong with the others."""

    plugins: list[Listed]
    modules: list[str]
    problems: list[Problem] = []


class _Kept(BaseModel):
    sought: list[str]
    files: Stamps
    listing: Listing


def list_plugins(paths: Sequence[Path | str] = ()) -> Listing:
    """What `load_plugins` finds, from the cache folder where nothing has changed. Raises UserError as `load_plugins` does."""
    given = tuple(Path(path) for path in paths)
    sought = _sought(given)
    place = cache_folder() / "plugins" / f"{_digest([sys.executable, __file__, *(str(path.absolute()) for path in given)])[:16]}.json"
    with suppress(OSError, ValueError):
        kept = _Kept.model_validate_json(place.read_bytes())
        if kept.sought == sought and kept.files == _stamps(kept.files):
            return kept.listing
    started = time.time_ns()
    listing = _listing(load_plugins(given))
    files = _stamps([*sys.path, *(getattr(module, "__file__", None) or "" for module in [*sys.modules.values()])])
    edited_meanwhile = any(changed >= started for _, changed in files.values())
    if not listing.problems and sought and not edited_meanwhile:
        with suppress(OSError), replacing(place) as temporary:
            temporary.write_text(_Kept(sought=sought, files=files, listing=listing).model_dump_json(), encoding="utf-8")
    return listing


def _listing(host: Host) -> Listing:
    plugins = [
        Listed(kind=plugin.kind, name=plugin.name, summary=str(plugin.cls.summary), origin=plugin.origin)
        for kind in KINDS
        for plugin in host.all(kind)
    ]
    return Listing(plugins=plugins, modules=host.modules(), problems=host.problems)


def _sought(paths: Sequence[Path]) -> list[str]:
    """Where plugins are looked for; nothing where a `--plugins` file cannot be read."""
    try:
        files = [f"{path.absolute()} {read_plugin_file(path).content}" for path in plugin_files(paths)]
    except UserError:
        return []
    entries = sorted(f"{entry.name} {entry.value}" for entry in importlib.metadata.entry_points(group="gatecrash"))
    return [VERSION, sys.version, *sys.path, *shipped_modules(), *entries, *files]


def _stamps(paths: Iterable[str]) -> Stamps:
    """Of the paths that are there. Those that are not absolute belong to modules without a file, as torch makes some."""
    found: Stamps = {}
    for path in paths:
        with suppress(OSError, ValueError):
            if os.path.isabs(path):
                status = os.stat(path)
                found[path] = (status.st_size, status.st_mtime_ns)
    return found


def _digest(texts: list[str]) -> str:
    return hashlib.sha256(json.dumps(texts).encode()).hexdigest()
