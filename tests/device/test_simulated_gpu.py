"""The simulated GPU: it has values, refuses what a GPU refuses, and writes down every wait with its line."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gatecrash.testing.gpu_rules import GpuFault
from gatecrash.testing.simulated_gpu import simulated_gpu

ROWS = torch.tensor([0, 2])


def on_gpu() -> Tensor:
    return torch.arange(6.0, device="cuda").view(3, 2)


def test_tensors_have_values_and_know_where_they_are() -> None:
    with simulated_gpu() as trace:
        moved = torch.tensor([1.0, 2.0]).to("cuda")
        assert (str(moved.device), moved.is_cuda, torch.zeros_like(moved).device, moved.cpu().device.type) == (
            "cuda:0",
            True,
            moved.device,
            "cpu",
        )
        assert (moved.to("cuda") is moved, moved.to(moved.device, torch.float32) is moved) == (True, True)
        assert (moved * 2 + torch.ones(2, device="cuda")).tolist() == [3.0, 5.0]
        with torch.inference_mode():
            assert moved[1:].item() == 2.0
    assert moved.cpu().tolist() == [1.0, 2.0]
    assert trace.faults == []
    with pytest.raises((RuntimeError, AssertionError)):
        torch.zeros(1, device="cuda" if not torch.cuda.is_available() else "cuda:99")


def test_modules_move_copy_and_learn() -> None:
    with simulated_gpu():
        net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 2)).to(
            "cuda", memory_format=torch.channels_last
        )
        twin = deepcopy(net)
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, fused=True)
        net(torch.ones(3, 1, 4, 4, device="cuda")).square().sum().backward()
        optimizer.step()
        assert not net[3].weight.equal(twin[3].weight)
        assert {tensor.device.type for tensor in (*net.state_dict().values(), *twin.state_dict().values())} == {"cuda"}
        assert not {tensor.device.type for tensor in net.cpu().state_dict().values()} - {"cpu"}


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "two devices": (lambda: on_gpu() + torch.ones(3, 2), "aten::add to be on the same device"),
    "a place on the device, of a tensor on the CPU": (lambda: torch.ones(3)[ROWS.to("cuda")], "aten::index to be on the same device"),
    "a sum into the CPU": (lambda: torch.zeros(()).add_(on_gpu().sum()), "aten::add_ to be on the same device"),
    "a number joined to a tensor": (lambda: torch.cat([on_gpu()[:, 0], torch.ones(1)]), "aten::cat to be on the same device"),
    "no kernel": (lambda: torch.histogram(on_gpu(), 4), "aten::histogram has no kernel for a GPU"),
    "a product of integers": (lambda: on_gpu().long() @ on_gpu().long().T, "not implemented for torch.int64"),
    "the CPU's generator": (lambda: torch.rand(2, device="cuda", generator=torch.Generator()), "a generator on cuda"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_a_gpu_refuses_is_refused_with_the_line_that_asked(what: str) -> None:
    act, said = REFUSED[what]
    if "histogram" in said and torch.version.cuda is None:
        pytest.skip("this build of torch does not say what CUDA has")
    with simulated_gpu() as trace, pytest.raises(GpuFault, match=f"{said}.*test_simulated_gpu.py:"):
        act()
    assert len(trace.faults) == 1


ALLOWED: dict[str, Callable[[], Any]] = {
    "a number of the CPU": lambda: on_gpu() * torch.tensor(2.0),
    "a masked fill": lambda: on_gpu().masked_fill_(on_gpu() > 2, 0.0),
    "one value by a mask": lambda: on_gpu().__setitem__(on_gpu() > 2, 0.0),
    "rows on the device": lambda: on_gpu()[torch.zeros(1, dtype=torch.int64, device="cuda")],
    "where": lambda: torch.where(on_gpu() > 2, on_gpu(), 0.0),
    "a move that does not wait": lambda: ROWS.to("cuda", non_blocking=True),
}
WAITED: dict[str, tuple[Callable[[], Any], str]] = {
    "item": (lambda: on_gpu().sum().item(), "a value read in Python"),
    "if": (lambda: bool((on_gpu() > 2).any()), "a value read in Python"),
    "cpu": (lambda: on_gpu().cpu(), "a copy to the CPU"),
    "to": (lambda: ROWS.to("cuda"), "a copy to the GPU"),
    "tensor": (lambda: torch.tensor([1, 2], device="cuda"), "a copy to the GPU"),
    "a mask": (lambda: on_gpu()[on_gpu() > 2], "a selection by a mask"),
    "rows of the CPU": (lambda: on_gpu()[ROWS], "a selection by rows that are on the CPU"),
    "nonzero": (lambda: torch.nonzero(on_gpu()), "nonzero, whose result"),
    "bincount": (lambda: torch.bincount(on_gpu().long()[:, 0]), "bincount, whose result"),
    "equal": (lambda: torch.equal(on_gpu(), on_gpu()), "equal, whose result"),
}


@pytest.mark.parametrize("what", [*ALLOWED, *WAITED])
def test_a_wait_is_written_down_with_its_line(what: str) -> None:
    act, said = WAITED.get(what) or (ALLOWED[what], None)
    with simulated_gpu() as trace:
        act()
    assert [wait.reason.startswith(str(said)) for wait in trace.waits] == ([True] if said else [])
    assert all(str(wait.line).startswith("test_simulated_gpu.py:") for wait in trace.waits)


@pytest.mark.parametrize(("every", "steps", "found"), [(1, 6, 1), (1, 4, 0), (5, 40, 0)])
def test_a_wait_of_every_step_is_told_from_one_of_every_epoch(every: int, steps: int, found: int) -> None:
    with simulated_gpu() as trace:
        weight = torch.ones(2, device="cuda", requires_grad=True)
        for step in range(steps):
            weight.square().sum().backward()  # type: ignore[no-untyped-call]
            if step % every == 0:
                float(weight.detach().sum())
    assert (trace.backwards, len(trace.in_every_step())) == (steps, found)
