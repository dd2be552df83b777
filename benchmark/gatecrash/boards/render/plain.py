"""What every text from YAML, plugins, options and data sets passes before it becomes markup of any kind."""

from __future__ import annotations

import re
from urllib.parse import quote

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:|//")
_TRUSTED = ("https://", "data:image/png;base64,")


def readable(text: str) -> str:
    """The text without invisible characters, line breaks kept. Bytes that were not UTF-8 (lone surrogates) read as `\\udc80`."""
    return text if text.isprintable() else "".join(map(_readable, text))


def plain(text: str) -> str:
    """`readable`, in one line."""
    return re.sub(r"\s+", " ", readable(text))


def target(link: str) -> str:
    """Where a link leads or a picture comes from, as a URL; empty for anything but paths, https and PNG data."""
    if _SCHEME.match(link.strip()) and not link.startswith(_TRUSTED):
        return ""
    return quote(link, safe="/#:;,=+?%", errors="backslashreplace")


def _readable(character: str) -> str:
    if character.isprintable() or character in "\n\t":
        return character
    if character.isspace():
        return " "
    return f"\\u{ord(character):04x}" if "\ud800" <= character <= "\udfff" else "\N{REPLACEMENT CHARACTER}"
