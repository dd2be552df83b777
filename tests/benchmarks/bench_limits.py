"""The machine's own limits: what every other figure here is to be held against (run with `make bench`; a plain pytest run skips it).

The rate of large matrix products bounds training, the bandwidth of copies bounds all that does little with each byte. Each is the best of
several turns: whatever else the machine does can only make a turn slower.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

import pytest
import torch

from gatecrash.engine.device import choose_device, supports_bfloat16
from gatecrash.engine.processor import cpu_model

TURNS = 7
SIDE = {"cpu": 2048, "cuda": 8192}
"""Of the matrices: a product far above the cost of starting it, and below a second on one core."""
BYTES = {"cpu": 2**28, "cuda": 2**32}
"""Of a copy: many times what caches hold."""

DEVICE = choose_device()
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
THREADS = sorted({1, CORES}) if DEVICE.type == "cpu" else [1]
"""On a GPU the threads of this process do not matter."""


def finish() -> float:
    """The time when all work is done: of the processor where one thread does it (others may use the machine too), else of the clock."""
    if DEVICE.type == "cuda":
        torch.cuda.synchronize(DEVICE)
    alone = DEVICE.type == "cpu" and torch.get_num_threads() == 1
    return time.process_time() if alone else time.perf_counter()


def best(work: Callable[[], object]) -> float:
    """Seconds of the shortest turn; the first, which allocates and loads kernels, does not count."""
    work()
    turns = []
    for _ in range(TURNS):
        start = finish()
        work()
        turns.append(finish() - start)
    return min(turns)


def say(what: str, figure: str) -> None:
    print(f"\n{what:<42} {figure:>16}", end="", flush=True)


def where(threads: int) -> str:
    return f"{DEVICE.type}, {threads} thread{'s' if threads > 1 else ''}" if DEVICE.type == "cpu" else DEVICE.type


@pytest.fixture(scope="module", autouse=True)
def _machine() -> None:
    """The first line says which machine the others are about."""
    name = torch.cuda.get_device_name(DEVICE) if DEVICE.type == "cuda" else cpu_model()
    print(f"\n{name}, {CORES} core(s), torch {torch.__version__}; best of {TURNS} turns", end="")


@pytest.mark.parametrize("threads", THREADS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def test_matrix_product(dtype: torch.dtype, threads: int) -> None:
    side = SIDE[DEVICE.type]
    what = f"{str(dtype).removeprefix('torch.')} product of {side}x{side}, {where(threads)}"
    if dtype == torch.bfloat16 and not supports_bfloat16(DEVICE):
        say(what, "not in hardware")  # and emulation, many times slower, is no limit that training meets: it stays in float32
        return
    torch.set_num_threads(threads)  # put back by the fixture that every test has
    left, right = (torch.randn(side, side, device=DEVICE).to(dtype) for _ in range(2))
    out = torch.empty_like(left)
    seconds = best(lambda: torch.mm(left, right, out=out))
    say(what, f"{2 * side**3 / seconds / 1e9:,.0f} GFLOP/s")


@pytest.mark.parametrize("threads", THREADS)
def test_copy_bandwidth(threads: int) -> None:
    """Bytes read and bytes written both count."""
    torch.set_num_threads(threads)
    source = torch.zeros(BYTES[DEVICE.type], dtype=torch.uint8, device=DEVICE)
    target = torch.empty_like(source)
    seconds = best(lambda: target.copy_(source))
    say(f"copy of {len(source) / 2**20:,.0f} MiB, {where(threads)}", f"{2 * len(source) / seconds / 1e9:,.1f} GB/s")
