"""What processor this is, as far as numbers and speed depend on it."""

from __future__ import annotations

import platform
from functools import cache
from pathlib import Path

import torch

from gatecrash.engine.device import supports_bfloat16


@cache
def cpu_model() -> str:
    """The processor's name."""
    return _cpu_info().get("model name") or platform.processor() or platform.machine()


@cache
def cpu_kind() -> str:
    """What the last digits of a training depend on and a name such as `AMD EPYC` does not tell: the generation, the instructions."""
    info = _cpu_info()
    generation = [f"{name} {info[key]}" for name, key in (("family", "cpu family"), ("model", "model")) if key in info]
    instructions = [torch.backends.cpu.get_cpu_capability()] + ["bfloat16"] * supports_bfloat16("cpu")
    return ", ".join([*generation, *instructions])


@cache
def _cpu_info() -> dict[str, str]:
    """What Linux says of the first processor."""
    try:
        first = Path("/proc/cpuinfo").read_text(encoding="utf-8").split("\n\n")[0]
    except OSError:
        return {}
    pairs = (line.partition(":") for line in first.splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs}
