"""What the machine gives and takes: memory that runs out, GPUs that are assigned."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from gatecrash.records.store import Store

pytestmark = [pytest.mark.ray, pytest.mark.timeout(300)]

PLUGIN = """
import time
import torch
from gatecrash import *

class Greedy(Defense):
    name = "greedy"
    summary = "Takes more and more memory, up to 8 GiB."
    needs = frozenset()
    gives = frozenset()

    def defend(self, evidence):
        taken = []
        for _ in range(16):
            taken.append(torch.ones(2**26, dtype=torch.int64))
            time.sleep(0.3)
        return Outcome()

@hookimpl
def register_defenses(register):
    register(Greedy)
"""
GIB = 2**20
"""KiB, as the kernel counts."""


def memory() -> dict[str, int]:
    """KiB by name; empty where the kernel does not tell."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return {}
    return {line.split(":")[0]: int(line.split()[1]) for line in lines}


@pytest.mark.skipif(memory().get("MemAvailable", 0) < 12 * GIB, reason="takes 4 GiB and must not bring others down")
def test_a_plugin_that_takes_all_memory_is_killed_twice_and_then_left(
    small_grid: Callable[..., Path], write: Callable[[str, str], Path], tmp_path: Path
) -> None:
    known = memory()
    enough = (known["MemTotal"] - known["MemAvailable"] + 4 * GIB) / known["MemTotal"]
    command = [sys.executable, "-m", "gatecrash", "run", str(small_grid(attacks=["none"], defenses=["none", "greedy"]))]
    options = ["--plugins", str(write("greedy.py", PLUGIN)), "--store", str(tmp_path / "store"), "--executor", "ray", "--workers", "1"]
    environment = {**os.environ, "RAY_memory_usage_threshold": f"{enough:.4f}"}
    done = subprocess.run([*command, *options], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    results = {result.defense_name: result for result in Store(tmp_path / "store").results()}
    assert results["none"].status == "ok"
    assert results["greedy"].error == "its worker was killed because the node ran out of memory; use fewer --workers (in 2 attempts)"
    assert done.stdout == ""


@pytest.mark.skipif(torch.cuda.is_available(), reason="pretends that there are GPUs")
def test_tasks_get_the_gpu_that_ray_assigned(small_grid: Callable[..., Path], tmp_path: Path) -> None:
    """Two tasks share each of two GPUs, of those that are visible. Without a GPU each task fails on its device, whose name it tells."""
    script = f"""
import json, ray
from gatecrash.running.options import RunOptions
from gatecrash.running.run import ray as on_ray, run
ray.init(address="local", num_cpus=3, num_gpus=2, include_dashboard=False, log_to_driver=False, logging_level=40)
summary = run({str(small_grid(attacks=["none"], defenses=["none"], seeds=[0, 1, 2]))!r}, {str(tmp_path / "store")!r}, on_ray,
              options=RunOptions(gpus_per_task=0.5))
print(json.dumps(summary.failures))
"""
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "7,3"}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    failures = json.loads(done.stdout.splitlines()[-1])
    assert sorted(line.split("device '")[1].split("'")[0] for line in failures) == ["cuda:0", "cuda:0", "cuda:1"]
