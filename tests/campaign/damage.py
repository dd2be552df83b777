"""A stored file with one value replaced by something that does not belong there, and sealed again with the right digest."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FILES = {"result": "results/*/*.json", "victim": "victims/*/*/record.json", "store": "store.json"}
MARK = "\x00put here\x00"

VALUES = (
    *("null", "true", "0", "-1", "1.5", "1e999", "-1e999", "NaN", "Infinity", "1e-320", "123456789012345678901234567890", "9" * 5000),
    *('""', '"x"', '"\\ud800"', '"\\u0000"', '"../../x"', '"a|b\\n\\u001b[31m"', f'"{"y" * 5000}"', '"2020-13-45"', '"NaN"', '"0"'),
    *("[]", "{}", "[null]", "[[]]", "[1, 2]", '["x"]', '{"x": 1}', '{"": null}', '{"name": 3}', '{"name": "x", "version": []}'),
    *("[[[[[[[[1]]]]]]]]", "[" * 900 + "]" * 900, "[" * 30_000 + "]" * 30_000, "[0, 0]", "[1, 0]", "[null, null]", '{"0": "x"}'),
)
"""JSON texts; each is a value that some field holds, or none does."""
WHOLE = ("", "null", "[]", "3", '"x"', "{", "{}", '{"schema_version": 1}', "[" * 100_000, "\x00" * 64, "\xff\xfe{}", '{"digest": 1}')
"""What may stand in place of a whole file; one character is one byte."""


@dataclass(frozen=True)
class Damage:
    """`path` leads to the value in the first file of that kind; without path `raw` replaces the whole file."""

    kind: str
    path: tuple[str | int, ...]
    raw: str

    @classmethod
    def of(cls, fields: dict[str, Any]) -> Damage:
        return cls(fields["kind"], tuple(fields["path"]), fields["raw"])

    @classmethod
    def drawn(cls, rng: random.Random, store: Path) -> Damage:
        kind = rng.choices(list(FILES), weights=(12, 6, 1))[0]
        if rng.random() < 0.05:
            return cls(kind, (), rng.choice(WHOLE))
        return cls(kind, rng.choice(list(_paths(json.loads(_file(store, kind).read_text())))), rng.choice(VALUES))

    @contextmanager
    def done(self, store: Path) -> Iterator[None]:
        """The file is damaged within, and whole again afterwards: readers leave it where it is."""
        file = _file(store, self.kind)
        before = file.read_bytes()
        try:
            file.write_bytes(self._damaged(before))
            yield
        finally:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(before)

    def _damaged(self, content: bytes) -> bytes:
        if not self.path:
            return self.raw.encode("latin-1")
        body = json.loads(content)
        digest = body.pop("digest", None)
        parent = body
        for step in self.path[:-1]:
            parent = parent.get(step) if isinstance(parent, dict) else parent[step]
        parent[self.path[-1]] = MARK
        text = json.dumps({**body, "digest": "?"} if digest else body, indent=1, sort_keys=True).replace(json.dumps(MARK), self.raw)
        return (text.replace('"digest": "?"', f'"digest": "{_digest(text)}"') if digest else text).encode()


def _digest(text: str) -> str:
    """As the store computes it, where the text can be read at all."""
    try:
        body = json.loads(text)
        body.pop("digest")
        return hashlib.sha256(json.dumps(body, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
    except (ValueError, RecursionError):
        return "?"


def _file(store: Path, kind: str) -> Path:
    files = sorted(store.glob(FILES[kind]))
    return files[len(files) // 2]


def _paths(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    if path and path != ("digest",):
        yield path
    items: Any = value.items() if isinstance(value, dict) else enumerate(value[:3]) if isinstance(value, list) else ()
    for step, child in items:
        yield from _paths(child, (*path, step))
