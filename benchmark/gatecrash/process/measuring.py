"""Seconds and peak memory of a piece of work."""

from __future__ import annotations

import resource
import sys
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType

import torch

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class Meter:
    """Times a block. `peak_mb` is the device's peak allocation on CUDA; on the CPU it is the most that the process held meanwhile, the
    interpreter, libraries and data included (not on Linux: the most that it ever held)."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.seconds = 0.0
        self.peak_mb = 0.0

    def __enter__(self) -> Meter:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
            torch.cuda.reset_peak_memory_stats(self._device)
        else:
            _forget_peak()
        self._start = time.perf_counter()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
            self.peak_mb = torch.cuda.max_memory_allocated(self._device) / 2**20
        else:
            self.peak_mb = peak_of_this_process()
        self.seconds = time.perf_counter() - self._start


def peak_of_this_process() -> float:
    """MiB. Not `ru_maxrss` where it can be avoided: on Linux a new process inherits it from its parent."""
    with suppress(OSError, StopIteration):
        line = next(line for line in _STATUS.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) / 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def _forget_peak() -> None:
    """Reset the peak, where the system can (Linux: proc(5), clear_refs)."""
    with suppress(OSError):
        _CLEAR.write_text("5")
