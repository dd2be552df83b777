"""What an attack has prepared once for all its victims of a data set and seed: an encoder, a surrogate."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from gatecrash.errors import UserError
from gatecrash.records.files import write
from gatecrash.records.folder import Folder
from gatecrash.records.record import Record
from gatecrash.records.sealed import sealed, unsealed
from gatecrash.records.stage import Stage

if TYPE_CHECKING:
    from torch import Tensor

SCHEMA = 1
"""Of a preparation's `record.json`."""
WEIGHTS = "weights.safetensors"


class PreparationRecord(Record):
    """`record.json` of a preparation; `attack` has the options that it depends on, and no others."""

    attack: Stage
    dataset: Stage | None = None
    seed: int
    portable: dict[str, Any] | None
    """Spec of what `Attack.prepare` returned; None where that was nothing."""
    seconds: float
    peak_memory_mb: float
    device: str
    threads: int = 1
    schema_version: int = SCHEMA
    weights: str = ""
    """sha256 of the file of tensors; set when the record is written."""

    def to_text(self) -> str:
        """The stored form, with a digest."""
        return sealed(self.model_dump(mode="json"))

    @classmethod
    def from_text(cls, text: str | bytes) -> Self:
        """Read the stored form. Raises ValueError for anything damaged or edited, UserError for what a newer Gatecrash wrote."""
        return cls.model_validate(unsealed(text, SCHEMA))


@dataclass(frozen=True)
class StoredPreparation:
    """A preparation as it lies in the store: JSON record and the Portable's tensors."""

    record: PreparationRecord
    weights: Mapping[str, Tensor] = field(default_factory=dict)


class PreparationFolder(Folder):
    """The preparations of a store, as victims are kept: the record is written last, its presence means complete."""

    def preparation_path(self, key: str) -> Path:
        return self.root / "preparations" / key[:2] / key

    def has_preparation(self, key: str) -> bool:
        return (self.preparation_path(key) / "record.json").exists()

    def save_preparation(self, key: str, preparation: StoredPreparation) -> None:
        from safetensors.torch import save

        folder, content = self.preparation_path(key), save(dict(preparation.weights))
        record = preparation.record.model_copy(update={"schema_version": SCHEMA, "weights": hashlib.sha256(content).hexdigest()})
        with self._writing():
            with suppress(FileNotFoundError):
                (folder / "record.json").unlink()
            write(folder / WEIGHTS, content)
            write(folder / "record.json", record.to_text().encode())

    def preparation(self, key: str) -> StoredPreparation | None:
        """None where there is none, or it is damaged."""
        from safetensors import SafetensorError
        from safetensors.torch import load

        folder = self.preparation_path(key)
        text, content = self._read(folder / "record.json"), self._read(folder / WEIGHTS)
        if text is None:
            return None
        try:
            record = PreparationRecord.from_text(text)
            if content is None or hashlib.sha256(content).hexdigest() != record.weights:
                raise ValueError(f"{WEIGHTS} is missing, or does not match its hash")
            return StoredPreparation(record, load(content))
        except UserError as error:
            raise UserError(f"{folder} {error}") from None
        except (ValueError, SafetensorError) as error:
            self._set_aside(folder, error)
            return None
