"""A Ray cluster of several nodes on this machine, as it stands before a run joins it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ENVIRONMENT = {**os.environ, "RAY_AUTH_MODE": "disabled"}
"""One who runs these tests may have a token of Ray's at home, which would be taken for the cluster's."""

_CLUSTER = """
import os, sys
from ray.cluster_utils import Cluster

cluster, nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False}), []
print("READY", cluster.address, flush=True)
for line in sys.stdin:
    if line.strip() == "add":
        nodes.append(cluster.add_node(num_cpus=1))
        print("READY", nodes[-1].node_id, flush=True)
    else:
        cluster.remove_node(nodes.pop(), allow_graceful=False)
        print("READY", "removed", flush=True)
cluster.shutdown()
os._exit(0)
"""


class Nodes:
    """A cluster in a process of its own: Ray ends a process that made a cluster a minute after that cluster's end.

    The head and every node have one CPU; `environment` is for the driver that joins.
    """

    def __init__(self, packages: Path) -> None:
        """`packages` is a folder on every node's path."""
        self.environment = {**ENVIRONMENT, "PYTHONPATH": os.pathsep.join([str(packages), *filter(None, [os.environ.get("PYTHONPATH")])])}
        # as docs/clusters.md says of clusters started by hand: workers that wait for their turn are kept
        environment = {**self.environment, "RAY_idle_worker_killing_time_threshold_ms": "3600000"}
        self._process = subprocess.Popen(
            [sys.executable, "-c", _CLUSTER], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.address = self._answer()

    def add(self) -> str:
        """The new node's id."""
        return self._ask("add")

    def kill_last(self) -> None:
        self._ask("kill")

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(60)
        finally:
            self._process.kill()

    def _ask(self, command: str) -> str:
        assert self._process.stdin is not None
        print(command, file=self._process.stdin, flush=True)
        return self._answer()

    def _answer(self) -> str:
        assert self._process.stdout is not None
        return next(line.split()[1] for line in self._process.stdout if line.startswith("READY "))


def install_plugin(packages: Path, module: str, text: str) -> None:
    """Leave a plugin in the folder `packages` as pip would."""
    name, info = module.replace("_", "-"), packages / f"{module}-1.0.dist-info"
    (packages / f"{module}.py").write_text(text)
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[gatecrash]\n{name} = {module}\n")
