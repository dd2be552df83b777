"""`meta.json` of a cached dataset: what planning knows of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from gatecrash.datasets.splits import fingerprint_of

if TYPE_CHECKING:
    from gatecrash.contracts.data import Splits


SCHEMA = 1
"""Version of the cache format; part of every entry's name, so that versions never meet."""


@dataclass(frozen=True)
class Meta:
    """What `meta.json` says: of the whole dataset, before limits."""

    classes: tuple[str, ...]
    shape: tuple[int, int, int]
    train_counts: tuple[int, ...]
    test_counts: tuple[int, ...]
    flip: bool
    has_clean: bool
    has_groups: bool
    fingerprint: str
    bytes: int
    """Size of the data file."""

    @classmethod
    def read(cls, path: Path) -> Meta:
        """Raises OSError, ValueError, TypeError or KeyError for a file that is missing or damaged."""
        fields = json.loads(path.read_bytes())
        digest = fields.pop("digest", None)  # older descriptions have none: what they say is compared with the data when these are loaded
        if digest is not None and digest != _digest(fields):
            raise ValueError("its description does not match its digest")
        if fields.pop("schema") != SCHEMA:
            raise ValueError("another schema version")
        channels, height, width = fields["shape"]
        return cls(**{**fields, "shape": (channels, height, width), **{name: tuple(fields[name]) for name in cls._TUPLES}})

    @classmethod
    def of(cls, splits: Splits, size: int) -> Meta:
        """What is to be said of these splits, whose data file has `size` bytes."""
        return cls(
            classes=splits.train.classes,
            shape=splits.train.shape,
            train_counts=splits.train.class_counts(),
            test_counts=splits.test.class_counts(),
            flip=splits.flip,
            has_clean=splits.clean is not None,
            has_groups=splits.groups is not None,
            fingerprint=fingerprint_of(splits),
            bytes=size,
        )

    def to_text(self) -> str:
        """The stored form, with a digest."""
        fields = {"schema": SCHEMA, **vars(self)}
        return json.dumps({**fields, "digest": _digest(fields)}, indent=1) + "\n"

    _TUPLES: ClassVar[tuple[str, ...]] = ("classes", "train_counts", "test_counts")


def _digest(fields: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()
