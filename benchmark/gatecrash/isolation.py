"""Torch's process-wide settings, put in order around every task: a plugin that leaves them changed cannot change another cell's numbers."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy as np
import torch


@contextmanager
def fresh_process_state(threads: int) -> Iterator[None]:
    """Known RNG states, float32, gradients on, exact float32 products, `threads` CPU threads; everything is put back afterwards."""
    before = (
        random.getstate(),
        np.random.get_state(),
        torch.get_rng_state(),
        torch.get_default_dtype(),
        torch.is_grad_enabled(),
        torch.are_deterministic_algorithms_enabled(),
        torch.backends.cudnn.benchmark,
        torch.get_num_threads(),
        dict(os.environ),
    )
    precisions = [(holder, name, getattr(holder, name), exact) for holder, name, exact in full_float32()]
    try:
        _set_rng(*_fresh_rng())
        _set_torch(torch.float32, True, False, False, threads)
        for holder, name, _, exact in precisions:
            setattr(holder, name, exact)
        yield
    finally:
        _set_rng(*before[:3])
        _set_torch(*before[3:8])
        for holder, name, value, _ in precisions:
            setattr(holder, name, value)
        if os.environ != before[8]:
            os.environ.clear()
            os.environ.update(before[8])


@cache
def _fresh_rng() -> tuple[object, object, torch.Tensor]:
    return random.Random(0).getstate(), np.random.RandomState(0).get_state(), torch.Generator().manual_seed(0).get_state()


def _set_rng(python: object, numpy: object, torch_state: torch.Tensor) -> None:
    random.setstate(python)  # type: ignore[arg-type]
    np.random.set_state(numpy)  # type: ignore[arg-type]
    torch.set_rng_state(torch_state)


def _set_torch(dtype: torch.dtype, grad: bool, deterministic: bool, benchmark: bool, threads: int) -> None:
    torch.set_default_dtype(dtype)
    torch.set_grad_enabled(grad)
    torch.use_deterministic_algorithms(deterministic)
    torch.backends.cudnn.benchmark = benchmark
    torch.set_num_threads(threads)


def full_float32() -> list[tuple[Any, str, Any]]:
    """(holder, attribute, value) of the switches that keep float32 matrix products and convolutions from being rounded to less."""
    cudnn: Any = torch.backends.cudnn
    mkldnn: Any = torch.backends.mkldnn
    matmul = torch.backends.cuda.matmul
    if hasattr(cudnn, "conv"):  # torch >= 2.9, which refuses to read the old switches once someone has used the new ones
        holders = (matmul, cudnn.conv, cudnn.rnn, mkldnn.matmul, mkldnn.conv, mkldnn.rnn)
        return [(holder, "fp32_precision", "ieee") for holder in holders]
    return [(matmul, "allow_tf32", False), (cudnn, "allow_tf32", False)]
