"""What `gatecrash new` writes: a working plugin in one file, its test, and a package around them if asked for.

The templates are plain text with `$names`; the plugins in them are real and pass every check as they are. docs/plugins/ explains them.
"""

from __future__ import annotations

import importlib.util
import keyword
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from string import Template
from typing import Literal

from gatecrash.errors import UserError
from gatecrash.host.kinds import PluginKind
from gatecrash.records.files import write as write_whole

NewKind = Literal["attack", "training-attack", "trigger", "defense", "filter", "input-detector", "model-detector", "dataset", "model"]

PLUGIN_KINDS: dict[NewKind, PluginKind] = {
    "attack": "attack",
    "training-attack": "attack",
    "trigger": "trigger",
    "defense": "defense",
    "filter": "defense",
    "input-detector": "defense",
    "model-detector": "defense",
    "dataset": "dataset",
    "model": "model",
}
"""What `gatecrash new` can write, and the kind of plugin that each is."""

SHIPPED = Path("plugins", "gatecrash_plugins")
LONGEST_NAME = 60


@dataclass(frozen=True)
class Names:
    """The spellings of one name: `corner-dot`, `corner_dot`, `CornerDot`, `Corner dot`."""

    name: str

    @property
    def module(self) -> str:
        return self.name.replace("-", "_")

    @property
    def cls(self) -> str:
        return "".join(word.capitalize() for word in self.name.split("-"))

    @property
    def title(self) -> str:
        return self.name.replace("-", " ").capitalize()


def check_name(name: str) -> Names:
    """Raises UserError for what cannot name a plugin and, with '_' for '-', a module and a class."""
    if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", name):
        raise UserError(f"{name[:LONGEST_NAME]!r} cannot name a plugin; use lower-case words joined by '-', such as corner-dot")
    if len(name) > LONGEST_NAME:
        raise UserError(f"{name[:LONGEST_NAME]}... is too long for a file's name; use at most {LONGEST_NAME} characters")
    if keyword.iskeyword(name) or keyword.issoftkeyword(name):
        raise UserError(f"{name!r} is a keyword of Python and cannot name a module; choose another, such as {name}-trigger")
    return Names(name)


def checkout(start: Path) -> Path | None:
    """The root of the Gatecrash repository that `start` lies in, or None."""
    return next((folder for folder in (start, *start.parents) if (folder / SHIPPED / "attacks").is_dir()), None)


def files(kind: NewKind, names: Names, start: Path, *, package: bool) -> dict[Path, str]:
    """What to write where: into the repository that `start` lies in, beside `start`'s own files, or as a package below it."""
    root, folder = checkout(start), f"{PLUGIN_KINDS[kind]}s"
    if package:
        home = start / f"gatecrash-{names.name}"
        module = f"gatecrash_{names.module}"
        return {
            home / "pyproject.toml": _filled("pyproject", kind, names, module),
            home / "README.md": _filled("readme", kind, names, module),
            home / ".github" / "workflows" / "test.yml": _filled("workflow", kind, names, module),
            home / "src" / module / "__init__.py": _filled(kind, kind, names, module),
            home / "tests" / f"test_{names.module}.py": _filled(f"test_{kind}", kind, names, module),
        }
    if root is not None:
        module = f"gatecrash_plugins.{folder}.{names.module}"
        return {
            root / SHIPPED / folder / f"{names.module}.py": _filled(kind, kind, names, module),
            root / "tests" / "plugins" / folder / f"test_{names.module}.py": _filled(f"test_{kind}", kind, names, module),
        }
    return {
        start / f"{names.module}.py": _filled(kind, kind, names, names.module),
        start / f"test_{names.module}.py": _filled(f"test_{kind}", kind, names, names.module),
    }


def write(contents: Mapping[Path, str]) -> None:
    """Write all files, or none: raises UserError if one exists, or hides an installed module of its name."""
    for path in contents:
        if path.exists():
            raise UserError(f"{path} exists already; choose another name, or remove it first")
    for path in contents:
        if path.parent == Path.cwd() and importlib.util.find_spec(path.stem) is not None:
            raise UserError(f"{path.name} would hide the installed module {path.stem!r}; choose another name")
    for path, text in contents.items():
        try:
            write_whole(path, text.encode())
        except OSError as error:
            raise UserError(f"cannot write {path}: {error.strerror or error}; choose another folder") from None


def _filled(template: str, kind: NewKind, names: Names, module: str) -> str:
    text = resources.files("gatecrash.authoring.scaffold").joinpath("templates", f"{template}.txt").read_text(encoding="utf-8")
    kind_of_plugin = PLUGIN_KINDS[kind]
    return Template(text).substitute(name=names.name, cls=names.cls, title=names.title, module=module, kind=kind_of_plugin)
