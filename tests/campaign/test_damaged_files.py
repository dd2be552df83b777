"""A damaged file of a store: no command ends in a traceback, readers leave it where it is, and a run makes good what was lost.

Three files by default; GATECRASH_CAMPAIGN=full damages 70.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from campaign.case import Case, fault
from campaign.test_kills import numbers

FILES = ("results/*/*.json", "victims/*/*/record.json", "victims/*/*/weights.safetensors", "victims/*/*/poison.safetensors", "store.json")

READERS = (
    ("results",),
    ("results", "--format", "csv"),
    ("results", "--format", "json"),
    ("leaderboard",),
    ("leaderboard", "--format", "html"),
    ("report", "--output", "{home}/report.html"),
    ("plot", "heatmap", "--output", "{home}/heatmap.png"),
    ("plot", "triggers", "--output", "{home}/triggers.png"),
    ("run", "{store}/small.yaml", "--dry-run"),
)
RUN = ("run", "{store}/small.yaml", "--executor", "serial")


def flipped(content: bytes, rng: random.Random) -> bytes:
    changed = bytearray(content)
    changed[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    return bytes(changed)


DAMAGES: tuple[Callable[[bytes, random.Random], bytes], ...] = (
    flipped,
    flipped,
    lambda content, rng: content[: rng.randrange(len(content))],
    lambda content, rng: b"",
    lambda content, rng: rng.randbytes(len(content)),
    lambda content, rng: content + content,
)


def contents(store: Path) -> dict[str, bytes]:
    """All that a reader must not touch."""
    return {str(file.relative_to(store)): file.read_bytes() for file in sorted(store.rglob("*")) if file.is_file()}


@pytest.mark.timeout(7200)
def test_a_damaged_file_stops_no_command_and_changes_no_number(
    pristine: Path, tmp_path: Path, campaign_size: Callable[[int, int], int]
) -> None:
    rng, expected, faults = random.Random(0), numbers(pristine / "store"), []
    for number in range(campaign_size(3, 70)):
        store, home = tmp_path / f"store-{number}", tmp_path / f"home-{number}"
        shutil.copytree(pristine / "store", store)
        home.mkdir()
        file = rng.choice(sorted(store.glob(FILES[number % len(FILES)])))
        file.write_bytes(rng.choice(DAMAGES)(file.read_bytes(), rng))
        before, places = contents(store), {"home": home, "store": store}
        what = f"{number}: {file.relative_to(store)}"
        for command in READERS:
            found: Any = fault(Case((*command, "--store", "{store}")), places)
            faults += [f"{what}, {' '.join(command)}: {found}"] if found else []
            faults += [f"{what}, {' '.join(command)} wrote into the store"] if contents(store) != before else []
        found = fault(Case((*RUN, "--store", "{store}")), places)
        faults += [f"{what}, run: {found}"] if found else []
        if file.name != "store.json" and numbers(store) != expected:
            faults.append(f"{what}: other numbers after the run")
        shutil.rmtree(store)
    assert not faults, "\n".join(faults)
