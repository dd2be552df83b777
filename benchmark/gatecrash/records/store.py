"""Victims and results on disk: content-addressed, atomic, versioned.

A file is either whole or absent: everything is written beside its place and renamed. A victim's record is written last, so its
presence means complete. What cannot be read is set aside under `damaged/` (named in a warning) and computed again. Only the driver
writes; two drivers on one store keep out of each other's way by kernel locks, which die with their process.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from gatecrash.errors import UserError
from gatecrash.records.claims import Claims
from gatecrash.records.files import file_name, png, write
from gatecrash.records.result import SCHEMA, Result
from gatecrash.records.victim import StoredVictim, VictimRecord

if TYPE_CHECKING:
    from torch import Tensor


log = logging.getLogger("gatecrash")


def default_store() -> Path:
    return Path(os.environ.get("GATECRASH_STORE") or "gatecrash-store")


@dataclass
class Store:
    """A store folder; created on the first write."""

    root: Path

    def __post_init__(self) -> None:
        self._claims = Claims(self.root / "locks")

    def open(self) -> Store:
        """Create what is missing and check that this version can use it. Raises UserError."""
        marker = self.root / "store.json"
        self.check()
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            if not marker.exists():
                write(marker, json.dumps({"schema": SCHEMA}).encode())
            probe = self.root / f".writable-{os.getpid()}"
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise UserError(f"store {self.root} is not writable ({error.strerror or error}); choose another with --store") from None
        return self

    def check(self) -> None:
        """Raise UserError for a store that a newer Gatecrash wrote, or a path that is no folder. Writes nothing."""
        marker = self.root / "store.json"
        if self.root.exists() and not self.root.is_dir():
            raise UserError(f"store {self.root} is not a folder; choose another with --store")
        if not marker.exists():
            return
        try:
            schema = json.loads(marker.read_text())["schema"]
        except (OSError, ValueError, KeyError, TypeError):
            raise UserError(f"{marker} cannot be read, so this may be no Gatecrash store; choose another with --store") from None
        if not isinstance(schema, int) or schema > SCHEMA:
            raise UserError(f"store {self.root} was written by a newer Gatecrash (schema {schema}, this one reads {SCHEMA}); upgrade it")

    # results

    def result_path(self, key: str) -> Path:
        return self.root / "results" / key[:2] / f"{key}.json"

    def save_result(self, result: Result, figures: Mapping[str, Tensor] | None = None) -> Result:
        """Write a result, after its pictures (uint8 [1 or 3, H, W] by name), and return it with their paths.

        Pictures of an earlier result of the same key go; with None, pictures stay as they are.
        """
        if figures is None:
            write(self.result_path(result.key), result.to_text().encode())
            return result
        folder = self.result_path(result.key).with_suffix("")
        paths = {name: folder / file_name(name, ".png") for name in figures}
        for name, image in figures.items():
            write(paths[name], png(image))
        result = result.model_copy(update={"figures": {name: path.relative_to(self.root).as_posix() for name, path in paths.items()}})
        write(self.result_path(result.key), result.to_text().encode())
        for stale in set(folder.glob("*.png")) - set(paths.values()):
            stale.unlink(missing_ok=True)
        return result

    def result(self, key: str) -> Result | None:
        path = self.result_path(key)
        return self._read_result(path) if path.exists() else None

    def results(self) -> Iterator[Result]:
        """All readable results."""
        for path in sorted((self.root / "results").glob("*/*.json")):
            result = self._read_result(path)
            if result is not None:
                yield result

    def _read_result(self, path: Path) -> Result | None:
        try:
            result = Result.from_text(path.read_bytes())
            if result.key != path.stem:
                raise ValueError("content does not match its name")
        except UserError as error:
            raise UserError(f"{path} {error}") from None
        except (OSError, ValueError, ValidationError) as error:
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
        with suppress(FileNotFoundError):
            (folder / "record.json").unlink()
        for name, content in files.items():
            write(folder / name, content)
        hashes = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
        record = victim.record.model_copy(update={"schema_version": SCHEMA, "files": hashes})
        write(folder / "record.json", json.dumps(record.model_dump(mode="json"), indent=1, sort_keys=True).encode())

    def victim_record(self, key: str) -> VictimRecord | None:
        """The record alone, or None (also when it had to be set aside)."""
        path = self.victim_path(key) / "record.json"
        if not path.exists():
            return None
        try:
            fields = json.loads(path.read_bytes())
            schema = fields.get("schema_version", 0) if isinstance(fields, dict) else 0
            if isinstance(schema, int) and schema > SCHEMA:
                raise UserError(f"{path} was written by a newer Gatecrash; upgrade it")
            return VictimRecord.model_validate(fields)
        except (OSError, ValueError) as error:  # pydantic's errors are ValueErrors
            self._set_aside(path.parent, error)
            return None

    def victim(self, key: str) -> StoredVictim | None:
        """The victim with its tensors, verified against the record's hashes; None where it is absent or had to be set aside."""
        from safetensors import SafetensorError
        from safetensors.torch import load

        record = self.victim_record(key)
        if record is None:
            return None
        folder = self.victim_path(key)
        tensors: dict[str, dict[str, Tensor]] = {}
        try:
            for name, expected in record.files.items():
                content = (folder / name).read_bytes()
                if hashlib.sha256(content).hexdigest() != expected:
                    raise ValueError(f"{name} does not match its hash")
                tensors[name] = load(content)
        except (OSError, ValueError, SafetensorError) as error:
            self._set_aside(folder, error)
            return None
        return StoredVictim(record, tensors["weights.safetensors"], tensors["poison.safetensors"])

    def _set_aside(self, path: Path, error: Exception) -> None:
        """Move what cannot be read out of the way; it is kept for a person to look at."""
        place = self.root / "damaged" / f"{path.name}-{time.time_ns()}"
        log.warning("%s is damaged (%s); set aside as %s and computed again", path, " ".join(str(error).split())[:200], place)
        place.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError):
            shutil.move(path, place)

    # claims

    def claim(self, key: str) -> bool:
        """Take the right to compute this key among all drivers on the store; False if another one has it."""
        return self._claims.take(key)

    def release(self, key: str) -> None:
        self._claims.release(key)
