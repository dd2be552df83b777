"""A plugin that misbehaves spoils its own cells only: a grid beside vandals gives the other cells' numbers to the last digit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from gatecrash.host.host import Host
from gatecrash.planning.grid import parse_grid
from gatecrash.records.store import Store
from gatecrash.records.summary import Summary
from gatecrash.running.display import Display
from gatecrash.running.options import RunOptions
from gatecrash.running.run import ray, run, serial
from gatecrash.running.tasks.protocol import Finished, TaskReport

VANDALS = '''
import gc, os, random, sys, warnings
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field

from gatecrash import *

KEPT, LEAK = [], []


def scribble():
    """Leave the whole process in disorder."""
    random.seed(1)
    np.random.seed(2)
    torch.manual_seed(3)
    torch.set_default_dtype(torch.float64)
    torch.set_default_device("meta")
    torch.set_grad_enabled(False)
    torch.set_num_threads(3)
    torch.set_float32_matmul_precision("medium")
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.set_autocast_enabled("cpu", True)
    torch.nn.modules.module.register_module_forward_hook(lambda module, given, output: output + 1)
    torch.backends.cudnn.benchmark = True
    np.seterr(all="raise")
    warnings.simplefilter("error")
    os.environ.update(GATECRASH_STORE="/nowhere", PYTHONHASHSEED="5")
    os.chdir("/")


def patch():
    """Change what other code calls."""
    loss, relu = F.cross_entropy, torch.Tensor.relu
    F.cross_entropy = lambda *args, **options: 0.9 * loss(*args, **options)
    F.relu = lambda images, *args, **options: relu(images) + 0.1
    torch.randperm = lambda n, **options: torch.arange(n)
    torch.Tensor.argmax = lambda tensor, *args, **options: torch.zeros(len(tensor), dtype=torch.int64)


def overwrite_kept():
    """Write into everything that was handed over before."""
    with torch.no_grad():
        for kept in KEPT:
            tensors = kept.state_dict().values() if isinstance(kept, torch.nn.Module) else [kept]
            for tensor in tensors:
                tensor.zero_()


def spoil(store):
    """Overwrite what lies in the store, once, and leave things there that nobody asked for."""
    if (Path(store) / "victims" / "zz").exists() or not list(Path(store).glob("results/*/*.json")):
        return
    for pattern in ("victims/*/*/weights.safetensors", "victims/*/*/poison.safetensors", "results/*/*.json"):
        for file in Path(store).glob(pattern):
            file.write_bytes(b"overwritten")
    (Path(store) / "victims" / "zz" / "junk").mkdir(parents=True, exist_ok=True)
    (Path(store) / "victims" / "zz" / "junk" / "record.json").write_text("{}")
    (Path(store) / "results" / "zz").mkdir(parents=True, exist_ok=True)
    (Path(store) / "results" / "zz" / "junk.json").write_text("[1")


class Means(Config):
    store: str = Field(description="folder to spoil")
    patches: bool = Field(False, description="also change torch's functions")


class VandalDefense(Defense):
    name = "vandal"
    summary = "Leaves nothing as it was."
    needs = frozenset(Need)
    gives = frozenset({Give.CLASSIFIER, Give.SUSPECTS})
    Config = Means

    def defend(self, evidence):
        overwrite_kept()
        network = evidence.network
        suspects = torch.zeros(len(evidence.training_data), dtype=torch.bool)
        figure = torch.zeros(1, 4, 4, dtype=torch.uint8)
        for data in (evidence.clean, evidence.training_data):
            data.images.zero_()
            data.labels.fill_(1)
            KEPT.extend([data.images, data.labels])
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.zero_()
        KEPT.extend([network, suspects, figure, evidence.new_model()])
        LEAK.append(torch.ones(2**20))
        spoil(self.config.store)
        scribble()
        if self.config.patches:
            patch()
        return Outcome(classifier=network, suspects=suspects, figures={"none": figure})


class VandalAttack(Attack):
    name = "vandal"
    summary = "Leaves nothing as it was, and keeps what it gives."
    controls = "training"
    needs_benign = True
    Config = Means

    def poison(self, train, ctx):
        return Poisoned.untouched(train)

    def implant(self, train, ctx):
        overwrite_kept()
        images, labels = train.images.clone(), train.labels.clone()
        poisoned = Poisoned.untouched(ImageSet(images, labels, train.classes))
        network = ctx.train(train)
        with torch.no_grad():
            for parameter in ctx.benign.parameters():
                parameter.zero_()
        KEPT.extend([ctx.benign, network, images, labels])
        spoil(self.config.store)
        scribble()
        if self.config.patches:
            patch()
        return Implant(poisoned, network)


@hookimpl
def register_attacks(register):
    register(VandalAttack)


@hookimpl
def register_defenses(register):
    register(VandalDefense)


if os.environ.get("GATECRASH_ROLE"):
    scribble()
    patch()  # as soon as a worker imports this file
'''

WITNESS = '''
import random

import numpy as np
import torch

from gatecrash import *


class Witness(Defense):
    """Lets its numbers depend on all that it should not."""

    name = "witness"
    summary = "Depends on the state of its process."
    needs = frozenset({Need.MODEL, Need.CLEAN_DATA, Need.TRAINING_DATA})
    gives = frozenset({Give.CLASSIFIER, Give.SUSPECTS, Give.VERDICT})

    def defend(self, evidence):
        suspects = torch.rand(len(evidence.training_data)) < 0.5
        network = evidence.network
        with torch.no_grad():
            network.head.weight += 0.1 * torch.randn_like(network.head.weight)
        anomaly = {0: random.random(), 1: np.random.rand(), 2: float(evidence.clean.images.float().mean()),
                   3: float(evidence.training_data.images.float().mean()), 4: float(torch.get_default_dtype() == torch.float32),
                   5: float(torch.get_num_threads()), 6: float(torch.are_deterministic_algorithms_enabled())}
        return Outcome(classifier=network, suspects=suspects, verdict=Verdict(False, float(torch.rand(())), (), anomaly))


@hookimpl
def register_defenses(register):
    register(Witness)
'''

COSTS = ("seconds_victim", "seconds_defense", "peak_memory_mb")


def grid(attacks: Sequence[Any] = (), defenses: Sequence[Any] = (), seeds: Sequence[int] = (0,), name: str = "quiet") -> Any:
    """A grid of two victims and shipped defenses; the vandals come first, where they can do most harm."""
    return parse_grid(
        {
            "name": name,
            "dataset": {"digits": {"limit": 200, "limit_test": 60}},
            "model": {"small-cnn": {"width": 4}},
            "recipe": {"preset": "tiny", "epochs": 2, "batch_size": 16},
            "seeds": list(seeds),
            "attacks": ["none", *attacks, "badnets"],
            "defenses": ["none", *defenses, {"fine-pruning": {"epochs": 1}}],
        }
    )


def honest(summary: Summary) -> dict[str, Any]:
    """What was measured in the cells that no vandal has a part in."""
    return {
        key: [
            result.weights,
            {k: v for k, v in result.measures.model_dump().items() if k not in COSTS},
            [step.model_dump() for step in result.trajectory],
            result.tables,
        ]
        for key, result in sorted(summary.results.items())
        if "vandal" not in (result.attack.name, result.defense_name)
    }


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("plugins")
    paths = {"vandals": folder / "vandals.py", "witness": folder / "witness.py"}
    paths["vandals"].write_text(VANDALS)
    paths["witness"].write_text(WITNESS)
    return paths


@pytest.fixture
def _unpatched(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a plugin patches in this process is as it was after the test."""
    for holder, name in ((F, "cross_entropy"), (F, "relu"), (torch, "randperm"), (torch.Tensor, "argmax")):
        monkeypatch.setattr(holder, name, getattr(holder, name))


class TestSerial:
    def beside_vandals(self, files: dict[str, Path], folder: Path, **means: Any) -> tuple[Summary, Summary]:
        """A grid alone, and the same beside vandals."""
        alone = run(grid(defenses=["witness"], seeds=[0, 1]), folder / "alone", serial, plugins=[files["witness"]])
        vandal = {"vandal": {"store": str(folder / "beside"), **means}}
        plugins = [files["vandals"], files["witness"]]
        beside = run(grid([vandal], [vandal, "witness"], [0, 1]), folder / "beside", serial, plugins=plugins)
        assert alone.exit_code == 0, alone.failures
        return alone, beside

    def test_other_cells_keep_their_numbers(self, files: dict[str, Path], tmp_path: Path) -> None:
        alone, beside = self.beside_vandals(files, tmp_path)
        assert beside.exit_code == 0, beside.failures
        assert len(honest(alone)) == 12
        assert honest(beside) == honest(alone)

    def test_a_store_that_a_plugin_wrote_into_is_mended_with_the_same_numbers(self, files: dict[str, Path], tmp_path: Path) -> None:
        alone, beside = self.beside_vandals(files, tmp_path)
        store = Store(tmp_path / "beside")
        assert {result.key for result in store.results()} < set(beside.results)  # what is overwritten is missing, never another number
        again = run(grid(defenses=["witness"], seeds=[0, 1]), store, serial, plugins=[files["witness"]])
        assert honest(again) == honest(alone)

    @pytest.mark.usefixtures("_unpatched")
    def test_serial_trusts_plugins_not_to_patch_torch(self, files: dict[str, Path], tmp_path: Path) -> None:
        """As it is documented; and the comparison above would notice."""
        alone, beside = self.beside_vandals(files, tmp_path, patches=True)
        assert honest(beside) != honest(alone)


class Recording:
    """Ray's executor; remembers which process each task ran in."""

    def __init__(self) -> None:
        self.pids: dict[str, int] = {}

    def __call__(self, host: Host, options: RunOptions, report: TaskReport, logs: Path) -> Any:
        executor: Any = ray(host, options, report, logs)
        end = executor._ended

        def ended(running: Any, finished: Finished, printed: str) -> Finished:
            while running.place is None:  # its report may come after its result
                executor._listen(patience=1.0)
            self.pids[finished.id] = running.place.pid
            return end(running, finished, printed)

        executor._ended = ended
        return executor


@pytest.fixture(scope="module")
def ran(local_ray: None, files: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A quiet grid, the same beside vandals that patch torch, and the processes of the latter's tasks."""
    folder = tmp_path_factory.mktemp("ray")
    alone = run(grid(), folder / "alone", serial)
    vandal = {"vandal": {"store": str(folder / "beside"), "patches": True}}
    recording = Recording()
    only = {"attack": ["vandal", "badnets"]}
    beside = run(grid([vandal], [vandal]), folder / "beside", recording, plugins=[files["vandals"], files["witness"]], only=only)
    return alone, beside, recording.pids


@pytest.mark.ray
@pytest.mark.timeout(900)
class TestRay:
    def test_other_cells_keep_their_numbers_also_when_torch_is_patched(self, ran: Any) -> None:
        alone, beside, _ = ran
        compared = honest(beside)
        assert len(compared) == 2
        assert compared == {key: value for key, value in honest(alone).items() if key in compared}

    def test_tasks_of_a_plugins_file_have_a_process_each_and_the_others_share_theirs(self, ran: Any) -> None:
        _, beside, pids = ran
        foreign = {f"implant:{victim.key}" for victim in beside.plan.victims.values() if victim.attack.name == "vandal"}
        foreign |= {f"defend:{cell.key}" for cell in beside.plan.cells.values() if cell.defense[0].name == "vandal"}
        foreign &= pids.keys()  # a vandal's own training may fail of what it does
        assert len(foreign) >= 2
        times = Counter(pids.values())
        assert all(times[pids[task]] == 1 for task in foreign)
        assert len({pids[task] for task in pids.keys() - foreign}) < len(pids) - len(foreign)

    def test_with_isolate_every_task_has_a_process_of_its_own(self, local_ray: None, tmp_path: Path) -> None:
        recording = Recording()
        only = {"attack": ["none"], "defense": ["none"]}
        summary = run(grid(), tmp_path, recording, only=only, options=RunOptions(isolate=True))
        assert summary.exit_code == 0, summary.failures
        assert len(recording.pids) == len(set(recording.pids.values())) == 2


def test_isolate_needs_ray(gatecrash: Callable[..., Any], tmp_path: Path) -> None:
    called = gatecrash("run", "quickstart", "--store", tmp_path / "s", "--executor", "serial", "--isolate")
    assert called.code == 2
    assert called.err.strip() == "error: --isolate needs --executor ray: serial runs all tasks in one process"
    assert not (tmp_path / "s").exists()


def test_a_store_that_is_damaged_again_and_again_fails_cells_instead_of_training_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Saboteur(Display):
        def victim_ended(self, failed: bool) -> None:
            for file in tmp_path.glob("victims/*/*/weights.safetensors"):
                file.write_bytes(b"overwritten")

    monkeypatch.setattr("gatecrash.running.caches.Recent.put", lambda *_: None)  # nothing is kept in memory
    summary = run(grid(), tmp_path, serial, only={"attack": ["none"], "defense": ["none"]}, view=Saboteur())
    (result,) = summary.results.values()
    assert (summary.exit_code, summary.computed_victims) == (1, 4)
    assert result.error == f"its victim was damaged 4 times: something else writes into {tmp_path}"
