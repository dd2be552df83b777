"""Validation errors as one line that names the field's path in the YAML and what to do."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from gatecrash.errors import shown

ENTRY = "write a name, or {name: {option: value}}"
HINTS = {"attacks": f"for each attack {ENTRY}", "defenses": f"for each defense {ENTRY}", "dataset": ENTRY, "model": ENTRY}
HINTS |= {"recipe": "write a preset's name, or its fields: {preset: fast, epochs: 8}", "seeds": "write whole numbers: [0, 1, 2]"}
"""What to write, by field of a grid that takes a plugin, a preset or numbers."""
ONE = {"dataset": "a grid has one dataset; write one grid for each", "model": "a grid has one model; write one grid for each"}


def explain(error: ValidationError, path: str, fields: Mapping[str, Any]) -> str:
    """The error of an unknown field, else the first one, as one line: path, what is wrong, and close names for an unknown field."""
    errors = error.errors(include_url=False)
    first = next((one for one in errors if one["type"] == "extra_forbidden"), errors[0])
    where = path
    for part in first["loc"]:
        if isinstance(part, int):
            where += f"[{part}]"
        elif part not in {"str", "dict[str,any]", "function-before", "function-after"}:
            where += f".{part}" if where else str(part)
    return " ".join(f"{where[:200]}: {_what(first, '' if path else where.partition('[')[0], fields)}".split())


def _what(error: Any, field: str, fields: Mapping[str, Any]) -> str:
    """What is wrong; `field` is the grid's field that the error is in."""
    if error["type"] == "extra_forbidden":
        name = str(error["loc"][-1])
        close = difflib.get_close_matches(name, list(fields), n=1) or [known for known in fields if name and name in known]
        return f"unknown field; did you mean {close[0]!r}?" if close else f"unknown field; known: {', '.join(fields) or 'none'}"
    if error["type"] == "missing":
        return f"is missing{f'; {HINTS[field]}' if field in HINTS else ''}"
    given = error.get("input")
    if field in ONE and isinstance(given, list):
        return ONE[field]
    got = "" if given is None or isinstance(given, dict | list) else f" (got {shown(given)})"
    hint = f"; {HINTS[field]}" if field in HINTS and str(error["type"]).endswith("_type") else ""
    return str(error["msg"]).removeprefix("Value error, ") + got + hint
