"""How to carry a grid out."""

from __future__ import annotations

from typing import Literal

from gatecrash.contracts.config import Options

Rerun = Literal["cells", "all"]
"""What to compute although it is in the store: the selected cells, or their victims too."""


class RunOptions(Options):
    """How to carry a grid out; none of it is part of a key."""

    device: str | None = None
    """`cpu`, `cuda`, `cuda:1`; by default CUDA where there is one."""
    threads: int = 1
    """CPU threads per task: `--cpus-per-task`."""
    gpus_per_task: float | None = None
    """Share of a GPU that a task gets under Ray; by default a whole one where there are GPUs."""
    workers: int | None = None
    """Tasks at a time under Ray, at most; by default as many as fit."""
    address: str | None = None
    """Ray cluster to join: `auto` or `HOST:PORT`; by default Ray is started on this machine."""
    victim_time_limit: float | None = None
    """Seconds after which a victim that is still training fails, under Ray."""
    cell_time_limit: float | None = None
    """Seconds after which a defense, or its evaluation, fails, under Ray."""
    isolate: bool = False
    """A process of its own for every task under Ray, not only for those that run the code of `--plugins` files."""
    rerun: Rerun | None = None
