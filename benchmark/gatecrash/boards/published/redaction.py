"""What is removed from a result before it is published: logs, paths of the machine, and most of what is large.

A board is kept in a repository and must stay small: pictures and long tables (a mask for each neuron) are published for one seed of each
attack and defense. It is the lowest seed, which is also the one that plots and reports show.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, get_args

from gatecrash.boards.superseded import table_position
from gatecrash.host.host import Host
from gatecrash.host.kinds import PluginKind
from gatecrash.records.result import Result
from gatecrash.records.stage import Stage

LONG = 64
"""Rows of a table that every seed keeps; longer ones are kept for one seed."""

_ABSOLUTE = re.compile(r"(?<![\w./\\:])(?:~|[A-Za-z]:)?[/\\](?:[^\s/\\:'\"<>|(),;]+[/\\])+(?=[^\s/\\:'\"<>|(),;])")


def redacted(result: Result, host: Host) -> Result:
    """The result without its log and without folders of the machine: only the last part of an absolute path stays."""
    places = sorted(_path_options(host, "dataset", result.dataset.name) & set(result.dataset.config))
    origins = {name: _last_part(str(origin)) for name, origin in result.provenance.plugins.items()}
    changed = ({"plugins": origins} if origins else {}) | ({"places": places} if places else {})
    return result.model_copy(
        update={
            "dataset": _stage(host, "dataset", result.dataset),
            "model": _stage(host, "model", result.model),
            "attack": _stage(host, "attack", result.attack),
            "defense": [_stage(host, "defense", stage) for stage in result.defense],
            "error": None if result.error is None else _ABSOLUTE.sub("", result.error),
            "log": None,
            "provenance": result.provenance.model_copy(update=changed),
        }
    )


def slimmed(results: Iterable[Result]) -> list[Result]:
    """The results, with pictures and long tables only for the lowest finished seed of each attack and defense."""
    results = list(results)
    lowest: dict[Any, int] = {}
    for result in results:
        attack_and_defense = table_position(result)[:2]
        if result.status == "ok":
            lowest[attack_and_defense] = min(result.seed, lowest.get(attack_and_defense, result.seed))
    return [result if lowest.get(table_position(result)[:2]) == result.seed else _without_pictures(result) for result in results]


def _without_pictures(result: Result) -> Result:
    tables = {name: rows for name, rows in result.tables.items() if len(rows) <= LONG}
    return result.model_copy(update={"figures": {}, "tables": tables})


def _stage(host: Host, kind: PluginKind, stage: Stage) -> Stage:
    paths = _path_options(host, kind, stage.name)
    config = {name: _last_part(value) if name in paths and isinstance(value, str) else value for name, value in stage.config.items()}
    return stage.model_copy(update={"config": config})


def _path_options(host: Host, kind: PluginKind, name: str) -> set[str]:
    """The plugin's options that are files or folders."""
    plugin = host.plugins.get((kind, name))
    fields = {} if plugin is None else plugin.cls.Config.model_fields
    return {option for option, field in fields.items() if _is_path(field.annotation)}


def _is_path(annotation: Any) -> bool:
    return (isinstance(annotation, type) and issubclass(annotation, Path)) or any(map(_is_path, get_args(annotation)))


def _last_part(text: str) -> str:
    """The last part of a path that is absolute or leads out of its folder; any other text as it is."""
    for kind in (PurePosixPath, PureWindowsPath):
        path = kind(text)
        if (path.is_absolute() or text.startswith("~") or ".." in path.parts) and path.name not in {"", ".."}:
            return path.name
    return text
