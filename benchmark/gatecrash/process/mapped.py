"""Images mapped from files: bytes come into memory as they are read, and all processes of a machine share them.

An *original* is such a tensor that nobody writes to. The kernel can drop its bytes and read them again, so they cost memory only where
there is some to spare. A copy of an original is another mapping of the file: only the pages that are written to take memory of their own.
"""

from __future__ import annotations

import math
import mmap
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from weakref import WeakValueDictionary

import torch
from torch import Tensor

AT_A_TIME = 2**23
"""Bytes that are read of an original before they are let go of."""


@dataclass(frozen=True)
class Region:
    """Where a file has the bytes of a uint8 tensor, and what the file was when it was first mapped."""

    path: str
    offset: int
    shape: tuple[int, ...]
    stamp: tuple[int, int, int]
    """Inode, size and time of the last change (ns)."""

    def mapped(self) -> Tensor:
        """An original. Raises OSError where the file is gone, or is another one by now."""
        return self._tensor(original=True)

    def copied(self) -> Tensor:
        """A copy of the original, which may be written to. Raises OSError as `mapped` does."""
        return self._tensor(original=False)

    def is_there(self) -> bool:
        """Whether the file is still the one that was mapped."""
        try:
            return _stamp(os.stat(self.path)) == self.stamp
        except OSError:
            return False

    def _tensor(self, *, original: bool) -> Tensor:
        skipped = self.offset % mmap.ALLOCATIONGRANULARITY
        gone = FileNotFoundError(f"{self.path} was removed or changed while a run used it; run again")
        if not self.is_there():
            raise gone
        with Path(self.path).open("rb") as file:
            if _stamp(os.fstat(file.fileno())) != self.stamp:  # replaced meanwhile
                raise gone
            length = skipped + math.prod(self.shape)
            mapping = _Mapping(file.fileno(), length, access=mmap.ACCESS_COPY, offset=self.offset - skipped)
        tensor = torch.frombuffer(mapping, dtype=torch.uint8, offset=skipped, count=math.prod(self.shape)).view(self.shape)
        mapping.region, mapping.original = self, original
        _MAPPINGS[tensor.data_ptr()] = mapping
        return tensor


class _Mapping(mmap.mmap):
    region: Region
    original: bool


_MAPPINGS: WeakValueDictionary[int, _Mapping] = WeakValueDictionary()
"""By address, as long as a tensor uses them."""


def mapped_file(path: Path, offset: int, shape: tuple[int, ...]) -> Tensor:
    """The uint8 tensor that lies in the file at this offset, as an original. Raises OSError where the file is missing or too short."""
    if not math.prod(shape):
        return torch.empty(shape, dtype=torch.uint8)
    found = path.stat()
    if found.st_size < offset + math.prod(shape):
        raise OSError(f"{path} is too short")
    return Region(str(path.absolute()), offset, shape, _stamp(found)).mapped()


def region_of(tensor: Tensor) -> Region | None:
    """Where an original, whole, lies; None for any other tensor."""
    mapping = _mapping_of(tensor)
    return mapping.region if mapping is not None and mapping.original else None


def copied(tensor: Tensor) -> Tensor:
    """The same content, to be written to: of an original another mapping, else a clone."""
    region = region_of(tensor)
    if region is not None and region.is_there():
        return region.copied()
    return tensor.clone()


def let_go(tensor: Tensor) -> None:
    """The bytes of an original leave this process until they are read again; any other tensor stays as it is."""
    mapping = _mapping_of(tensor)
    if mapping is not None and mapping.original and hasattr(mapping, "madvise"):
        mapping.madvise(mmap.MADV_DONTNEED)


@contextmanager
def read_at_random(tensor: Tensor) -> Iterator[None]:
    """Inside, what is not in memory is read from the file without its neighbours: where a set is larger than memory, they would be dropped
    again before their turn comes. Nothing changes for tensors that are not mapped."""
    mapping = _mapping_of(tensor)
    if mapping is None or not hasattr(mapping, "madvise"):
        yield
        return
    mapping.madvise(mmap.MADV_RANDOM)
    try:
        yield
    finally:
        mapping.madvise(mmap.MADV_NORMAL)


def slices(tensor: Tensor) -> Iterator[slice]:
    """Consecutive rows, some megabytes at a time. What has been read of an original is let go of."""
    step = max(1, AT_A_TIME // max(1, math.prod(tensor.shape[1:])))
    for start in range(0, len(tensor), step):
        yield slice(start, min(start + step, len(tensor)))
        let_go(tensor)


def in_parts(tensor: Tensor, rows: Tensor) -> Iterator[Tensor]:
    """Copies of these rows (int64 [n], ascending), one after the other of what `slices` gives."""
    for part in slices(tensor):
        yield tensor[rows[(rows >= part.start) & (rows < part.stop)]]


def _mapping_of(tensor: Tensor) -> _Mapping | None:
    """What maps the tensor, whole."""
    mapping = _MAPPINGS.get(tensor.data_ptr()) if tensor.dtype == torch.uint8 and tensor.device.type == "cpu" else None
    fits = mapping is not None and tensor.shape == mapping.region.shape and tensor.is_contiguous()
    return mapping if fits else None


def _stamp(found: os.stat_result) -> tuple[int, int, int]:
    return found.st_ino, found.st_size, found.st_mtime_ns
