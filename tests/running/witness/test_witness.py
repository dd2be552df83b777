"""A classifier is asked again in a process that knows nothing of it but its stored form."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from gatecrash import ContractError
from gatecrash.evaluation.independence import StoredForm
from gatecrash.host.plugin_file import PluginFile
from gatecrash.running.witness.asking import RemoteWitness
from gatecrash.running.witness.process import WitnessProcess
from support.predicting import predict
from support.shipped_models import built_network
from support.written_answers import photos

BENT = """
import os
import torch
from gatecrash import *

SEEN = []

class Bent(Classifier):
    num_classes = 3

    def __init__(self, how):
        super().__init__()
        self.how = how
        self.register_buffer("bias", torch.zeros(3))

    def config(self):
        return {"how": self.how}

    def forward(self, images):
        SEEN.append(len(images))
        if self.how == "raise":
            raise ValueError("not\\ntoday")
        if self.how == "die":
            os._exit(3)
        if self.how == "count":
            return torch.full((len(images), 3), float(len(SEEN)))
        return images.flatten(1).float()[:, :3] + self.bias
"""


@pytest.fixture(scope="module")
def process() -> Iterator[WitnessProcess]:
    process = WitnessProcess()
    yield process
    process.close()


@pytest.fixture(scope="module")
def bent(tmp_path_factory: pytest.TempPathFactory) -> PluginFile:
    return PluginFile(Path("bent.py"), BENT.encode())


def spec(file: PluginFile, how: str) -> dict[str, object]:
    return {"class": f"gatecrash_file_plugins_{file.content[:12]}_bent:Bent", "config": {"how": how}}


def test_the_copy_answers_for_the_stored_tensors(process: WitnessProcess, bent: PluginFile) -> None:
    witness, images = RemoteWitness(process.ask, [bent], threads=1), photos(5).images
    bias = torch.tensor([1.0, 2.0, 3.0])
    assert torch.equal(witness(StoredForm(spec(bent, ""), {"bias": bias}), images), images.flatten(1)[:, :3] + bias)


def test_images_come_alone_and_every_question_meets_a_new_process(process: WitnessProcess, bent: PluginFile) -> None:
    witness, stored = RemoteWitness(process.ask, [bent], threads=1), StoredForm(spec(bent, "count"), {"bias": torch.zeros(3)})
    for _ in range(2):
        assert witness(stored, photos(3).images)[:, 0].tolist() == [1.0, 2.0, 3.0]


def test_what_goes_wrong_there_is_said_in_one_line(process: WitnessProcess, bent: PluginFile) -> None:
    witness, images = RemoteWitness(process.ask, [bent], threads=1), photos(2).images
    with pytest.raises(ContractError, match=r"raised where a copy was asked in a new process: .*not today"):
        witness(StoredForm(spec(bent, "raise"), {"bias": torch.zeros(3)}), images)
    with pytest.raises(ContractError, match=r"no plugin .* is loaded"):
        RemoteWitness(process.ask, [], threads=1)(StoredForm(spec(bent, ""), {"bias": torch.zeros(3)}), images)
    with pytest.raises(RuntimeError, match="no answer from the process that was asked"):
        witness(StoredForm(spec(bent, "die"), {"bias": torch.zeros(3)}), images)
    assert len(witness(StoredForm(spec(bent, ""), {"bias": torch.zeros(3)}), images)) == 2


def test_a_process_that_was_killed_is_started_again(bent: PluginFile) -> None:
    process = WitnessProcess()
    try:
        process._process.kill()
        process._process.wait()
        stored = StoredForm(spec(bent, ""), {"bias": torch.zeros(3)})
        assert len(RemoteWitness(process.ask, [bent], threads=1)(stored, photos(2).images)) == 2
    finally:
        process.close()


def test_a_process_whose_folder_was_cleaned_away_is_started_again(bent: PluginFile) -> None:
    process = WitnessProcess()
    try:
        Path(process._address).unlink()
        stored = StoredForm(spec(bent, ""), {"bias": torch.zeros(3)})
        assert len(RemoteWitness(process.ask, [bent], threads=1)(stored, photos(2).images)) == 2
    finally:
        process.close()


def test_a_deep_temporary_folder_is_no_hindrance(bent: PluginFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / ("x" * 90)  # too deep for a socket
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    process = WitnessProcess()
    try:
        stored = StoredForm(spec(bent, ""), {"bias": torch.zeros(3)})
        assert len(RemoteWitness(process.ask, [bent], threads=1)(stored, photos(2).images)) == 2
    finally:
        process.close()


def test_it_ends_with_its_owner() -> None:
    program = """
        import os, signal
        from gatecrash.running.witness.process import WitnessProcess
        print(WitnessProcess()._process.pid, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    """
    owner = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, check=False)
    pid = int(owner.stdout)
    deadline = time.monotonic() + 60
    while _alive(pid) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not _alive(pid)


def _alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_shipped_network_answers_as_here(process: WitnessProcess) -> None:
    here = built_network("small-cnn")
    images = torch.randint(0, 256, (6, 3, 32, 32), dtype=torch.uint8)
    there = RemoteWitness(process.ask, [], threads=1)(StoredForm.of(here), images)
    torch.testing.assert_close(there, predict(here, images, device="cpu"), rtol=1e-4, atol=1e-5)
    assert os.getpid() != process._process.pid
