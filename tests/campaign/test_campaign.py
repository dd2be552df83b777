"""No input gives a traceback or a hang, and a wrong request is one line and exit code 2.

A part of each campaign runs by default; GATECRASH_CAMPAIGN=full runs 1,000 YAMLs, 1,200 command lines, 600 hostile files of a store and
every bit of a victim's record. Cases that once failed lie in `corpus/` and are always run; GATECRASH_CORPUS=DIR collects new ones.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from campaign import command_lines, hostile_results, yamls
from campaign.case import Case, fault
from gatecrash.errors import UserError
from gatecrash.records.store import Store

CORPUS = sorted((Path(__file__).parent / "corpus").glob("*.json"))
Size = Callable[[int, int], int]
Tried = Callable[[Callable[[int], Case], int], list[str]]


def _none(faults: list[str], count: int) -> None:
    assert not faults, f"{len(faults)} of {count}:\n\n" + "\n\n".join(faults)


def test_the_grid_that_is_damaged_is_sound(places: dict[str, Path], gatecrash: Any) -> None:
    (places["home"] / "grid.yaml").write_text(yamls.written(yamls.GRID))
    asked = gatecrash("run", places["home"] / "grid.yaml", "--dry-run", "--store", places["store"])
    assert asked.code == 0
    assert "error" not in asked.err


@pytest.mark.timeout(7200)
def test_no_grid_file_gives_a_traceback(tried: Tried, campaign_size: Size) -> None:
    count = campaign_size(100, 1000)
    _none(tried(yamls.case, count), count)


@pytest.mark.timeout(7200)
def test_no_command_line_gives_a_traceback(tried: Tried, campaign_size: Size) -> None:
    count = campaign_size(120, 1200)
    _none(tried(command_lines.case, count), count)


@pytest.mark.timeout(7200)
def test_no_stored_file_gives_a_traceback(tried: Tried, campaign_size: Size, places: dict[str, Path]) -> None:
    def case(number: int) -> Case:
        return hostile_results.case(number, places["store"])

    case.__module__ = hostile_results.__name__
    count = campaign_size(40, 600)
    _none(tried(case, count), count)


def test_no_flipped_bit_of_a_victims_record_passes(places: dict[str, Path], campaign_size: Size) -> None:
    """Each flip is noticed (the victim counts as absent) or changes nothing (`1e-05` and `1E-05`)."""
    file = sorted(places["store"].glob("victims/*/*/record.json"))[0]
    store, sound, content = Store(places["store"]), file.read_bytes(), bytearray(file.read_bytes())
    expected = store.victim_record(file.parent.name)
    bits = len(content) * 8
    step = bits // campaign_size(bits // 16, bits)
    passed = []
    for bit in range(0, bits, step):
        content[bit // 8] ^= 1 << bit % 8
        file.write_bytes(content)
        content[bit // 8] ^= 1 << bit % 8
        try:
            found = store.victim_record(file.parent.name)
        except UserError:
            continue
        if found is not None and found != expected:
            passed.append(bit)
    file.write_bytes(sound)
    assert expected is not None
    assert not passed


@pytest.mark.parametrize("file", CORPUS)
def test_what_once_failed_ends_in_order(places: dict[str, Path], file: Path) -> None:
    assert fault(Case.from_json(file.read_text(encoding="utf-8")), places) is None
