"""What a run of the comparisons found: kept as JSON, shown as a Markdown table."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
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
    sides: tuple[Turns, ...]


def as_json(comparisons: Sequence[Comparison], tools: Mapping[str, str]) -> str:
    """With the machine, the date and the versions, without which figures say nothing."""
    from gatecrash.engine.processor import cpu_kind, cpu_model

    document = {
        "format": FORMAT,
        "date": datetime.now(UTC).date().isoformat(),
        "machine": f"{cpu_model()} ({cpu_kind()})",
        "load": [round(load, 1) for load in os.getloadavg()],
        "versions": {name: version(name) for name in ("gatecrash", "torch", "torchvision", "scikit-learn")} | dict(tools),
        "comparisons": [asdict(comparison) for comparison in comparisons],
    }
    return json.dumps(document, indent=1) + "\n"


def table(document: Mapping[str, Any]) -> str:
    """Markdown: a row per side, ours first. How many times as fast ours is stands beside the peer, once for each of ours."""
    rows = ["| | tool | CPU seconds | Gatecrash is faster by | what came out |", "|---|---|---|---|---|"]
    for comparison in document["comparisons"]:
        rows += _rows(comparison)
    return "\n".join(rows) + "\n"


def ratios(sides: Sequence[Turns]) -> Iterator[tuple[str, str, float]]:
    """(peer, ours, how many times as fast ours is)."""
    for peer in (side for side in sides if not side.name.startswith(OURS)):
        for ours in (side for side in sides if side.name.startswith(OURS)):
            yield peer.name, ours.name, peer.least / ours.least


def _rows(comparison: Mapping[str, Any]) -> Iterator[str]:
    sides = [Turns(side["name"], tuple(side["seconds"]), side["figures"]) for side in comparison["sides"]]
    faster: dict[str, list[str]] = {}
    for peer, _, ratio in ratios(sides):
        faster.setdefault(peer, []).append(f"{ratio:.2f}")
    what = comparison["what"]
    for side in sorted(sides, key=lambda side: not side.name.startswith(OURS)):
        figures = ", ".join(f"{name} {number:.4g}" for name, number in side.figures.items())
        yield f"| {what} | {side.name} | {side.least:.2f} | {', '.join(faster.get(side.name, []))} | {figures} |"
        what = ""


if __name__ == "__main__":  # python -m peers.record FILE prints the table of a run
    print(table(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))), end="")
