"""Whether modules and plugins work on a GPU: on a simulated one, and on that of the machine where there is one."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TypeVar
from unittest.mock import patch

import torch
from torch import Tensor, nn

from gatecrash.contracts.portable import Portable
from gatecrash.engine import watch
from gatecrash.errors import NotApplicable, UserError, one_line
from gatecrash.testing.check import CheckFailed, require
from gatecrash.testing.gpu_rules import GpuFault
from gatecrash.testing.gpu_trace import Trace
from gatecrash.testing.setting import setting
from gatecrash.testing.simulated_gpu import simulated_gpu
from gatecrash.testing.trial import Trial

Run = TypeVar("Run")

DEVICES = ("cpu", *(("cuda",) if torch.cuda.is_available() else ()))
"""The devices of this machine, each tried by name."""

_ENGINE = Path(watch.__file__).parent

_MEND = (
    "register every tensor of the module with register_buffer() or as an nn.Parameter, "
    "and create tensors in forward() with device=images.device"
)


def require_movable(module: Portable, images: Tensor, what: str) -> None:
    """Raise CheckFailed for a module that keeps tensors back, mixes devices in `forward`, or does there what only the CPU can.

    `images` is uint8 [N, C, H, W], on the CPU.
    """
    for name, part in module.named_modules():
        kept = [attribute for attribute, value in vars(part).items() if isinstance(value, Tensor)]
        if kept:
            place = f"{name}.{kept[0]}" if name else kept[0]
            raise CheckFailed(f"{what} to move as a whole to another device", f"a tensor in a plain attribute, {place}", _MEND)
    moved: nn.Module = module.duplicate()
    with simulated_gpu(), torch.no_grad():
        try:
            moved.to("cuda")(images.to("cuda"))
        except GpuFault as fault:
            raise CheckFailed(f"{what} to work on the device of its images", str(fault), _MEND) from fault


def on_a_simulated_gpu(trial: Trial[Run]) -> tuple[Run, Trace]:
    """The plugin's run there, and what it waited for; raises what went wrong in it, or in the first run on the CPU."""
    trial.work  # noqa: B018 - what fails there is not tried in other ways
    return trial.once("on a simulated GPU", lambda: _traced(trial))


def _traced(trial: Trial[Run]) -> tuple[Run, Trace]:
    shared = setting("gpu")
    trial.prepare(shared)
    with simulated_gpu() as trace, patch.object(watch, "REPORT_SECONDS", math.inf):
        try:
            run = trial.make(trial.gpu_case, shared)
        except CheckFailed as failure:
            if isinstance(failure.__cause__, UserError):  # its options are meant for more images, or more classes
                raise NotApplicable(one_line(failure.__cause__)) from failure
            raise
    for fault in trace.faults[:1]:
        raise CheckFailed("nothing that a GPU refuses", str(fault), "create tensors on the device that the plugin is given")
    return run, trace


def require_no_waits(trial: Trial[Run]) -> str:
    """Raise CheckFailed where a line of code waits for the device in every training step."""
    trace = on_a_simulated_gpu(trial)[1]
    for wait in trace.in_every_step():
        if Path(wait.line.file).is_relative_to(_ENGINE):  # which reads a loss once an epoch, of whatever length
            continue
        mend = (
            "keep values on the device and read them once an epoch; draw for many steps at once, or move what was drawn with "
            "non_blocking=True; where the method needs it, say so in deviations"
        )
        require(False, "no training step to wait for the device", f"{wait.reason} in every step, at {wait.line}", mend)
    return f"{trace.backwards} backward passes on a simulated GPU"
