"""Adding results to a published board."""

from __future__ import annotations

import re
from collections.abc import Container, Sequence
from pathlib import Path

from gatecrash.boards.pictures import picture
from gatecrash.boards.published.comparable import refuse_dirty, refuse_mixtures, versions
from gatecrash.boards.published.folder import Boards, is_board_name
from gatecrash.boards.published.generated import regenerate
from gatecrash.boards.published.redaction import redacted, slimmed
from gatecrash.boards.superseded import table_position
from gatecrash.errors import UserError
from gatecrash.host.host import Host
from gatecrash.records.files import write
from gatecrash.records.result import Result


def publish(
    boards: Boards, name: str, new: Sequence[Result], host: Host, *, pictures: Path | None = None, allow_dirty: bool = False
) -> int:
    """Add results to a board and regenerate it. Returns how many cells it has then.

    They replace those of the same attack, defense and seed; where versions differ, those of other options, too: an option may be new.

    `pictures` is the folder below which the figures of `new` lie: their store. Raises UserError, before anything is written, for a
    mixture of what is not comparable, and for code with uncommitted changes.
    """
    if not is_board_name(name):
        raise UserError(f"--board {name}: use lower-case letters, digits, '.', '-' and '_'")
    folder = boards.folder(name)
    there = boards.results(name) if name in boards.names() else []
    published = {table_position(result): result for result in there if not _is_of_older_version(result, new)}
    added = {table_position(result): result for result in (redacted(result, host) for result in new)}
    merged = slimmed((published | added).values())
    refuse_mixtures(merged)
    if not allow_dirty:
        refuse_dirty(list(added.values()))
    files: dict[Path, bytes] = {}
    for result in merged:
        files |= _files(folder, result, pictures if table_position(result) in added else folder)
    _write(folder, files)
    regenerate(boards, name, host)
    return len(merged)


def _is_of_older_version(result: Result, new: Sequence[Result]) -> bool:
    """Whether one of `new` is of the same plugins and seed, but of other versions."""
    return any(_names(other) == _names(result) and set(versions(other)) != set(versions(result)) for other in new)


def _names(result: Result) -> tuple[str, list[str], int]:
    return result.attack.name, [stage.name for stage in result.defense], result.seed


def unnamed_files(folder: Path, files: Container[Path]) -> list[Path]:
    """Files below a board's folder that are none of `files`."""
    return [path for path in folder.rglob("*") if path.is_file() and path not in files]


def _write(folder: Path, files: dict[Path, bytes]) -> None:
    """Write the files, and remove all others below the folder."""
    for path, content in files.items():
        write(path, content)
    for path in unnamed_files(folder, files):
        path.unlink()
    for subfolder in folder.glob("*/"):
        if not any(subfolder.iterdir()):
            subfolder.rmdir()


def _files(folder: Path, result: Result, pictures: Path | None) -> dict[Path, bytes]:
    """The files of one result by path: its JSON, and those of its pictures that exist below `pictures`."""
    name = _file_name(result)
    contents = {shows: picture(pictures, path) for shows, path in result.figures.items()} if pictures is not None else {}
    figures = {shows: f"{name}/{Path(result.figures[shows]).name}" for shows, content in contents.items() if content is not None}
    files = {folder / path: content for shows, path in figures.items() if (content := contents[shows]) is not None}
    return {folder / f"{name}.json": (result.model_copy(update={"figures": figures, "kept": None}).to_text() + "\n").encode(), **files}


def _file_name(result: Result) -> str:
    """Name of the result's file, without suffix, and of its pictures' folder."""
    defense = "+".join(stage.name for stage in result.defense)
    return f"{_plain(result.attack.name)}.{_plain(defense)}.{result.seed}.{_plain(result.key)[:8]}"


def _plain(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9+-]", "-", name)[:80]
