"""A training that is killed goes on from its last checkpoint, to the same last digit."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from gatecrash.contracts.patched import Patched
from gatecrash.contracts.randomness import Streams
from gatecrash.engine import checkpoint, watch
from gatecrash.engine.checkpoint import Checkpoint, identity, remove_checkpoints
from gatecrash.engine.training import Execution, History, train
from support.grids import SMALL_GRID
from support.small_training import network, recipe, toy_set, weights


class Killed(BaseException):
    pass


@pytest.fixture(autouse=True)
def _after_every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "INTERVAL", 0.0)
    monkeypatch.setattr("gatecrash.engine.training.INTERVAL", 0.0)
    monkeypatch.setattr(watch, "REPORT_SECONDS", 0.0)


def trained(file: Path | None, options: Any, *, kill_after: int | None = None, images: Tensor | None = None) -> tuple[History, Tensor]:
    """Train a network with dropout; `kill_after` that many steps, before the next checkpoint is written."""
    net, seen = network(dropout=0.3), [0]

    def report(_progress: object) -> None:
        seen[0] += 1
        if seen[0] == kill_after:
            raise Killed

    known, labels = toy_set()
    data = known if images is None else images
    history = train(net, data, labels, options, streams=Streams(0), flip=True, device="cpu", execution=Execution(report, checkpoint=file))
    return history, weights(net)


RECIPES = [
    {"optimizer": "sgd", "crop": 1, "flip": True},
    {"optimizer": "adamw", "lr": 0.01},
    {"lookahead": True, "schedule": "one-cycle", "nesterov": True},
]


@pytest.mark.parametrize("options", RECIPES)
@pytest.mark.parametrize("step", [2, 5, 9, 12])
def test_a_killed_training_ends_as_one_that_was_not(tmp_path: Path, options: dict[str, Any], step: int) -> None:
    """Batches of 16 out of 64 images: kills within an epoch, at its end, and after the last step."""
    wanted = recipe(epochs=3, batch_size=16, **options)
    expected, expected_weights = trained(None, wanted)
    file = tmp_path / "0.pt"
    with pytest.raises(Killed):
        trained(file, wanted, kill_after=step)
    found, found_weights = trained(file, wanted)
    assert torch.equal(found_weights, expected_weights)
    assert (found.losses, found.images) == (expected.losses, expected.images)


def test_a_training_that_was_finished_is_not_done_again(tmp_path: Path) -> None:
    """A task that trains several times repeats the finished ones from their last checkpoint."""
    _, first = trained(tmp_path / "0.pt", recipe(epochs=3))
    _, again = trained(tmp_path / "0.pt", recipe(epochs=3), kill_after=1)  # would be killed at its first step
    assert torch.equal(first, again)


def test_a_checkpoint_of_another_training_or_a_damaged_one_is_not_used(tmp_path: Path) -> None:
    file, plain = tmp_path / "0.pt", recipe(epochs=2, batch_size=16)
    images, _ = toy_set()
    other = images.clone()
    other[0, 0, 0, 0] ^= 1
    for options, data in ((recipe(epochs=2, batch_size=16, lr=0.05), images), (plain, other)):
        expected = trained(None, options, images=data)[1]
        with pytest.raises(Killed):
            trained(file, plain, kill_after=5)
        assert torch.equal(trained(file, options, images=data)[1], expected)
        file.unlink()
    expected = trained(None, plain)[1]
    with pytest.raises(Killed):
        trained(file, plain, kill_after=5)
    for content in (file.read_bytes()[:-100], b"", b"not a checkpoint"):
        file.write_bytes(content)
        assert torch.equal(trained(file, plain)[1], expected)


def test_a_disk_that_cannot_be_written_does_not_stop_the_training(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("not a folder")
    trained(tmp_path / "file" / "0.pt", recipe(epochs=1))
    assert "no checkpoint could be written" in caplog.text


def test_the_checkpoints_of_a_task_go_with_it_and_old_ones_too(tmp_path: Path) -> None:
    mine, old, recent = (tmp_path / name for name in ("mine", "old", "recent"))
    for folder in (mine, old, recent):
        trained(folder / "0.pt", recipe(epochs=1))
    os.utime(old, (0, 0))
    remove_checkpoints(mine)
    assert [folder.exists() for folder in (mine, old, recent)] == [False, False, True]


RUN = """
import json, os, sys
from gatecrash import run
from gatecrash.engine import checkpoint, training
from gatecrash.planning.grid import parse_grid

checkpoint.INTERVAL = training.INTERVAL = 0.0
write, resume, kill = checkpoint.Checkpoint.write, checkpoint.Checkpoint.resume, int(sys.argv[3])

def counted(self, epoch, step):
    global kill
    write(self, epoch, step)
    kill -= 1
    if kill == 0:
        os._exit(9)

def told(self):
    print("from", *resume(self))
    return resume(self)

checkpoint.Checkpoint.write, checkpoint.Checkpoint.resume = counted, told
summary = run(parse_grid(json.loads(sys.argv[2])), sys.argv[1])
print(json.dumps({key: result.weights for key, result in summary.results.items()}))
"""


def test_a_run_whose_process_was_killed_goes_on_within_the_victim(tmp_path: Path) -> None:
    grid = json.dumps({**SMALL_GRID, "attacks": ["none"], "defenses": ["none"]})

    def run(store: str, kill: int) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "GATECRASH_CACHE": str(tmp_path / "cache")}
        command = [sys.executable, "-c", textwrap.dedent(RUN), str(tmp_path / store), grid, str(kill)]
        return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120, check=False)

    killed, again, other = run("a", 7), run("a", 0), run("b", 0)
    assert killed.returncode == 9
    first, second = (answer.stdout.splitlines() for answer in (again, other))
    assert (first[0], second[0]) == ("from 0 7", "from 0 0")
    assert first[-1] == second[-1] != "{}"
    assert not list((tmp_path / "cache" / "checkpoints").iterdir())


def test_nothing_is_written_before_its_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "INTERVAL", 100.0)
    kept = Checkpoint(tmp_path / "0.pt", lambda: "same", {})
    assert not kept.is_due()
    kept.write(1, 2)
    assert kept.resume() == (1, 2)


def test_a_patch_over_a_set_has_the_identity_of_the_changed_set() -> None:
    images, labels = toy_set()
    copy = images.clone()
    copy[5] = 0
    patched = Patched.of(images, torch.tensor([5]), copy[5:6])
    assert identity([], {}, patched, labels)() == identity([], {}, copy, labels)() != identity([], {}, images, labels)()
