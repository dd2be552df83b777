"""How to carry a grid out."""

from __future__ import annotations

import re
from typing import Literal

from gatecrash.contracts.config import Options
from gatecrash.errors import UserError

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
    keep_models: bool = False
    """Keep the classifier of each defense beside its result; suspects are kept in any case."""
    rerun: Rerun | None = None
    precision: Literal["bfloat16", "float32"] | None = None
    """What `precision: auto` of a recipe shall mean; by default what each machine has measured. `verify` repeats what a result says."""

    def check_serial(self) -> None:
        """Raise UserError for options that have no effect where all tasks run in this process."""
        for option in ("gpus_per_task", "workers", "address", "victim_time_limit", "cell_time_limit"):
            if getattr(self, option) is not None:
                raise UserError(f"--{option.replace('_', '-')} needs --executor ray")
        if self.isolate:
            raise UserError("--isolate needs --executor ray: serial runs all tasks in one process")

    def check_ray(self) -> None:
        """Raise UserError for options that Ray cannot follow, or that contradict each other."""
        gpus = self.gpus_per_task
        if self.address is not None and not re.fullmatch(r"auto|\S+:\d{1,5}", self.address):
            raise UserError(f"--address {self.address!r}: write auto or HOST:PORT, as `ray start --head` prints it")
        if gpus is not None and not 0 <= gpus <= 1:
            raise UserError(f"--gpus-per-task {gpus:g}: a task uses one GPU at most; give a share from 0 to 1")
        if self.device not in {None, "cpu", "cuda"}:
            raise UserError(f"--device {self.device}: Ray assigns the GPUs; use cpu or cuda, or --executor serial")
        if (self.device == "cuda" and gpus == 0) or (self.device == "cpu" and gpus):
            raise UserError(f"--device {self.device} and --gpus-per-task {gpus:g} contradict each other; leave one out")
        for option in ("victim_time_limit", "cell_time_limit"):
            limit = getattr(self, option)
            if limit is not None and not 0 < limit < float("inf"):
                raise UserError(f"--{option.replace('_', '-')} {limit:g}: give a positive number of seconds")
