"""JSON with a digest of its content, so that damage and edits are noticed."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

from gatecrash.errors import UserError

DIGEST = "digest"

_LONE_SURROGATE = re.compile("[\ud800-\udfff]")


def printable_json(value: Any) -> Any:
    """The JSON value with lone surrogates in its texts written out, as `gatecrash.errors.printable` does: UTF-8 has no form for them."""
    text = json.dumps(value, ensure_ascii=False)
    clean = _LONE_SURROGATE.sub(lambda found: rf"\\u{ord(found[0]):04x}", text)
    return value if clean == text else json.loads(clean)


def sealed(body: Mapping[str, Any]) -> str:
    """The stored form: sorted keys, and the digest among them."""
    body = printable_json(body)
    return json.dumps({**body, DIGEST: _digest(body)}, indent=1, sort_keys=True, allow_nan=False)


def unsealed(text: str | bytes, newest: int, unsealed_until: int = -1) -> dict[str, Any]:
    """The content without its digest. Files of a `schema_version` up to `unsealed_until` were written without one.

    Raises ValueError for what is damaged or was edited, and UserError for what a newer Gatecrash wrote. The digest is checked first: a
    damaged file's schema number says nothing.
    """
    try:
        body = json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not isinstance(body, dict):
        raise ValueError("no JSON object")
    digest, schema = body.pop(DIGEST, None), body.get("schema_version", 0)
    if digest is not None and digest != _digest(body):
        raise ValueError("content does not match its digest")
    if not isinstance(schema, int):
        raise ValueError("schema_version is no whole number")
    if schema > newest:
        raise UserError("was written by a newer Gatecrash; upgrade it")
    if digest is None and schema > unsealed_until:
        raise ValueError("content does not match its digest: there is none")
    content: dict[str, Any] = printable_json(body)  # older versions stored what no other file takes
    return content


def _digest(body: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
