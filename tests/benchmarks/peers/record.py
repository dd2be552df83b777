"""What a run of the comparisons found: kept as JSON, shown as a Markdown table."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

from peers.turns import Turns

FORMAT = 1
OURS = "Gatecrash"
"""How the names of our sides begin."""


@dataclass(frozen=True)
class Comparison:
    """`what` is done by all sides; `equal` is what is the same for them."""

    what: str
    equal: str
    versions: Mapping[str, str]
    """Of the peers."""
    sides: tuple[Turns, ...]


def as_json(comparisons: Sequence[Comparison]) -> str:
    """With the machine, the date and the versions, without which figures say nothing."""
    from gatecrash.engine.processor import cpu_kind, cpu_model

    document = {
        "format": FORMAT,
        "date": datetime.now(UTC).date().isoformat(),
        "machine": f"{cpu_model()} ({cpu_kind()})",
        "load": [round(load, 1) for load in os.getloadavg()],
        "versions": {name: version(name) for name in ("gatecrash", "torch", "torchvision", "scikit-learn")},
        "comparisons": [asdict(comparison) for comparison in comparisons],
    }
    return json.dumps(document, indent=1) + "\n"


def comparisons_of(document: Mapping[str, Any]) -> list[Comparison]:
    """What `as_json` has written."""
    return [
        Comparison(**{**found, "sides": tuple(Turns(side["name"], tuple(side["seconds"]), side["figures"]) for side in found["sides"])})
        for found in document["comparisons"]
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
