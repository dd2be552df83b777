"""glibc's allocator, set to keep the memory that a task frees until the task ends.

By default glibc hands every large block back to the kernel as it is freed, and the next step's activations are faulted in again page by
page: on a CPU that can take a third of the time of a forward and backward pass.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""glibc's names for them: M_TRIM_THRESHOLD, M_MMAP_THRESHOLD (malloc.h)."""


LARGEST = 2**30
"""Bytes. A block from this size on still goes back at once."""


@contextmanager
def freed_memory_kept() -> Iterator[None]:
    """Freed memory stays with the process inside, for its next allocations, and goes back to the machine at the end.

    Does nothing where the C library is not glibc. The thresholds stay set for the rest of the process.
    """
    library = _glibc()
    if library is None:
        yield
        return
    library.mallopt(_MMAP_THRESHOLD, LARGEST)
    library.mallopt(_TRIM_THRESHOLD, LARGEST)
    try:
        yield
    finally:
        library.malloc_trim(0)


@cache
def _glibc() -> ctypes.CDLL | None:
    if not sys.platform.startswith("linux"):
        return None
    library = ctypes.CDLL(None)
    return library if all(hasattr(library, name) for name in ("gnu_get_libc_version", "mallopt", "malloc_trim")) else None
