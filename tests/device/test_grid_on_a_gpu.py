"""A whole grid on a simulated GPU: poisoning, training, defenses and evaluation, as the tasks of a run call them."""

from __future__ import annotations

from pathlib import Path

from gatecrash.running.options import RunOptions
from gatecrash.running.run import run
from gatecrash.testing.simulated_gpu import simulated_gpu
from support.small_runs import small


def test_a_grid_runs_on_a_gpu(tmp_path: Path) -> None:
    grid = small(
        attacks=[{"badnets": {"poison_rate": 0.1}}],
        defenses=["none", {"fine-pruning": {"epochs": 1, "threshold": 0.8}}, "strip"],
        recipe={"preset": "tiny", "epochs": 1, "batch_size": 16, "lr": 0.03},
    )
    with simulated_gpu() as trace:
        summary = run(grid, tmp_path, "serial", options=RunOptions(device="cuda"), only={"attack": ["badnets"]})
    assert ([str(fault) for fault in trace.faults], [result.error for result in summary.results.values()]) == ([], [None] * 3)
    assert {result.provenance.device for result in summary.results.values()} == {"simulated GPU"}
