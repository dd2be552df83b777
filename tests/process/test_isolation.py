"""Whatever a task does to process_settings of the whole process, the next one finds them in order, and the caller finds its own."""

from __future__ import annotations

import gc
import os
import random
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.modules import module as modules
from torch.optim import optimizer

from gatecrash.process.isolation import fresh_process_state
from gatecrash.process.settings import full_float32, process_settings


def rounding(holder: Any, name: str, exact: Any) -> Callable[[], None]:
    return lambda: setattr(holder, name, "tf32" if isinstance(exact, str) else True)


def autocast(device: str) -> Callable[[], None]:
    return lambda: (torch.set_autocast_enabled(device, True), torch.set_autocast_dtype(device, torch.float32))  # type: ignore[return-value]


def hook(*_: Any) -> None:
    return None


SCRIBBLES: dict[str, Callable[[], object]] = {
    "random": lambda: random.seed(99),
    "numpy.random": lambda: np.random.seed(99),
    "torch.random": lambda: torch.manual_seed(99),
    "threads": lambda: torch.set_num_threads(3),
    "default dtype": lambda: torch.set_default_dtype(torch.float64),
    "default device": lambda: torch.set_default_device("meta"),
    "gradients": lambda: torch.set_grad_enabled(False),
    "anomaly detection": lambda: torch.autograd.set_detect_anomaly(True),
    "deterministic algorithms": lambda: torch.use_deterministic_algorithms(True, warn_only=True),
    "flushed denormals": lambda: torch.set_flush_denormal(True),
    "matmul precision": lambda: torch.set_float32_matmul_precision("medium"),
    **{f"{switch[1]} {number}": rounding(*switch) for number, switch in enumerate(full_float32())},
    "benchmark": lambda: setattr(torch.backends.cudnn, "benchmark", True),
    "deterministic": lambda: setattr(torch.backends.cudnn, "deterministic", True),
    "enabled": lambda: setattr(torch.backends.cudnn, "enabled", False),
    "autocast on cpu": autocast("cpu"),
    "autocast on cuda": autocast("cuda"),
    "numpy errors": lambda: np.seterr(all="raise"),
    "garbage collection": gc.disable,
    "_global_buffer_registration_hooks": lambda: modules.register_module_buffer_registration_hook(hook),
    "_global_module_registration_hooks": lambda: modules.register_module_module_registration_hook(hook),
    "_global_parameter_registration_hooks": lambda: modules.register_module_parameter_registration_hook(hook),
    "_global_backward_pre_hooks": lambda: modules.register_module_full_backward_pre_hook(hook),
    "_global_backward_hooks": lambda: modules.register_module_full_backward_hook(hook),
    "_global_is_full_backward_hook": lambda: modules.register_module_full_backward_hook(hook),
    "_global_forward_pre_hooks": lambda: modules.register_module_forward_pre_hook(hook),
    "_global_forward_hooks": lambda: modules.register_module_forward_hook(hook),
    "_global_forward_hooks_always_called": lambda: modules.register_module_forward_hook(hook, always_call=True),
    "_global_forward_hooks_with_kwargs": lambda: modules.register_module_forward_hook(hook, with_kwargs=True),
    "_global_optimizer_pre_hooks": lambda: optimizer.register_optimizer_step_pre_hook(hook),
    "_global_optimizer_post_hooks": lambda: optimizer.register_optimizer_step_post_hook(hook),
}
"""What a careless plugin does to each setting."""

WITHOUT_GPU = {"torch.cuda.random"}


def state() -> dict[str, Any]:
    return {setting.name: repr(setting.read()) for setting in process_settings()}


@pytest.fixture(autouse=True)
def _left_as_found() -> Iterator[None]:
    with fresh_process_state(1):
        yield


def test_every_setting_is_scribbled_on_here() -> None:
    assert {setting.name for setting in process_settings()} - WITHOUT_GPU - SCRIBBLES.keys() <= {"_global_forward_hooks_with_kwargs"}


@pytest.mark.parametrize("name", [name for name in SCRIBBLES if name in {setting.name for setting in process_settings()}])
def test_a_setting_that_a_task_leaves_changed_is_in_order_for_the_next(name: str) -> None:
    with fresh_process_state(1):
        expected = state()
        SCRIBBLES[name]()
        assert state()[name] != expected[name]
        with fresh_process_state(1):  # in case the process came out of an earlier task like this
            assert state() == expected
    with fresh_process_state(1):
        assert state() == expected


@pytest.mark.parametrize("name", [name for name in SCRIBBLES if name in {setting.name for setting in process_settings()}])
def test_the_callers_own_settings_come_back(name: str) -> None:
    SCRIBBLES[name]()
    before = state()
    with fresh_process_state(1):
        for scribble in SCRIBBLES.values():
            scribble()
    assert state() == before


def draws() -> tuple[float, float, float]:
    return float(torch.rand(())), float(np.random.rand()), random.random()


def test_a_task_draws_the_same_whatever_ran_before() -> None:
    with fresh_process_state(1):
        first = draws()
        assert draws() != first
    random.seed()
    np.random.seed()
    torch.seed()
    with fresh_process_state(2):
        assert draws() == first
        assert torch.get_num_threads() == 2


def test_a_task_cannot_be_caught_in_inference_mode() -> None:
    with torch.inference_mode(), fresh_process_state(1):
        weight = torch.ones(3, requires_grad=True)
        (2 * weight).sum().backward()
        assert weight.grad is not None


def test_environment_directory_import_path_and_warning_filters_come_back(tmp_path: Path) -> None:
    before = dict(os.environ), os.getcwd(), list(sys.path), list(warnings.filters)
    with fresh_process_state(1):
        os.environ["GATECRASH_SCRIBBLE"] = "1"
        os.environ.pop("PATH", None)
        os.chdir(tmp_path)
        sys.path.insert(0, str(tmp_path))
        warnings.simplefilter("error")
    assert (dict(os.environ), os.getcwd(), sys.path, warnings.filters) == before


def test_a_task_may_remove_the_directory_that_it_went_to(tmp_path: Path) -> None:
    before = os.getcwd()
    with fresh_process_state(1):
        (tmp_path / "gone").mkdir()
        os.chdir(tmp_path / "gone")
        os.rmdir(tmp_path / "gone")
        with fresh_process_state(1):
            pass
    assert os.getcwd() == before


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_task_draws_the_same_on_the_gpu() -> None:
    with fresh_process_state(1):
        first = torch.rand(3, device="cuda")
        torch.cuda.manual_seed_all(7)
    torch.cuda.manual_seed_all(8)
    own = torch.cuda.get_rng_state_all()
    with fresh_process_state(1):
        assert torch.equal(torch.rand(3, device="cuda"), first)
    assert all(torch.equal(mine, now) for mine, now in zip(own, torch.cuda.get_rng_state_all(), strict=True))
