"""What a run of the comparisons found: kept as JSON, shown as a Markdown table."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from gatecrash.engine.processor import cpu_kind, cpu_model
from peers.turns import Turns

FORMAT = 1
OURS = "Gatecrash"
"""How the names of our sides begin."""


@dataclass(frozen=True)
class Comparison:
    """`what` is done by all sides; `equal` is what is the same for them. Figures say nothing without when and where they were taken."""

    what: str
    equal: str
    sides: tuple[Turns, ...]
    date: str
    machine: str
    load: float
    """Processes that ran or waited to run, on the average of the last 15 minutes."""
    versions: Mapping[str, str]


def compared(what: str, equal: str, sides: Sequence[Turns], peers: Mapping[str, str]) -> Comparison:
    """What was found here and now; `peers` are the versions of the other tools."""
    versions = {name: version(name) for name in ("gatecrash", "torch", "torchvision", "scikit-learn")} | dict(peers)
    today, machine = datetime.now(UTC).date().isoformat(), f"{cpu_model()} ({cpu_kind()})"
    return Comparison(what, equal, tuple(sides), today, machine, round(os.getloadavg()[2], 1), versions)


def keep(comparison: Comparison, file: Path) -> None:
    """Write it to the file, in the place of one of the same name; others stay."""
    kept = {other.what: other for other in (read(file) if file.exists() else [])} | {comparison.what: comparison}
    document = {"format": FORMAT, "comparisons": [asdict(each) for each in kept.values()]}
    file.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def read(file: Path) -> list[Comparison]:
    """What `keep` has written."""
    return [
        Comparison(**{**found, "sides": tuple(Turns(side["name"], tuple(side["seconds"]), side["figures"]) for side in found["sides"])})
        for found in json.loads(file.read_text(encoding="utf-8"))["comparisons"]
    ]


def table(comparisons: Sequence[Comparison]) -> str:
    """Markdown: a row per side, ours first; beside each peer, how many times as fast ours is."""
    rows = ["| | tool | CPU seconds | Gatecrash is so many times as fast | what came out |", "|---|---|---|---|---|"]
    for comparison in comparisons:
        rows += _rows(comparison)
    return "\n".join(rows) + "\n"


def ratios(sides: Sequence[Turns]) -> Iterator[tuple[str, str, float]]:
    """(peer, ours, how many times as fast ours is)."""
    for peer in (side for side in sides if not side.name.startswith(OURS)):
        for ours in (side for side in sides if side.name.startswith(OURS)):
            yield peer.name, ours.name, peer.least / ours.least


def _rows(comparison: Comparison) -> Iterator[str]:
    faster: dict[str, list[str]] = {}
    for peer, ours, ratio in ratios(comparison.sides):
        way = ours.removeprefix(OURS).lstrip(", ")
        faster.setdefault(peer, []).append(f"{ratio:.2f} ({way})" if way else f"{ratio:.2f}")
    what = comparison.what
    for side in sorted(comparison.sides, key=lambda side: not side.name.startswith(OURS)):
        figures = ", ".join(f"{name} {number:.4g}" for name, number in side.figures.items())
        yield f"| {what} | {side.name} | {side.least:.2f} | {', '.join(faster.get(side.name, []))} | {figures} |"
        what = ""
