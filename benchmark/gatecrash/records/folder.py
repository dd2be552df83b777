"""The folder of a store: checked, opened, read from and written to.

Only the driver of a run, which has opened the store, writes: it sets damaged files aside under `damaged/` (named in a warning) and computes
them again, while readers leave them where they are and go on without.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Self

from gatecrash.errors import UserError
from gatecrash.records.files import write
from gatecrash.records.result import SCHEMA

log = logging.getLogger("gatecrash")


class Folder:
    """It is only read from until `open` is called.

    Every method raises UserError where the folder cannot be used: no space left, no permission, the store removed under a running grid.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._opened = False

    def open(self) -> Self:
        """Create what is missing and check that this version can use it and may write."""
        self.check()
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            if not self._marker.exists():
                write(self._marker, json.dumps({"schema": SCHEMA}).encode())
            probe = self.root / f".writable-{os.getpid()}"
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise UserError(f"store {self.root} is not writable ({error.strerror or error}); choose another with --store") from None
        self._opened = True
        return self

    def check(self) -> None:
        """Raise UserError for a store that a newer Gatecrash wrote, or a path that is no folder. Writes nothing."""
        if self.root.exists() and not self.root.is_dir():
            raise UserError(f"store {self.root} is not a folder; choose another with --store")
        if not self._marker.exists():
            return
        try:
            schema = json.loads(self._marker.read_text())["schema"]
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            raise UserError(f"{self._marker} cannot be read, so this may be no Gatecrash store; choose another with --store") from None
        if not isinstance(schema, int) or schema > SCHEMA:
            raise UserError(f"store {self.root} was written by a newer Gatecrash (schema {schema}, this one reads {SCHEMA}); upgrade it")

    @property
    def _marker(self) -> Path:
        return self.root / "store.json"

    def _read(self, path: Path) -> bytes | None:
        """None where there is no such file."""
        try:
            return path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise UserError(f"cannot read {path}: {error.strerror or error}; mend its permissions, or choose another --store") from None

    @contextmanager
    def _writing(self) -> Iterator[None]:
        if self._opened and not self._marker.exists():
            raise UserError(f"store {self.root} was removed while it was in use; run again")
        try:
            yield
        except OSError as error:
            raise UserError(
                f"cannot write into store {self.root}: {error.strerror or error}; what is finished is kept: run again"
            ) from None

    def _set_aside(self, path: Path, error: Exception) -> None:
        """Move damaged content out of the way; it is kept for a person to look at."""
        reason = " ".join(str(error).split())[:200]
        if not self._opened:
            log.warning("%s is damaged (%s) and is left out; run its grid again to replace it", path, reason)
            return
        place = self.root / "damaged" / f"{path.name}-{time.time_ns()}"
        log.warning("%s is damaged (%s); set aside as %s and computed again", path, reason, place)
        with self._writing():
            place.parent.mkdir(parents=True, exist_ok=True)
            with suppress(FileNotFoundError):
                shutil.move(path, place)
