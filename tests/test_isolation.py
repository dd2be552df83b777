"""Whatever a task does to torch's process-wide settings, the next one finds them in order."""

from __future__ import annotations

import os
import random

import numpy as np
import torch

from gatecrash.isolation import fresh_process_state, full_float32


def scribble() -> None:
    torch.manual_seed(random.randrange(2**31))
    np.random.seed(random.randrange(2**31))
    random.seed(99)
    torch.set_default_dtype(torch.float64)
    torch.set_grad_enabled(False)
    torch.set_num_threads(3)
    torch.use_deterministic_algorithms(True)
    for holder, name, exact in full_float32():
        setattr(holder, name, "tf32" if isinstance(exact, str) else True)
    os.environ["GATECRASH_SCRIBBLE"] = "1"


def draws() -> tuple[float, float, float]:
    return float(torch.rand(())), float(np.random.rand()), random.random()


def test_a_task_starts_the_same_whatever_ran_before() -> None:
    with fresh_process_state(1):
        first = draws()
        scribble()
    with fresh_process_state(2):
        assert draws() == first
        assert torch.get_default_dtype() == torch.float32
        assert torch.is_grad_enabled()
        assert torch.get_num_threads() == 2
        assert not torch.are_deterministic_algorithms_enabled()
        assert all(getattr(holder, name) == exact for holder, name, exact in full_float32())
        assert "GATECRASH_SCRIBBLE" not in os.environ


def test_the_callers_own_settings_come_back() -> None:
    torch.manual_seed(5)
    np.random.seed(5)
    random.seed(5)
    expected = draws()
    torch.manual_seed(5)
    np.random.seed(5)
    random.seed(5)
    threads = torch.get_num_threads()
    with fresh_process_state(2):
        scribble()
    assert draws() == expected
    assert torch.get_num_threads() == threads
    assert torch.get_default_dtype() == torch.float32
    assert torch.is_grad_enabled()
