"""Memory that a task frees is used again by the task, and goes back to the machine after it."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from gatecrash.process.allocator import LARGEST, _glibc, freed_memory_kept

BLOCK = 64 * 2**20
ROUNDS = 10
PAGE = resource.getpagesize()


def faults_of_rounds() -> int:
    """Pages that the kernel hands out while a block of 64 MiB is filled and freed again and again."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(ROUNDS):
        block = bytearray(BLOCK)
        del block
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


PROGRAM = """
from gatecrash.process.allocator import freed_memory_kept
from test_allocator import BLOCK, faults_of_rounds, resident
plain = faults_of_rounds()
start = resident()
with freed_memory_kept():
    kept = faults_of_rounds()
    inside = resident()
print(plain, kept, inside - start, resident() - start)
"""


def resident() -> int:
    return int(psutil.Process().memory_info().rss)


@pytest.mark.skipif(_glibc() is None, reason="the C library is not glibc")
def test_freed_memory_is_used_again_and_goes_back_at_the_end() -> None:
    # In a process of its own: the thresholds stay set.
    told = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True, cwd=Path(__file__).parent)
    plain, kept, inside, after = (int(word) for word in told.stdout.split())
    pages = BLOCK // PAGE
    assert plain >= ROUNDS * pages / 600  # huge pages count once for 512
    assert kept <= plain / ROUNDS * 2
    assert inside >= BLOCK / 2
    assert after <= BLOCK / 4


def test_memory_goes_back_even_where_the_task_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, ...]] = []

    class Library:
        def mallopt(self, *option: int) -> int:
            asked.append(option)
            return 1

        def malloc_trim(self, pad: int) -> int:
            asked.append((pad,))
            return 1

    monkeypatch.setattr("gatecrash.process.allocator._glibc", Library)
    with pytest.raises(ValueError, match="no luck"), freed_memory_kept():
        raise ValueError("no luck")
    assert asked == [(-3, LARGEST), (-1, LARGEST), (0,)]
