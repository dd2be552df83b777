"""What is left of a data set once the hold-out is cut lies in a file that tasks share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from gatecrash import ImageSet
from gatecrash.datasets import selection
from gatecrash.datasets.selection import selected
from gatecrash.process.mapped import mapped_file, region_of

ROWS = torch.tensor([0, 3, 4, 8])


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GATECRASH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(selection, "SMALL", 0)
    monkeypatch.setattr(selection, "_WHOLE", set())
    return tmp_path / "cache" / "selections"


@pytest.fixture
def data(tmp_path: Path) -> ImageSet:
    """Nine images, mapped."""
    path = tmp_path / "data"
    path.write_bytes(bytes(range(9 * 12)))
    return ImageSet(mapped_file(path, 0, (9, 3, 2, 2)), torch.arange(9) % 3, ("a", "b", "c"))


def files(cache: Path) -> list[Path]:
    return [path for path in cache.iterdir() if path.suffix != ".lock"]


def test_the_selection_is_the_subset_and_written_once(data: ImageSet, cache: Path) -> None:
    first, second = selected(data, ROWS), selected(data, ROWS)
    for made in (first, second):
        assert made.fingerprint == data.subset(ROWS).fingerprint
        assert region_of(made.images) is not None
    assert region_of(first.images) == region_of(second.images)
    assert len(files(cache)) == 1
    selected(data, ROWS[:2])
    assert len(files(cache)) == 2


@pytest.mark.parametrize("damage", ["cut short", "flipped"])
def test_a_damaged_file_is_written_anew(damage: str, data: ImageSet, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    selected(data, ROWS)
    (path,) = files(cache)
    content = path.read_bytes()
    path.write_bytes(content[:-40] if damage == "cut short" else bytes([content[0] ^ 1]) + content[1:])
    monkeypatch.setattr(selection, "_WHOLE", set())  # another process
    assert selected(data, ROWS).fingerprint == data.subset(ROWS).fingerprint
    assert path.read_bytes() == content


def test_without_room_in_the_cache_there_is_a_copy_in_memory(data: ImageSet, cache: Path) -> None:
    cache.parent.mkdir()
    cache.write_text("no folder")
    made = selected(data, ROWS)
    assert made.fingerprint == data.subset(ROWS).fingerprint
    assert region_of(made.images) is None


def test_a_little_is_copied_in_memory(data: ImageSet, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selection, "SMALL", 4 * 12)
    assert selected(data, ROWS).fingerprint == data.subset(ROWS).fingerprint
    assert not cache.exists()


def test_what_nothing_has_used_for_a_day_is_removed_when_another_is_written(data: ImageSet, cache: Path) -> None:
    kept, old = selected(data, ROWS), selected(data, ROWS[:2])
    region = region_of(old.images)
    assert region is not None
    os.utime(region.path, (0, os.stat(region.path).st_mtime))
    selected(data, ROWS[:1])
    assert not region.is_there()
    assert old.images.equal(data.images[ROWS[:2]])  # whoever has it keeps it
    found = region_of(kept.images)
    assert found is not None
    assert found.is_there()
