"""Every command that reads a store, on one that holds a file with a value that does not belong there."""

from __future__ import annotations

import random
from pathlib import Path

from campaign.case import Case
from campaign.damage import Damage
from campaign.yamls import GRID, written

READERS: tuple[tuple[str, ...], ...] = (
    ("results",),
    ("results", "--format", "json"),
    ("results", "--format", "csv"),
    ("results", "--grid", "small"),
    ("leaderboard",),
    ("leaderboard", "--format", "csv"),
    ("leaderboard", "--format", "html"),
    ("report", "--output", "out.html"),
    ("compare", "fine-pruning", "none"),
    ("plot", "heatmap", "--output", "out.png"),
    ("plot", "tradeoff", "--output", "out.png"),
    ("plot", "triggers", "--output", "out.png"),
    ("run", "{store}/small.yaml", "--dry-run"),
)


def case(number: int, store: Path) -> Case:
    rng = random.Random(f"result {number}")
    return Case((*rng.choice(READERS), "--store", "{store}"), yaml=written(GRID), damage=Damage.drawn(rng, store))
