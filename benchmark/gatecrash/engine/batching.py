"""Consecutive batches of resident tensors, as large as memory and caches allow."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from gatecrash.errors import ContractError

_CPU_PIXELS = 2**16
"""Pixels per batch on a CPU: 64 images of 32x32. Larger batches ran up to 1.9 times slower on an AMD EPYC, whose caches their activations
leave; smaller ones gained at most a tenth (docs/speed.md)."""

_MOST = 4096
"""No device gains from larger batches."""

_SHARE = 4
"""A batch may take a quarter of the free memory: activations are counted once, workspaces and copies are not."""


def evaluation_batch_size(network: nn.Module, shape: tuple[int, int, int], device: torch.device | str) -> int:
    """How many images `(channels, height, width)` to pass through `network` at once: a power of two, at most 4096.

    On a GPU as many as a quarter of the free memory holds if every activation were kept (as for gradients), found by passing one image;
    on a CPU a fixed number by image size. The network's mode and state are unchanged.
    """
    device = torch.device(device)
    if device.type != "cuda":
        return default_batch_size(shape, device)
    return _power_of_two(_free_memory(device) // _SHARE // max(activation_bytes(network, shape, device), 1))


def default_batch_size(shape: tuple[int, ...], device: torch.device) -> int:
    """A batch size by the shape of one row alone; on a GPU it leaves room for activations 256 times as large as a float image channel."""
    pixels = max(1, shape[-1] * shape[-2]) if len(shape) >= 2 else max(1, *shape, 1)
    if device.type != "cuda":
        return min(1024, _power_of_two(_CPU_PIXELS // pixels))
    return _power_of_two(_free_memory(device) // _SHARE // (256 * 4 * pixels))


def activation_bytes(network: nn.Module, shape: tuple[int, int, int], device: torch.device | str) -> int:
    """Bytes of the outputs of all layers for one image."""
    total = 0

    def count(_module: nn.Module, _inputs: Any, output: Any) -> None:
        nonlocal total
        if isinstance(output, Tensor):
            total += output.numel() * output.element_size()

    modes = {module: module.training for module in network.modules()}
    handles = [module.register_forward_hook(count) for module in network.modules() if next(module.children(), None) is None]
    try:
        with torch.no_grad():
            network.eval()(torch.zeros(1, *shape, dtype=torch.uint8, device=device))
    finally:
        for handle in handles:
            handle.remove()
        for module, mode in modes.items():
            module.training = mode
    return total


def batches(*tensors: Tensor, device: torch.device | str, size: int | None = None) -> Iterator[Any]:
    """The tensors, row by row alike, in consecutive batches on `device`: tensors for one tensor, tuples for several.

    Raises ContractError if the lengths differ, there is no tensor or `size` is not positive.
    """
    if not tensors or len({len(tensor) for tensor in tensors}) != 1:
        raise ContractError(f"batches() takes tensors of one length; got {[len(tensor) for tensor in tensors]}")
    if size is not None and size < 1:
        raise ContractError(f"batches() needs a positive size; got {size}")
    device = torch.device(device)
    step = size or default_batch_size(tuple(tensors[0].shape[1:]), device)
    return _batches(tensors, device, step)


def _batches(tensors: tuple[Tensor, ...], device: torch.device, size: int) -> Iterator[Any]:
    for start in range(0, len(tensors[0]), size):
        parts = tuple(tensor[start : start + size].to(device) for tensor in tensors)
        yield parts if len(parts) > 1 else parts[0]


def _free_memory(device: torch.device) -> int:
    """Bytes that can still be allocated: what the device has left, and what torch's cache holds unused."""
    free, _ = torch.cuda.mem_get_info(device)
    return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)


def _power_of_two(limit: int) -> int:
    """The largest power of two up to `limit`, between 1 and 4096: batch sizes, and with them rounding, do not follow every byte."""
    return 1 << (max(1, min(limit, _MOST)).bit_length() - 1)
