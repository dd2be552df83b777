"""Values between processes: pickled, with the tensors' bytes beside the pickle, where the object store moves them without a copy.

Every worker of a machine maps the store's memory writable: what one writes there, the next one reads. So a parcel is opened once, into
memory of the worker's own, and lets go of the shared memory then: a plugin that walks the objects of its process finds copies only.

What is mapped from a file need not move on one machine: the worker maps the file, too. What it writes there stays in its own memory.
"""

from __future__ import annotations

import io
import pickle
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from cachetools import LRUCache

from gatecrash.running.tasks.protocol import Artifact

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from gatecrash.process.mapped import Region


@dataclass(frozen=True)
class Parcel:
    """A packed value: the pickle, one uint8 array per tensor, and of tensors that stay in their files where they lie."""

    head: bytes
    buffers: list[np.ndarray[Any, np.dtype[np.uint8]]]
    regions: list[Region] = field(default_factory=list)

    @property
    def size(self) -> int:
        """Bytes."""
        return len(self.head) + sum(buffer.nbytes for buffer in self.buffers)


def pack(value: Any, *, by_file: bool = False) -> Parcel:
    """The value with its tensors on the CPU, detached. Buffers alias the tensors where they can. `by_file`, for a process of this machine:
    originals of `process.mapped` stay in their files."""
    stream = io.BytesIO()
    buffers: list[pickle.PickleBuffer] = []
    regions: list[Region] | None = [] if by_file else None
    _Pickler(stream, buffers.append, regions).dump(value)
    return Parcel(stream.getvalue(), [np.frombuffer(buffer.raw(), dtype=np.uint8) for buffer in buffers], regions or [])


def unpack(parcel: Parcel) -> Any:
    """The value, in memory of its own; the parcel is empty afterwards."""
    buffers = _memory([len(buffer) for buffer in parcel.buffers])
    for own, shared in zip(buffers, parcel.buffers, strict=True):
        own[:] = shared
    parcel.buffers.clear()
    return pickle.loads(parcel.head, buffers=buffers)


def _memory(sizes: Sequence[int]) -> list[np.ndarray[Any, np.dtype[np.uint8]]]:
    """Arrays of so many bytes, aligned as torch's own tensors."""
    if not sizes:
        return []
    import torch

    return [torch.empty(size, dtype=torch.uint8).numpy() for size in sizes]


class SharedArtifacts:
    """Artifacts in an object store, by key: each is put there once. The least recently used are let go beyond `budget` bytes; the object
    store keeps what a task in flight still needs. `by_file` is that of `pack`."""

    def __init__(self, put: Callable[[Parcel], Any], budget: int, *, by_file: bool = False) -> None:
        self._put, self._by_file = put, by_file
        self._kept: LRUCache[str, tuple[Any, int, list[Region]]] = LRUCache(budget, getsizeof=lambda entry: min(entry[1], budget))

    def put(self, artifact: Artifact) -> Any:
        """What refers to the artifact there."""
        reference, _, regions = self._kept.get(artifact.key, (None, 0, []))
        if reference is None or not all(region.is_there() for region in regions):  # somebody has emptied the cache
            parcel = pack(artifact.value, by_file=self._by_file)
            reference = self._put(parcel)
            self._kept[artifact.key] = reference, parcel.size, parcel.regions
        return reference


class _Pickler(pickle.Pickler):
    def __init__(self, stream: io.BytesIO, take: Callable[[pickle.PickleBuffer], None], regions: list[Region] | None) -> None:
        """`take` is given the tensors' bytes, and `regions` gets what stays in files; None where nothing may."""
        super().__init__(stream, protocol=5, buffer_callback=take)
        self._regions = regions

    def reducer_override(self, value: Any) -> Any:
        torch = sys.modules.get("torch")
        if torch is None or (type(value) is not torch.Tensor and type(value) is not torch.nn.Parameter):
            return NotImplemented  # no tensor where nobody has imported torch
        if self._regions is not None:
            from gatecrash.process.mapped import region_of

            region = region_of(value)
            if region is not None and region.is_there():
                self._regions.append(region)
                return region.mapped, ()
        tensor = value.detach().cpu().contiguous()
        content: Any = tensor.reshape(-1).view(torch.uint8).numpy()
        return _tensor, (pickle.PickleBuffer(content), tensor.dtype, tuple(tensor.shape))


def _tensor(buffer: Any, dtype: torch.dtype, shape: tuple[int, ...]) -> Tensor:
    import torch

    content = np.frombuffer(buffer, dtype=np.uint8)
    return torch.from_numpy(content).view(dtype).reshape(shape) if content.size else torch.empty(shape, dtype=dtype)
