"""Features of victims' training sets, kept in the store for the next run: a cache of limited size, of which the oldest go first.

Unlike victims and results they can be made again at any time: what is damaged counts as absent, and removing the folder does no harm.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Self

from gatecrash.errors import UserError
from gatecrash.records.files import write
from gatecrash.records.folder import Folder
from gatecrash.records.record import Record
from gatecrash.records.sealed import sealed, unsealed

if TYPE_CHECKING:
    from torch import Tensor

SCHEMA = 1
"""Of the `record.json` of features."""
RECORD, VALUES = "record.json", "features.safetensors"
LIMIT = 2**30
"""Bytes that the features of one store may take."""


class FeaturesRecord(Record):
    """`record.json` of features."""

    facts: dict[str, str]
    """What they depend on beside the victim's key."""
    seconds: float
    """What they took to compute."""
    values: str
    """sha256 of the file of values."""
    schema_version: int = SCHEMA

    def to_text(self) -> str:
        """The stored form, with a digest."""
        return sealed(self.model_dump(mode="json"))

    @classmethod
    def from_text(cls, text: str | bytes) -> Self:
        """Read the stored form. Raises ValueError for anything damaged or edited, UserError for what a newer Gatecrash wrote."""
        return cls.model_validate(unsealed(text, SCHEMA))


class FeaturesFolder(Folder):
    """The features of a store, by victim. The record is written last: its presence means complete."""

    def features_path(self, key: str) -> Path:
        return self.root / "features" / key[:2] / key

    def save_features(self, key: str, values: Tensor, seconds: float, facts: Mapping[str, str]) -> None:
        """Keep features float32 [N, F] and remove the oldest ones above the limit; nothing is kept of what is above it alone."""
        from safetensors.torch import save

        if values.nbytes > LIMIT:
            return
        folder, content = self.features_path(key), save({"features": values.contiguous()})
        digest = hashlib.sha256(content).hexdigest()
        record = FeaturesRecord(facts=dict(facts), seconds=seconds, values=digest, schema_version=SCHEMA)
        with self._writing():
            (folder / RECORD).unlink(missing_ok=True)
            write(folder / VALUES, content)
            write(folder / RECORD, record.to_text().encode())
            self._make_room()

    def features(self, key: str, facts: Mapping[str, str]) -> tuple[Tensor, float] | None:
        """The features and their seconds; None where there are none that were made under these facts, or they are damaged."""
        from safetensors.torch import load

        text = self._read(self.features_path(key) / RECORD)
        try:
            record = FeaturesRecord.from_text(text or b"")
        except (ValueError, UserError):
            return None
        content = self._read(self.features_path(key) / VALUES) if record.facts == facts else None
        if content is None or hashlib.sha256(content).hexdigest() != record.values:
            return None
        return load(content)["features"], record.seconds

    def _make_room(self) -> None:
        """Another driver on the store may do the same at the same time."""
        files = {}
        for path in (self.root / "features").glob(f"*/*/{VALUES}"):
            with suppress(FileNotFoundError):
                files[path] = path.stat()
        taken = sum(file.st_size for file in files.values())
        for path in sorted(files, key=lambda path: files[path].st_mtime_ns):
            if taken <= LIMIT:
                break
            taken -= files[path].st_size
            shutil.rmtree(path.parent, ignore_errors=True)
