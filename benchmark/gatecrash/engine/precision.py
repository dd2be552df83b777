"""What `precision: auto` means on this machine: measured, since what a processor's flags promise is not what it does.

An Intel Xeon with bfloat16 instructions but no tiles (AMX) trains a fifth slower in bfloat16 than in float32; an AMD EPYC with the same
flag trains twice as fast. So one convolution is timed both ways, forward and backward, once per host: the answer is kept in the cache
folder, under a kernel lock, and all processes and later runs of that host take it from there. bfloat16 must win by a quarter, more than the
noise of a machine that does other work meanwhile, because both are timed in turns.
"""

from __future__ import annotations

import hashlib
import json
import logging
import statistics
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Literal, cast

import torch
import torch.nn.functional as F

from gatecrash.engine.device import device_name, supports_bfloat16
from gatecrash.engine.processor import cpu_kind, cpu_model
from gatecrash.process.cache_folder import cache_folder
from gatecrash.process.whole_file import replacing

log = logging.getLogger("gatecrash")

Precision = Literal["bfloat16", "float32"]

MARGIN = 1.25
"""How many times faster bfloat16 must be to be chosen."""

ROUNDS = 7
"""Both ways are timed this often, in turns; the median ratio decides."""


def auto_precision(device: torch.device | str) -> Precision:
    """What `precision: auto` means on `device`: float32 where it does not multiply bfloat16 in hardware, else the faster of the two."""
    device = torch.device(device)
    return _of_host(str(device)) if supports_bfloat16(device) else "float32"


@cache
def _of_host(device: str) -> Precision:
    """From the cache folder, or measured and written there. Where that folder cannot be used, every process measures for itself."""
    import filelock

    identity = [device_name(torch.device(device)), cpu_model(), cpu_kind(), torch.__version__]
    path = cache_folder() / "precision" / f"{hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:16]}.json"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(path.with_suffix(".lock"), timeout=60):
            return _read(path) or _decide(device, identity, path)
    except (OSError, filelock.Timeout) as error:
        log.warning("the choice between bfloat16 and float32 cannot be kept in %s (%s): this process measures for itself", path, error)
        return _choice(bfloat16_speedup(torch.device(device)))


def _read(path: Path) -> Precision | None:
    try:
        found = json.loads(path.read_bytes())["precision"]
    except (FileNotFoundError, ValueError, TypeError, KeyError):
        return None
    return cast("Precision", found) if found in {"bfloat16", "float32"} else None


def _decide(device: str, identity: list[str], path: Path) -> Precision:
    ratio = bfloat16_speedup(torch.device(device))
    precision = _choice(ratio)
    with replacing(path) as temporary:
        temporary.write_text(json.dumps({"precision": precision, "bfloat16_speedup": round(ratio, 3), "measured_on": identity}))
    return precision


def _choice(ratio: float) -> Precision:
    return "bfloat16" if ratio >= MARGIN else "float32"


def bfloat16_speedup(device: torch.device, clock: Callable[[], float] = time.perf_counter) -> float:
    """How many times faster a 3x3 convolution of 64 channels, forward and backward, is under bfloat16 autocast than in float32.

    One thread on a CPU, as a task has by default; half a second. Global state is left untouched.
    """
    cuda, threads = device.type == "cuda", torch.get_num_threads()
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(256 if cuda else 16, 64, 16, 16, generator=generator).to(device, memory_format=torch.channels_last)
    weights = torch.randn(64, 64, 3, 3, generator=generator).to(device, memory_format=torch.channels_last).requires_grad_()

    def seconds(bfloat16: bool) -> float:
        if cuda:
            torch.cuda.synchronize(device)
        begin = clock()
        with torch.enable_grad(), torch.autocast(device.type, torch.bfloat16, enabled=bfloat16):
            F.conv2d(F.conv2d(images, weights, padding=1), weights, padding=1).float().sum().backward()  # type: ignore[no-untyped-call]
        if cuda:
            torch.cuda.synchronize(device)
        return clock() - begin

    try:
        torch.set_num_threads(1)
        for bfloat16 in (False, True):  # kernels are chosen and compiled at the first call
            seconds(bfloat16)
        return statistics.median(seconds(False) / max(seconds(True), 1e-9) for _ in range(ROUNDS))
    finally:
        torch.set_num_threads(threads)
