"""Options of plugins: frozen pydantic models whose fields are described and bounded.

The command line, YAML validation, `gatecrash show`, the generated docs and the keys are all derived from the model.
"""

from __future__ import annotations

import hashlib
from abc import ABC
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, SerializerFunctionWrapHandler, model_serializer

from gatecrash.errors import UserError

Mark = TypeVar("Mark")


class Options(BaseModel):
    """Options of a plugin. Unknown fields are errors; values are immutable."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, ser_json_inf_nan="null")

    NEWER: ClassVar[frozenset[str]] = frozenset()
    """Fields that were added after results were published. They are written only where they differ from their defaults, so that the options
    of older results stay equal to these."""

    @model_serializer(mode="wrap")
    def _without_newer(self, fields_of: SerializerFunctionWrapHandler) -> dict[str, Any]:
        fields: dict[str, Any] = fields_of(self)
        for name in self.NEWER & fields.keys():
            if getattr(self, name) == type(self).model_fields[name].get_default(call_default_factory=True):
                del fields[name]
        return fields


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


VERSION = " version"
"""End of a path in `nested_content` whose text is a version."""


File = Annotated[Path, Content()]
"""Type of a file-valued option; it enters keys by the hash of its content."""


class Nested(ABC):
    """A configured plugin that is the value of another plugin's option. Equal where class, options and code are."""

    name: ClassVar[str]
    version: ClassVar[int]
    config: Options
    content: str | None = None
    """`PluginFile.content` of a plugin given by `--plugins`; the host sets it."""

    @property
    def identity(self) -> list[Any]:
        """What enters keys, as for every plugin: name, version, options that differ from their defaults, content of its file."""
        return [self.name, self.version, key_fields(self.config), self.content]

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and isinstance(other, Nested) and self.identity == other.identity

    def __hash__(self) -> int:
        return hash((type(self), self.content))


def key_fields(config: BaseModel) -> dict[str, Any]:
    """The part of the options that enters a key: the fields that differ from their defaults, files by content hash.

    Adding a field with a default therefore keeps old keys; changing a default asks for a new plugin version.
    """
    fields: dict[str, Any] = config.model_dump(mode="json", exclude_defaults=True)
    nested = {name: _keyed(getattr(config, name)) for name in fields if any(nested_in(getattr(config, name)))}
    return fields | nested | content_of(config)


def _keyed(value: Any) -> Any:
    """An option's value that holds plugins, as it enters keys."""
    if isinstance(value, Nested):
        return value.identity
    if isinstance(value, BaseModel):
        return key_fields(value)
    return [_keyed(part) for part in value] if isinstance(value, list | tuple) else value


def nested_in(value: Any) -> Iterator[Nested]:
    """The plugins that an option's value names: itself, and those in lists and in options of its own."""
    if isinstance(value, Nested):
        yield value
        yield from nested_in(value.config)
    elif isinstance(value, BaseModel):
        for _, part in value:
            yield from nested_in(part)
    elif isinstance(value, list | tuple):
        for part in value:
            yield from nested_in(part)


def content_of(config: BaseModel) -> dict[str, str]:
    """By field, what stands in keys for the content of the files that the options name."""
    contents = {}
    for name, info in type(config).model_fields.items():
        value, mark = getattr(config, name), find_mark((*info.metadata, info.annotation), Content)
        if mark is not None and isinstance(value, Path):
            contents[name] = f"sha256:{mark.key(value)}"
    return contents


def nested_content(config: BaseModel, within: str = "") -> dict[str, str]:
    """What decides the results of the plugins that options name, besides their options, by the option's path: version, code, files."""
    found: dict[str, str] = {}
    for name, value in config:
        parts = value if isinstance(value, list | tuple) else (value,)
        for index, part in enumerate(parts):
            path = f"{within}{name}[{index}]" if isinstance(value, list | tuple) else f"{within}{name}"
            if isinstance(part, Nested):
                path = f"{path}.{part.name}"
                found[f"{path}{VERSION}"] = str(part.version)
                found |= {f"{path} file": part.content} if part.content else {}
                found |= {f"{path}.{option}": text for option, text in content_of(part.config).items()}
            found |= nested_content(part.config if isinstance(part, Nested) else part, f"{path}.") if _has_options(part) else {}
    return found


def _has_options(value: Any) -> bool:
    return isinstance(value, BaseModel | Nested)


def find_mark(parts: Iterable[Any], kind: type[Mark]) -> Mark | None:
    """The mark of this type among a field's metadata or, for `File | None`, inside its annotation."""
    for part in parts:
        found = part if isinstance(part, kind) else find_mark((*getattr(part, "__metadata__", ()), *get_args(part)), kind)
        if found is not None:
            return found
    return None
