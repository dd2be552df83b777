"""Seconds and peak memory of a piece of work."""

from __future__ import annotations

import resource
import sys
import time
from types import TracebackType

import torch


class Meter:
    """Times a block. `peak_mb` is the device's peak allocation on CUDA; on the CPU it is the process's resident peak so far, the
    interpreter and libraries included, since the system keeps no peak per task."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.seconds = 0.0
        self.peak_mb = 0.0

    def __enter__(self) -> Meter:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
            torch.cuda.reset_peak_memory_stats(self._device)
        self._start = time.perf_counter()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
            self.peak_mb = torch.cuda.max_memory_allocated(self._device) / 2**20
        else:
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            self.peak_mb = peak / (2**20 if sys.platform == "darwin" else 2**10)
        self.seconds = time.perf_counter() - self._start
