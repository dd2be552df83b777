"""What the Ray executor is made of and can be checked without Ray: sizes, parcels, output, versions."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from gatecrash.errors import UserError
from gatecrash.process.mapped import copied, mapped_file
from gatecrash.running.executors import output, plugin_files
from gatecrash.running.executors.cluster import Machine, ResourceRequest, Versions, cuda_index, disagreement, slots
from gatecrash.running.executors.shipping import Parcel, SharedArtifacts, pack, unpack
from gatecrash.running.tasks.protocol import Artifact, Failure, Task

LAPTOP = [Machine("laptop", "a", cpus=2, gpus=0)]
WORKSTATION = [Machine("workstation", "a", cpus=16, gpus=1)]
SERVER = [Machine("server", "a", cpus=64, gpus=8)]
CLUSTER = [Machine("head", "a", cpus=4, gpus=0), Machine("big", "b", cpus=64, gpus=8), Machine("small", "c", cpus=3, gpus=4)]


@pytest.mark.parametrize(("nodes", "tasks"), [(LAPTOP, 2), (WORKSTATION, 1), (SERVER, 8), (CLUSTER, 11)])
def test_by_default_every_core_or_else_every_gpu_gets_a_task(nodes: list[Machine], tasks: int) -> None:
    assert slots(nodes, ResourceRequest().resolve(nodes)) == tasks


@pytest.mark.parametrize(
    ("gpus", "cpus", "tasks"),
    [
        (0.25, 1, 16),  # the server's 8 GPUs would take 32, its 16 cores take 16
        (0.3, 1, 16),
        (0.4, 1, 16),  # two to a GPU, whatever 8 / 0.4 is
        (1.0, 4, 4),
        (0.0, 1, 16),
    ],
)
def test_a_share_of_a_gpu_packs_whole_tasks_onto_each(gpus: float, cpus: int, tasks: int) -> None:
    assert slots([Machine("server", "a", cpus=16, gpus=8)], ResourceRequest(cpus=cpus, gpus=gpus)) == tasks


@pytest.mark.parametrize(
    ("nodes", "request_", "message"),
    [
        (LAPTOP, ResourceRequest(cpus=4), "--cpus-per-task 4: the largest machine has 2 CPUs"),
        (LAPTOP, ResourceRequest(gpus=0.5), "--gpus-per-task 0.5: there is no GPU"),
        (LAPTOP, ResourceRequest(workers=3), "--workers 3: only 2 tasks"),
        (CLUSTER, ResourceRequest(gpus=1, cpus=100), "--cpus-per-task 100: the largest machine has 64 CPUs"),
    ],
)
def test_what_can_never_be_satisfied_is_refused(nodes: list[Machine], request_: ResourceRequest, message: str) -> None:
    with pytest.raises(UserError, match=message):
        request_.resolve(nodes)


def test_the_assigned_gpu_is_named_as_torch_numbers_it() -> None:
    assert cuda_index("1", None) == 1
    assert cuda_index("3", "2,3") == 1
    assert cuda_index("GPU-aa", "GPU-bb,GPU-aa") == 1


def test_nodes_must_run_the_same_software() -> None:
    mine = Versions.here()
    assert disagreement(mine, Versions.here()) is None
    assert disagreement(mine, replace(mine, ray="1.0")) == f"has ray 1.0, this machine {mine.ray}"
    assert "other source files" in (disagreement(mine, replace(mine, files="other")) or "")


@dataclass(frozen=True)
class Luggage:
    tensors: dict[str, torch.Tensor]
    note: str


@pytest.mark.parametrize("dtype", [torch.uint8, torch.bool, torch.int64, torch.float32, torch.bfloat16, torch.float64])
def test_a_parcel_gives_back_equal_tensors_of_any_type(dtype: torch.dtype) -> None:
    tensors = {
        "matrix": torch.arange(6).reshape(2, 3).to(dtype),
        "scalar": torch.tensor(1).to(dtype),
        "empty": torch.empty(0, 4, dtype=dtype),
        "slice": torch.arange(12).reshape(3, 4).to(dtype)[:, 1],
    }
    there = unpack(pack(Luggage(tensors, "fragile")))
    assert there.note == "fragile"
    for name, tensor in tensors.items():
        assert there.tensors[name].dtype == dtype
        assert there.tensors[name].shape == tensor.shape
        assert torch.equal(there.tensors[name], tensor)


def test_a_parcel_carries_large_tensors_beside_the_pickle_and_parameters_as_plain_tensors() -> None:
    parcel = pack({"weight": torch.nn.Parameter(torch.ones(1000))})
    assert len(parcel.head) < 1000
    assert parcel.size >= 4000
    assert unpack(parcel)["weight"].requires_grad is False


def test_a_parcel_is_opened_into_memory_of_its_own_and_lets_go_of_the_shared() -> None:
    sent = torch.ones(1000)
    parcel = pack({"weight": sent})
    assert np.shares_memory(parcel.buffers[0], sent.numpy())  # as the object store's memory is shared by all workers
    unpack(parcel)["weight"].zero_()
    assert (sent.sum(), parcel.buffers) == (1000, [])


class TestMapped:
    """What lies in a file is not moved within a machine."""

    @pytest.fixture
    def original(self, tmp_path: Path) -> torch.Tensor:
        (tmp_path / "images").write_bytes(bytes(range(24)))
        return mapped_file(tmp_path / "images", 0, (2, 3, 2, 2))

    def test_a_parcel_says_where_it_lies(self, original: torch.Tensor) -> None:
        parcel = pack({"images": original, "labels": torch.arange(2)}, by_file=True)
        assert parcel.size < 1000
        assert [buffer.nbytes for buffer in parcel.buffers] == [16]
        assert unpack(parcel)["images"].equal(original)

    def test_elsewhere_it_is_carried(self, original: torch.Tensor) -> None:
        parcel = pack(original)
        assert [buffer.nbytes for buffer in parcel.buffers] == [24]
        assert unpack(parcel).equal(original)

    def test_a_changed_copy_is_carried(self, original: torch.Tensor) -> None:
        changed = copied(original)
        changed[0] = 7
        assert unpack(pack(changed, by_file=True)).equal(changed)

    def test_once_the_file_is_gone_it_is_carried(self, original: torch.Tensor, tmp_path: Path) -> None:
        shared = SharedArtifacts(lambda parcel: parcel, 10_000, by_file=True)
        assert shared.put(Artifact("train", original)) is shared.put(Artifact("train", original))
        (tmp_path / "images").unlink()
        assert unpack(shared.put(Artifact("train", original))).equal(original)


def test_output_is_taken_from_python_native_code_and_children(tmp_path: Path) -> None:
    script = f"""
import os, subprocess
from pathlib import Path
from gatecrash.running.executors.output import redirected
with redirected(Path({str(tmp_path / "log")!r})):
    print("python")
    os.write(2, b"native\\n")
    subprocess.run(["echo", "child"])
print("outside")
"""
    outside = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, env=dict(os.environ))
    assert outside.stdout == "outside\n"
    assert sorted((tmp_path / "log").read_text().split()) == ["child", "native", "python"]


def test_long_output_keeps_its_beginning_and_end(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"first" + b"." * 5_000_000 + b"last")
    text = output.bounded(path)
    assert text.startswith("first")
    assert text.endswith("last")
    assert f"{5_000_009 - 2**20:,} bytes left out" in text
    assert len(text) < 2**20 + 100


def test_a_log_that_cannot_be_written_stops_nothing_and_makes_no_store(tmp_path: Path) -> None:
    task = Task("defend:abc", "defend", "badnets × anp (seed 0)", {})
    folder = tmp_path / "removed" / "logs"
    assert output.save_log(folder, task, "attempt 1", "printed", Failure("error", "it broke")) is None
    assert not folder.parent.exists()


def test_a_quiet_task_leaves_no_log_and_removes_an_older_one(tmp_path: Path) -> None:
    task = Task("defend:abc", "defend", "badnets × anp (seed 0)", {})
    path = output.save_log(tmp_path, task, "attempt 1", "", Failure("error", "it broke", "Traceback ..."))
    assert path == str(tmp_path / "defend-abc.log")
    assert "Traceback ..." in (tmp_path / "defend-abc.log").read_text()
    assert output.save_log(tmp_path, task, "attempt 1", "", None) is None
    assert not list(tmp_path.iterdir())


def test_plugin_files_import_as_the_same_modules_wherever_their_content_arrives(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text("from gatecrash import hookimpl\n\n@hookimpl\ndef register_attacks(register):\n    pass\n")
    from gatecrash.host.loading import load_plugins
    from gatecrash.host.plugin_file import read_plugin_file

    before = set(sys.modules)
    load_plugins([path])
    (here,) = {name for name in set(sys.modules) - before if name.endswith("_mine")}
    module = sys.modules.pop(here)
    host = plugin_files.host_with((read_plugin_file(path),))
    assert not host.problems
    assert sys.modules[here] is not module
    assert Path(str(sys.modules[here].__file__)).parent != tmp_path


def test_an_artifact_is_put_into_the_object_store_once_and_let_go_beyond_the_budget() -> None:
    puts: list[int] = []

    def put(parcel: Parcel) -> int:
        puts.append(parcel.size)
        return len(puts)

    def data(size: int = 4000) -> torch.Tensor:
        return torch.zeros(size, dtype=torch.uint8)

    shared = SharedArtifacts(put, budget=10_000)
    assert shared.put(Artifact("data", data())) == 1
    assert shared.put(Artifact("data", None)) == 1
    assert shared.put(Artifact("victim 1", data())) == 2
    assert shared.put(Artifact("data", None)) == 1
    assert shared.put(Artifact("victim 2", data())) == 3  # victim 1 is let go: the data set was used since
    assert shared.put(Artifact("data", None)) == 1
    assert shared.put(Artifact("victim 1", data())) == 4
    assert shared.put(Artifact("huge", data(50_000))) == 5  # larger than the budget: it is kept alone
    assert shared.put(Artifact("huge", None)) == 5
    assert shared.put(Artifact("victim 1", data())) == 6


def after(statement: str, shown: str, **environment: str) -> str:
    """What `shown` is in a fresh process after `statement`."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    script = f"import os, sys; {statement}; print({shown})"
    return subprocess.run(
        [sys.executable, "-c", script], env={**clean, **environment}, capture_output=True, text=True, check=True
    ).stdout.strip()


@pytest.mark.parametrize("part", ["driver", "session"])
def test_what_ray_reads_when_it_is_imported_is_set_by_then(part: str) -> None:
    statement = f"import gatecrash.running.executors.ray_{part}; from ray._private import ray_constants"
    shown = "ray_constants.RAY_DEDUP_LOGS_SKIP_REGEX, os.environ.get('RAY_AUTH_MODE')"
    assert after(statement, shown, RAY_AUTH_TOKEN="a" * 64) == ". token"


def test_a_worker_does_not_import_the_driver() -> None:
    shown = "sorted(name for name in sys.modules if name.startswith('gatecrash.running.executors.ray_'))"
    assert after("import gatecrash.running.executors.ray_worker", shown) == "['gatecrash.running.executors.ray_worker']"
