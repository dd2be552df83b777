"""What a GPU refuses, and for what the program has to wait: the rules of torch's CUDA device, for single operations."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cache
from typing import Any

import torch
from torch import Tensor


class GpuFault(RuntimeError):
    """An operation that a GPU refuses, in words like torch's own."""


_OWN_PLACES = ("index", "index_put", "_index_put_impl", "_unsafe_index", "_unsafe_index_put")
"""Operations that take places on the CPU for a tensor on the device."""
_OWN_SCALARS = ("fill", "masked_fill", "index_fill", "copy", "_fused_", "_foreach_")
"""Starts of the names of operations, beside the elementwise ones, that take a 0-dim tensor from the CPU."""
_MOVES = frozenset({"copy_", "copy", "_to_copy"})
_FLOATING = frozenset({"mm", "addmm", "bmm", "baddbmm", "convolution", "convolution_backward", "dot", "mv", "addmv"})
"""Operations that the CPU has for integers, and a GPU has not."""


def refusal_of(func: Any, args: Any, kwargs: Any, gpu: type[Tensor]) -> str | None:
    """Why a GPU refuses the operation on these arguments, of which at least one, or the result, is on it; None where it does not."""
    name = _name(func)
    if not has_gpu_kernel(func):
        return f"aten::{name} has no kernel for a GPU"
    given = list(leaves((*args, *kwargs.values())))
    tensors = [leaf for leaf in given if isinstance(leaf, Tensor) and leaf.device.type != "meta"]
    if any(isinstance(leaf, torch.Generator) and leaf.device.type == "cpu" for leaf in given):
        return "expected a generator on cuda, but found one on cpu"
    if name in _FLOATING and tensors and not (tensors[0].is_floating_point() or tensors[0].is_complex()):
        return f"aten::{name} is not implemented for {tensors[0].dtype} on a GPU"
    if name not in _MOVES and any(isinstance(tensor, gpu) for tensor in tensors) and _meets_strangers(func, args, tensors, gpu):
        return f"expected all tensors of aten::{name} to be on the same device, but found at least two, cuda:0 and cpu"
    return None


def _meets_strangers(func: Any, args: Any, tensors: list[Tensor], gpu: type[Tensor]) -> bool:
    """Whether one of the tensors is on the CPU where none may be."""
    name = _name(func)
    strangers = [tensor for tensor in tensors if not isinstance(tensor, gpu)]
    if name.rstrip("_") in _OWN_PLACES and isinstance(args[0], gpu):
        strangers = [] if len(args) < 3 or isinstance(args[2], gpu) or not args[2].ndim else [args[2]]
    scalars = torch.Tag.pointwise in func.tags or name.startswith(_OWN_SCALARS)
    return any(tensor.ndim or not scalars for tensor in strangers) or _changes(func, args, strangers)


def wait_of(func: Any, args: Any, kwargs: Any, gpu: type[Tensor], to_gpu: bool) -> str | None:
    """Why the program waits here for all that the device has been given to do, if it does: as `torch.cuda.set_sync_debug_mode` counts."""
    name = _name(func)
    if name in ("_to_copy", "copy_"):
        source, target = (args[1], isinstance(args[0], gpu)) if name == "copy_" else (args[0], to_gpu)
        blocking = not (kwargs.get("non_blocking") or (name == "copy_" and len(args) > 2 and args[2]))
        if isinstance(source, gpu) == target or source.device.type == "meta" or (target and not blocking):
            return None
        return "a copy to the GPU" if target else "a copy to the CPU"
    if name == "_local_scalar_dense":
        return "a value read in Python (.item(), float(), bool(), if)"
    if name.rstrip("_") in _OWN_PLACES:
        return _wait_of_places(args, gpu)
    shapes = {torch.Tag.dynamic_output_shape, torch.Tag.data_dependent_output} & set(func.tags)
    return f"{name}, whose result has a size or value that is known on the device only" if shapes else None


def _wait_of_places(args: Any, gpu: type[Tensor]) -> str | None:
    places = [place for place in args[1] if place is not None]
    masks = [place for place in places if place.dtype in (torch.bool, torch.uint8)]
    if masks and not (len(args) > 2 and args[2].numel() == 1 and len(masks) == len(places)):  # one value: a masked fill
        return "a selection by a mask (torch.where, or products with the mask, do not wait)"
    if any(not isinstance(place, gpu) for place in places):
        return "a selection by rows that are on the CPU"
    return None


def leaves(values: Iterable[Any]) -> Iterator[Any]:
    """What is in the values, and in lists and tuples in them."""
    for value in values:
        if isinstance(value, list | tuple):
            yield from leaves(value)
        else:
            yield value


@cache
def has_gpu_kernel(func: Any) -> bool:
    """Whether torch has the operation for CUDA. A build without CUDA cannot tell, and says yes."""
    return torch.version.cuda is None or any(_has(func, key) for key in _KEYS)


_KEYS = ("CUDA", "CompositeExplicitAutograd", "CompositeExplicitAutogradNonFunctional", "CompositeImplicitAutograd")


def _has(func: Any, key: str) -> bool:
    return bool(torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), key))


def _name(func: Any) -> str:
    return str(func.overloadpacket.__name__)


def _changes(func: Any, args: Any, strangers: list[Tensor]) -> bool:
    """Whether the operation would write its result, which is on the device, into one of these."""
    for position, argument in enumerate(func._schema.arguments):
        written = argument.alias_info is not None and argument.alias_info.is_write
        if written and position < len(args) and any(args[position] is tensor for tensor in strangers):
            return True
    return False
