"""How long tasks took: `timings.json` of a store, from which the next run tells what to start first.

One small file, so that nobody opens a large store's records for it. No number depends on it: one that is damaged, lost or overwritten by
another driver costs a worse order of work, no more.
"""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from gatecrash.records.files import write

SCHEMA = 1
REMEMBERED = 8
"""Of how many last ones a mean is, roughly: an older one counts less."""


class Timing(BaseModel):
    """Mean seconds of the tasks of one kind."""

    model_config = ConfigDict(extra="ignore")

    count: int = Field(0, ge=0)
    seconds: float = Field(0.0, ge=0, allow_inf_nan=False)

    def add(self, seconds: float) -> None:
        self.count += 1
        self.seconds += (seconds - self.seconds) / min(self.count, REMEMBERED)


class Timings(BaseModel):
    """By place (data set and model) and kind of task (`defend anp`)."""

    model_config = ConfigDict(extra="ignore")

    schema_version: int = SCHEMA
    places: dict[str, dict[str, Timing]] = Field(default_factory=dict)

    def add(self, place: str, kind: str, seconds: float) -> None:
        self.places.setdefault(place, {}).setdefault(kind, Timing()).add(seconds)

    def seconds(self, place: str, kind: str) -> float | None:
        timing = self.places.get(place, {}).get(kind)
        return timing.seconds if timing is not None else None


def read_timings(root: Path) -> Timings:
    """Those of the store at `root`; none where there is no file that this version reads."""
    with suppress(OSError, ValidationError):
        found = Timings.model_validate_json(_path(root).read_bytes())
        if found.schema_version <= SCHEMA:
            return found
    return Timings()


def save_timings(root: Path, timings: Timings) -> None:
    """Nothing where it cannot be written: there are others who say so."""
    with suppress(OSError):
        root.stat()  # a store that was removed meanwhile stays away
        write(_path(root), json.dumps(timings.model_dump(mode="json"), indent=1, sort_keys=True).encode())


def _path(root: Path) -> Path:
    return root / "timings.json"
