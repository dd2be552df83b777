"""A CUDA device on a machine without one, for tests: real values, computed on the CPU, under the rules of a GPU.

Inside `simulated_gpu()` the device "cuda" exists. Its tensors refuse what a GPU refuses (`gpu_rules`) and every wait for the device is
written down with the line of code that causes it (`gpu_trace`). Torch sees them as tensors of its device "lazy", of which nothing runs in
a build of torch for CPUs and GPUs, but which its autograd handles like the CPU; Python code sees `cuda:0`.

It has one stream, no memory limit and no random generator of its own, and it is no faster or slower where a GPU would be.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from functools import cache
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing

from gatecrash.testing.gpu_rules import GpuFault, leaves, refusal_of, wait_of
from gatecrash.testing.gpu_trace import Trace, code_line

CUDA = torch.device("cuda", 0)
_INSIDE = torch.device("lazy", 0)
_CPU = torch.device("cpu")
_ours = frozenset({"cuda", "lazy"})
_aten: Any = torch.ops.aten


class GpuTensor(Tensor):
    """A tensor on the simulated device; `held` has its values, on the CPU."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> GpuTensor:
        made: GpuTensor = Tensor._make_wrapper_subclass(
            cls,
            held.size(),
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            layout=held.layout,
            device=_INSIDE,
        )
        made.held = held
        return made

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return CUDA

    is_cuda = property(lambda _self: True)
    is_cpu = property(lambda _self: False)

    def __repr__(self, **_options: Any) -> str:  # type: ignore[override]
        return f"GpuTensor({self.held})"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # type: ignore[override]
        return _run(func, args, kwargs or {}, None)


class _Device(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Makes tensors on the simulated device, too; an operation without such a tensor would not come by otherwise."""

    def __init__(self, trace: Trace) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._trace = trace

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # else torch imports its compiler, to guard the mode against it: a second, and time in every operation

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {}, self._trace)


class _Moves(TorchFunctionMode):
    """Moves between devices, about which torch decides before it dispatches, are decided here: torch takes `cuda` for a third device."""

    def __torch_function__(self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None) -> Any:
        options = dict(kwargs or {})
        if options.get("device") is not None and torch.device(options["device"]).type in _ours:
            options["device"] = CUDA  # with its number, for which torch would ask the driver
        return _MOVERS.get(func, func)(*args, **options)


@contextmanager
def simulated_gpu() -> Iterator[Trace]:
    """The device "cuda" exists in the block, simulated; gives what is known of the waits in it. Raises GpuFault for what it refuses."""
    trace = Trace()
    if torch.cuda.is_available():
        torch.cuda.init()  # type: ignore[no-untyped-call]  # afterwards torch takes it for done
    lift = torch._C._only_lift_cpu_tensors()
    with ExitStack() as stack:
        for name, value in _TORCH_CUDA.items():
            stack.enter_context(patch.object(torch.cuda, name, value))
        stack.enter_context(patch.object(torch.autograd, "_engine_run_backward", trace.counting(torch.autograd._engine_run_backward)))  # type: ignore[attr-defined]
        stack.callback(torch._C._set_only_lift_cpu_tensors, lift)
        torch._C._set_only_lift_cpu_tensors(True)
        stack.enter_context(_Device(trace))
        stack.enter_context(_Moves())
        yield trace


def _run(func: Any, args: Any, kwargs: dict[str, Any], trace: Trace | None) -> Any:
    """One operation: on the CPU values, after the rules have let it pass."""
    here, wanted = any(isinstance(leaf, GpuTensor) for leaf in leaves((*args, *kwargs.values()))), kwargs.get("device")
    there = here if wanted is None else torch.device(wanted).type in _ours
    if here or there:
        refusal = refusal_of(func, args, kwargs, GpuTensor)
        if refusal is not None:
            fault = GpuFault(f"{refusal} ({code_line()})")
            if trace is not None:
                trace.faults.append(fault)
            raise fault
        wait = wait_of(func, args, kwargs, GpuTensor, there)
        if wait is not None and trace is not None:
            trace.add(wait)
    inner_kwargs = {name: _inner(value) for name, value in kwargs.items()}
    if wanted is not None and there:
        inner_kwargs["device"] = _CPU
    # A part of an ordinary tensor is an ordinary one in inference mode, too.
    with torch.inference_mode(False) if torch.is_inference_mode_enabled() else nullcontext():
        found = func(*_inner(args), **inner_kwargs)
        if not there:
            return found
        made = _wrapped(found)
        return return_and_correct_aliasing(func, args, kwargs, made) if _shares_memory(func) else made  # type: ignore[no-untyped-call]


def _inner(value: Any) -> Any:
    """The value with the CPU's tensors in place of those on the device."""
    if isinstance(value, GpuTensor):
        return value.held
    return type(value)(map(_inner, value)) if isinstance(value, list | tuple) else value


def _wrapped(value: Any) -> Any:
    """The value with tensors on the device in place of the CPU's."""
    if isinstance(value, list | tuple):
        return type(value)(map(_wrapped, value))
    return GpuTensor(value) if isinstance(value, Tensor) and not isinstance(value, GpuTensor) else value


@cache
def _shares_memory(func: Any) -> bool:
    """Whether the operation returns an argument, or a view of one."""
    return any(found.alias_info is not None for found in func._schema.returns)


def _to(tensor: Tensor, *args: Any, copy: bool = False, **kwargs: Any) -> Tensor:
    """`tensor.to(...)`, where the tensor or what it shall be like is on the simulated device."""
    device, dtype, non_blocking, memory_format = torch._C._nn._parse_to(*args, **kwargs)
    here = tensor.device.type in _ours
    there = here if device is None else device.type in _ours
    fits = memory_format in (None, torch.preserve_format) or tensor.is_contiguous(memory_format=memory_format)
    if here == there and dtype in (None, tensor.dtype) and fits and not copy:
        return tensor
    return _aten._to_copy(  # type: ignore[no-any-return]
        tensor, dtype=dtype, device=CUDA if there else _CPU, non_blocking=non_blocking, memory_format=memory_format
    )


def _set_data(tensor: Tensor, value: Tensor) -> None:
    """`tensor.data = value`."""
    if isinstance(tensor, GpuTensor) != isinstance(value, GpuTensor):
        raise RuntimeError("incompatible tensor type: .data is set to a tensor on another device")
    with torch._C.DisableTorchFunctionSubclass():
        _data.__set__(tensor, value)
    if isinstance(tensor, GpuTensor) and isinstance(value, GpuTensor):
        tensor.held = value.held


_data: Any = Tensor.data
_tolist: Any = Tensor.tolist
_MOVERS: dict[Any, Callable[..., Any]] = {
    Tensor.to: _to,
    Tensor.cpu: lambda tensor, **options: _to(tensor, _CPU, **options),
    Tensor.cuda: lambda tensor, _device=None, **options: _to(tensor, CUDA, **options),
    Tensor.tolist: lambda tensor: _tolist(_to(tensor, _CPU)),
    Tensor.type_as: lambda tensor, other: _to(tensor, other),
    _data.__set__: _set_data,
}

_TORCH_CUDA: dict[str, Any] = {
    "_lazy_init": lambda: None,
    "current_device": lambda: 0,
    "device": lambda _device: nullcontext(),
    "get_device_name": lambda _device=None: "simulated GPU",
    "get_rng_state": lambda _device=None: torch.get_rng_state(),
    "is_bf16_supported": lambda **_options: False,
    "manual_seed": lambda _seed: None,
    "manual_seed_all": lambda _seed: None,
    "max_memory_allocated": lambda _device=None: 0,
    "mem_get_info": lambda _device=None: (1 << 32, 1 << 32),
    "memory_allocated": lambda _device=None: 0,
    "memory_reserved": lambda _device=None: 0,
    "reset_peak_memory_stats": lambda _device=None: None,
    "set_rng_state": lambda _state, _device=None: None,
    "synchronize": lambda _device=None: None,
}
"""What Gatecrash and torch ask `torch.cuda` about the device."""
