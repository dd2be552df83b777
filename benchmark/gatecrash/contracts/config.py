"""Options of plugins: frozen pydantic models whose fields are described and bounded.

The command line, YAML validation, `gatecrash show`, the generated docs and the keys are all derived from the model.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args

from pydantic import BaseModel, ConfigDict

from gatecrash.errors import UserError

Mark = TypeVar("Mark")


class Options(BaseModel):
    """Options of a plugin. Unknown fields are errors; values are immutable."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, ser_json_inf_nan="null")


Config = Options
"""The older name of `Options`."""


def file_hash(path: Path) -> str:
    """sha256 of the file's content; UserError if it cannot be read."""
    try:
        if path.exists() and not path.is_file():
            raise UserError(f"cannot read {path}: it is not a regular file; check the path")
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}; check the path") from None


@dataclass(frozen=True)
class Content:
    """Marks a path whose file's content, not its name, decides the result."""

    key: Callable[[Path], str] = file_hash
    """The text that stands for the content in keys."""


File = Annotated[Path, Content()]
"""Type of a file-valued option; it enters keys by the hash of its content."""


def key_fields(config: BaseModel) -> dict[str, Any]:
    """The part of the options that enters a key: the fields that differ from their defaults, files by content hash.

    Adding a field with a default therefore keeps old keys; changing a default asks for a new plugin version.
    """
    fields: dict[str, Any] = config.model_dump(mode="json", exclude_defaults=True)
    return fields | content_of(config)


def content_of(config: BaseModel) -> dict[str, str]:
    """By field, what stands in keys for the content of the files that the options name."""
    contents = {}
    for name, info in type(config).model_fields.items():
        value, mark = getattr(config, name), find_mark((*info.metadata, info.annotation), Content)
        if mark is not None and isinstance(value, Path):
            contents[name] = f"sha256:{mark.key(value)}"
    return contents


def find_mark(parts: Iterable[Any], kind: type[Mark]) -> Mark | None:
    """The mark of this type among a field's metadata or, for `File | None`, inside its annotation."""
    for part in parts:
        found = part if isinstance(part, kind) else find_mark((*getattr(part, "__metadata__", ()), *get_args(part)), kind)
        if found is not None:
            return found
    return None
