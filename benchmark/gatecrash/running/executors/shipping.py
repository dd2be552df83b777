"""Values between processes: pickled, with the tensors' bytes beside the pickle, where the object store moves them without a copy.

Every worker of a machine maps the store's memory writable: what one writes there, the next one reads. So a parcel is opened once, into
memory of the worker's own, and lets go of the shared memory then: a plugin that walks the objects of its process finds copies only.
"""

from __future__ import annotations

import io
import pickle
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from cachetools import LRUCache

from gatecrash.running.tasks.protocol import Artifact

if TYPE_CHECKING:
    import torch
    from torch import Tensor


@dataclass(frozen=True)
class Parcel:
    """A packed value: the pickle, and one uint8 array per tensor."""

    head: bytes
    buffers: list[np.ndarray[Any, np.dtype[np.uint8]]]

    @property
    def size(self) -> int:
        """Bytes."""
        return len(self.head) + sum(buffer.nbytes for buffer in self.buffers)


def pack(value: Any) -> Parcel:
    """The value with its tensors on the CPU, detached. Buffers alias the tensors where they can."""
    stream = io.BytesIO()
    buffers: list[pickle.PickleBuffer] = []
    _Pickler(stream, protocol=5, buffer_callback=buffers.append).dump(value)
    return Parcel(stream.getvalue(), [np.frombuffer(buffer.raw(), dtype=np.uint8) for buffer in buffers])


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
    store keeps what a task in flight still needs."""

    def __init__(self, put: Callable[[Parcel], Any], budget: int) -> None:
        self._put = put
        self._kept: LRUCache[str, tuple[Any, int]] = LRUCache(budget, getsizeof=lambda entry: min(entry[1], budget))

    def put(self, artifact: Artifact) -> Any:
        """What refers to the artifact there."""
        if artifact.key not in self._kept:
            parcel = pack(artifact.value)
            self._kept[artifact.key] = self._put(parcel), parcel.size
        return self._kept[artifact.key][0]


class _Pickler(pickle.Pickler):
    def reducer_override(self, value: Any) -> Any:
        torch = sys.modules.get("torch")
        if torch is None or (type(value) is not torch.Tensor and type(value) is not torch.nn.Parameter):
            return NotImplemented  # no tensor where nobody has imported torch
        tensor = value.detach().cpu().contiguous()
        content: Any = tensor.reshape(-1).view(torch.uint8).numpy()
        return _tensor, (pickle.PickleBuffer(content), tensor.dtype, tuple(tensor.shape))


def _tensor(buffer: Any, dtype: torch.dtype, shape: tuple[int, ...]) -> Tensor:
    import torch

    content = np.frombuffer(buffer, dtype=np.uint8)
    return torch.from_numpy(content).view(dtype).reshape(shape) if content.size else torch.empty(shape, dtype=dtype)
