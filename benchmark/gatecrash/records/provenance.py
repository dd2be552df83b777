"""Where a number comes from: versions, commit, machine. Recorded with every result; part of no key."""

from __future__ import annotations

import importlib.metadata
import platform
import subprocess
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, Self

from gatecrash.records.record import Record
from gatecrash.versions import ENGINE_VERSION, EVALUATION_VERSION, VERSION


@cache
def code_version() -> dict[str, Any]:
    """Gatecrash's version, and the commit it runs from (null for an installed package) with whether files were changed since."""
    folder = Path(__file__).parent
    commit = _git(folder, "rev-parse", "HEAD")
    changes = _git(folder, "status", "--porcelain", "--", str(folder), str(folder.parents[1] / "plugins")) if commit else None
    return {
        "gatecrash_version": VERSION,
        "commit": commit,
        "dirty": None if changes is None else bool(changes),
    }


@cache
def packages() -> dict[str, str]:
    return {name: importlib.metadata.version(name) for name in ("torch", "torchvision", "numpy", "scikit-learn")}


class Provenance(Record):
    """Where a result comes from. Every field may be absent: older versions recorded less."""

    gatecrash_version: str | None = None
    commit: str | None = None
    dirty: bool | None = None
    engine_version: int | None = None
    evaluation_version: int | None = None
    device: str | None = None
    precision: str | None = None
    """What `precision: auto` of a recipe meant there, `bfloat16` or `float32`."""
    cpu: str | None = None
    cpu_kind: str | None = None
    threads: int | None = None
    python: str | None = None
    platform: str | None = None
    packages: dict[str, str] = {}
    plugins: dict[str, str] = {}
    """Origin of the plugins used in the cell, by kind and name; older versions wrote the name alone."""
    date: str | None = None
    places: list[str] = []
    """Of a published result: the options of the dataset that say where it lies, which each machine sets for itself."""

    @classmethod
    def now(cls, device: str, precision: str | None, threads: int, plugins: dict[str, str]) -> Self:
        """Of a result that is made now, on this machine."""
        from gatecrash.engine.processor import cpu_kind, cpu_model  # they need torch, which planning does without

        return cls(
            **code_version(),
            engine_version=ENGINE_VERSION,
            evaluation_version=EVALUATION_VERSION,
            device=device,
            precision=precision,
            cpu=cpu_model(),
            cpu_kind=cpu_kind(),
            threads=threads,
            python=platform.python_version(),
            platform=platform.platform(),
            packages=packages(),
            plugins=plugins,
            date=datetime.now(UTC).isoformat(timespec="seconds"),
        )


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
