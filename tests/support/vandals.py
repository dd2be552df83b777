"""Plugins that leave nothing as it was, one that notices, and a grid to run them in."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gatecrash.planning.grid import parse_grid
from gatecrash.records.summary import Summary

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


def quiet_grid(attacks: Sequence[Any] = (), defenses: Sequence[Any] = (), seeds: Sequence[int] = (0,), name: str = "quiet") -> Any:
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


def write_plugins(folder: Path) -> dict[str, Path]:
    """Their files."""
    paths = {"vandals": folder / "vandals.py", "witness": folder / "witness.py"}
    paths["vandals"].write_text(VANDALS)
    paths["witness"].write_text(WITNESS)
    return paths
