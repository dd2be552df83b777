"""Victims and results on disk: content-addressed, atomic, versioned.

A file is either whole or absent: everything is written beside its place and renamed. A victim's record is written last, so its
presence means complete. Two drivers on one store keep out of each other's way by kernel locks, which end with their process.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from gatecrash.errors import UserError
from gatecrash.records.claims import Claims
from gatecrash.records.features import FeaturesFolder
from gatecrash.records.files import file_name, png, write
from gatecrash.records.kept import CLASSIFIER, DETECTOR, SUSPECTS, Produced, files_of, kept, produced_from
from gatecrash.records.preparation import PreparationFolder
from gatecrash.records.result import Result
from gatecrash.records.victim import SCHEMA as VICTIM_SCHEMA
from gatecrash.records.victim import StoredVictim, VictimRecord

if TYPE_CHECKING:
    from torch import Tensor


def default_store() -> Path:
    return Path(os.environ.get("GATECRASH_STORE") or "gatecrash-store")


class Store(PreparationFolder, FeaturesFolder):
    """The results and victims of one folder, what attacks prepared, and features.

    Every method raises UserError where the folder cannot be used.
    """

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self._claims = Claims(root / "locks")

    # results

    def result_path(self, key: str) -> Path:
        return self.root / "results" / key[:2] / f"{key}.json"

    def save_result(self, result: Result, figures: Mapping[str, Tensor] | None = None, produced: Produced | None = None) -> Result:
        """Write a result, after its pictures (uint8 [1 or 3, H, W] by name) and what the defense produced, and return it with their paths.

        Such files of an earlier result of the same key are removed; with `figures` None, they stay as they are.
        """
        if figures is None:
            with self._writing():
                write(self.result_path(result.key), result.to_text().encode())
            return result
        produced = produced or Produced()
        folder = self.result_path(result.key).with_suffix("")
        place = folder.relative_to(self.root).as_posix()
        files, pictures = files_of(produced), {name: file_name(name, ".png") for name in figures}
        shown = {name: f"{place}/{file}" for name, file in pictures.items()}
        result = result.model_copy(update={"figures": shown, "kept": kept(produced, files, place)})
        files |= {pictures[name]: png(image) for name, image in figures.items()}
        with self._writing():
            for name, content in files.items():
                write(folder / name, content)
            write(self.result_path(result.key), result.to_text().encode())
            for path in folder.glob("*"):
                if path.name not in files and path.name.endswith((".png", SUSPECTS, CLASSIFIER, DETECTOR)):
                    path.unlink(missing_ok=True)
        return result

    def check_kept(self, keys: Iterable[str]) -> None:
        """Raise UserError unless all these results are still there: the store, or a part of it, may have been removed meanwhile."""
        lost = sum(not self.result_path(key).exists() for key in keys)
        if lost or not self._marker.exists():
            raise UserError(f"store {self.root} was removed while it was in use ({lost} results are gone); run again")

    def produced(self, result: Result) -> Produced:
        """What the cell's defense produced, as far as it was kept. Raises UserError where its files are damaged or gone."""
        if result.kept is None:
            return Produced()
        contents: list[bytes | None] = []
        for path in (result.kept.suspects, result.kept.classifier, result.kept.detector):
            contents.append(self._read(self.root / path) if path is not None else None)
            if path is not None and contents[-1] is None:
                raise UserError(f"{self.root / path} is gone; compute the cell again: gatecrash run GRID --rerun cells")
        try:
            return produced_from(result.kept, *contents)
        except ValueError as error:
            folder = self.result_path(result.key).with_suffix("")
            raise UserError(f"{folder} is damaged ({error}); compute the cell again: gatecrash run GRID --rerun cells") from None

    def result(self, key: str) -> Result | None:
        """None where there is none, or it is damaged."""
        return self._read_result(self.result_path(key))

    def results(self) -> Iterator[Result]:
        """All results that are sound."""
        for path in sorted((self.root / "results").glob("*/*.json")):
            result = self._read_result(path)
            if result is not None:
                yield result

    def _read_result(self, path: Path) -> Result | None:
        content = self._read(path)
        if content is None:
            return None
        try:
            result = Result.from_text(content)
            if result.key != path.stem:
                raise ValueError("content does not match its name")
        except UserError as error:
            raise UserError(f"{path} {error}") from None
        except ValueError as error:  # pydantic's errors are ValueErrors
            self._set_aside(path, error)
            return None
        return result

    # victims

    def victim_path(self, key: str) -> Path:
        return self.root / "victims" / key[:2] / key

    def has_victim(self, key: str) -> bool:
        return (self.victim_path(key) / "record.json").exists()

    def save_victim(self, key: str, victim: StoredVictim) -> None:
        from safetensors.torch import save

        folder = self.victim_path(key)
        files = {"weights.safetensors": save(victim.weights), "poison.safetensors": save(victim.poison)}
        with self._writing():
            with suppress(FileNotFoundError):
                (folder / "record.json").unlink()
            for name, content in files.items():
                write(folder / name, content)
            hashes = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
            record = victim.record.model_copy(update={"schema_version": VICTIM_SCHEMA, "files": hashes})
            write(folder / "record.json", record.to_text().encode())

    def victim_record(self, key: str) -> VictimRecord | None:
        """The record alone; None where there is none, or it is damaged."""
        path = self.victim_path(key) / "record.json"
        content = self._read(path)
        if content is None:
            return None
        try:
            return VictimRecord.from_text(content)
        except UserError as error:
            raise UserError(f"{path} {error}") from None
        except ValueError as error:
            self._set_aside(path.parent, error)
            return None

    def victim(self, key: str) -> StoredVictim | None:
        """The victim with its tensors, checked against the record's hashes; None where there is none, or it is damaged."""
        from safetensors import SafetensorError
        from safetensors.torch import load

        record = self.victim_record(key)
        if record is None:
            return None
        folder = self.victim_path(key)
        tensors: dict[str, dict[str, Tensor]] = {}
        try:
            for name, expected in record.files.items():
                content = self._read(folder / name)
                if content is None:
                    raise ValueError(f"{name} is missing")
                if hashlib.sha256(content).hexdigest() != expected:
                    raise ValueError(f"{name} does not match its hash")
                tensors[name] = load(content)
        except (ValueError, SafetensorError) as error:
            self._set_aside(folder, error)
            return None
        return StoredVictim(record, tensors["weights.safetensors"], tensors["poison.safetensors"])

    # claims

    def claim(self, key: str) -> bool:
        """Take the right to compute this key among all drivers on the store; False if another one has it."""
        with self._writing():
            return self._claims.take(key)

    def release(self, key: str) -> None:
        self._claims.release(key)
