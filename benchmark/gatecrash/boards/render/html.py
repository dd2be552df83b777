"""HTML in one file: nothing is fetched, and nothing that a plugin wrote is markup.

Every value passes `readable`, and jinja2 escapes it (`autoescape`). Beside that, each page has a content security policy that allows
just its own style and script, by their hashes, pictures as data URIs, and no connection at all.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Mapping, Sequence
from importlib import resources
from typing import Any

from gatecrash.boards.content import Content, Picture
from gatecrash.boards.render.plain import readable, target

FOLDER = "gatecrash.boards"


def to_html(contents: Sequence[Content]) -> str:
    """The tables, with the paragraphs that explain them."""
    title = contents[0].title if len(contents) == 1 else "Leaderboards"
    return render("render/board.html", title=title, contents=contents)


def picture_id(picture: Picture) -> str:
    """What a link to the picture at its full size names."""
    return "p" + hashlib.sha256(f"{picture.shows}\n{picture.source}".encode(errors="backslashreplace")).hexdigest()[:12]


def render(template: str, *, title: str, script: str = "", filters: Mapping[str, Callable[[Any], str]] | None = None, **values: Any) -> str:
    """A page from a template below `boards/` that extends `render/base.html`; its tables can be sorted, and `script` follows."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    style, script = file_text("render/style.css"), file_text("render/sort.js") + script
    loader = PackageLoader(FOLDER, "")
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, loader=loader, finalize=_readable
    )
    environment.filters |= {"kind": lambda value: type(value).__name__, "target": target, "picture_id": picture_id, **(filters or {})}
    hashes = {"style_hash": _hash(style), "script_hash": _hash(script)}
    return environment.get_template(template).render(title=title, style=style, script=script, **hashes, **values)


def file_text(path: str) -> str:
    """A file below `boards/`."""
    return resources.files(FOLDER).joinpath(path).read_text(encoding="utf-8")


def png_uri(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def _readable(value: Any) -> Any:
    """Text that is no markup of a template's own."""
    return readable(value) if isinstance(value, str) and not hasattr(value, "__html__") else value


def _hash(text: str) -> str:
    """As a content security policy names an inline script or style."""
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
