"""How cost grows with images, classes, cells and workers (run with `make bench`; a plain pytest run skips it).

Each point runs in a fresh process of one thread, so that its peak memory is its own, and after a small run of the same kind, so that what
happens once per process is not taken for work. The exponent e is the slope of log(seconds) over log(size), by least squares: cost grows
as size ** e. Random images do for most of it; the time does not depend on what they show.
"""

from __future__ import annotations

import math
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
import torch
from bench_grid import PLUGIN, fields
from tabulate import tabulate

from gatecrash import ImageSet, Network, Recipe
from gatecrash.contracts.randomness import Streams
from gatecrash.engine.device import choose_device
from gatecrash.engine.training import Method, train
from gatecrash.evaluation.exam import evaluate
from gatecrash.host.loading import load_plugins
from gatecrash.planning.grid import parse_grid
from gatecrash.process.allocator import freed_memory_kept
from gatecrash.process.isolation import fresh_process_state
from gatecrash.process.measuring import peak_of_this_process
from gatecrash.running.options import RunOptions
from gatecrash.running.run import ray, run, serial
from gatecrash.testing import make_evidence, model_factory
from gatecrash_plugins.defenses._reverse_triggers import ReverseConfig, reverse_triggers
from gatecrash_plugins.defenses.neural_cleanse import NeuralCleanse
from gatecrash_plugins.models.small_cnn import SmallCnn

IMAGES = [1_000, 5_000, 10_000, 50_000]
CLASSES = [10, 30, 100]
CELLS = [10, 100, 1_000]
WORKERS = [1, 2]

HOLDOUT = 256
"""Hold-out images, whatever the number of classes: a share of the training set, as on CIFAR-10 and CIFAR-100."""
ROWS = 5_000
"""Training rows that are clustered, whatever the number of classes."""
SEARCH = ReverseConfig(searches=1, rounds=3, samples=64)
SHAPE = (3, 32, 32)
DEVICE = choose_device()

Grid = dict[str, Any]
Work = Callable[[], object]

REAL: Grid = {
    "name": "workers",
    "dataset": "digits",
    "model": "small-cnn",
    "recipe": "tiny",
    "seeds": [0, 1, 2, 3],
    "attacks": ["none"],
    "defenses": ["none", {"fine-pruning": {"epochs": 5}}],
}
"""Four victims and eight cells, a few seconds of one core each."""
WARM_UP: Grid = {
    **REAL,
    "dataset": {"digits": {"limit": 200, "limit_test": 60}},
    "recipe": {"preset": "tiny", "epochs": 4, "batch_size": 16, "lr": 0.03},
}


@dataclass(frozen=True)
class Cost:
    """Of one point, in a process of its own."""

    seconds: float
    memory: str
    """Peak resident memory in MiB."""


@dataclass(frozen=True)
class Growth:
    """One row of the table: a function of a size that runs in another process, and what its name does not tell."""

    what: str
    axis: str
    sizes: Sequence[int]
    point: Callable[[int], Cost]

    def __str__(self) -> str:
        return f"{self.axis}, {self.what}"


def in_a_process(function: Callable[..., Cost], *arguments: Any) -> Cost:
    """Call a function of this module in a fresh interpreter of one thread."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            return pool.submit(function, *arguments).result()


def now() -> float:
    if DEVICE.type == "cuda":
        torch.cuda.synchronize(DEVICE)
    return time.perf_counter()


def cost_of(prepare: Callable[[int], Work], small: int, size: int) -> Cost:
    """Of the work that `prepare(size)` gives, under the settings of a task, after that of `prepare(small)`."""
    with freed_memory_kept(), fresh_process_state(1):
        prepare(small)()
        work = prepare(size)
        start = now()
        work()
        return Cost(now() - start, f"{peak_of_this_process():,.0f}")


def nothing() -> Cost:
    """What a process takes that has imported all this."""
    return Cost(0.0, f"{peak_of_this_process():,.0f}")


def random_set(count: int, classes: int = 10) -> ImageSet:
    images = torch.randint(0, 256, (count, *SHAPE), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return ImageSet(images, torch.arange(count) % classes, tuple(str(label) for label in range(classes)))


def network(data: ImageSet) -> Network:
    return model_factory(SmallCnn(), data, device=DEVICE)()


def training(images: int) -> Cost:
    return cost_of(an_epoch, 256, images)


def an_epoch(images: int) -> Work:
    data = random_set(images)
    return partial(
        train,
        network(data),
        data.images,
        data.labels,
        Recipe(epochs=1, lr=1e-4),
        streams=Streams("bench"),
        flip=True,
        device=DEVICE,
        method=Method(diverges=True),  # random labels cannot be learned
    )


def evaluation(images: int) -> Cost:
    return cost_of(a_pass, 256, images)


def a_pass(images: int) -> Work:
    data = random_set(images)
    return partial(evaluate, network(data), data, device=DEVICE)


def search(classes: int) -> Cost:
    return cost_of(a_search, 3, classes)


def a_search(classes: int) -> Work:
    """Neural Cleanse up to the accusation: a repair would depend on who is accused."""
    clean = random_set(HOLDOUT, classes)
    evidence = make_evidence(NeuralCleanse(), network(clean), clean, device=DEVICE)
    frozen = evidence.network.requires_grad_(False)
    frozen.to(memory_format=torch.channels_last)
    return partial(reverse_triggers, frozen, evidence, SEARCH)


def clustering(classes: int) -> Cost:
    return cost_of(a_clustering, 3, classes)


def a_clustering(classes: int) -> Work:
    """With the activations, which the harness makes for whoever asks for them."""
    data = random_set(ROWS, classes)
    options = {"decision": "relative-size", "retrain": False}
    defense = load_plugins(installed=False).get("defense", "activation-clustering").configure(options)
    victim = network(data)
    return lambda: defense.defend(make_evidence(defense, victim, data, training_data=data, model=SmallCnn(), device=DEVICE))


def cells(count: int) -> Cost:
    """Cells that do nothing on a victim that is there: planning, scheduling, evaluating 50 images, storing."""
    with TemporaryDirectory() as folder:
        plugin = Path(folder, "idle.py")
        # Under another name: bench_grid, in the same session, leaves its own installed for the processes that come after.
        plugin.write_text(PLUGIN.replace("no-op", "idle"))

        def work(wanted: int) -> None:
            grid = {**fields(0), "defenses": ["none", {"idle": {"number": list(range(wanted))}}]}
            summary = run(parse_grid(grid), Path(folder, "store"), serial, plugins=[plugin])
            assert summary.exit_code == 0, summary.failures[:3]

        work(1)
        start = time.perf_counter()
        work(count + 1)
        return Cost(time.perf_counter() - start, f"{peak_of_this_process():,.0f}")


def workers(count: int, warm_up: Grid, real: Grid) -> Cost:
    """A grid on a Ray that has started and on workers that have imported torch."""
    import ray as ray_itself

    from gatecrash.running.executors.cluster import ResourceRequest
    from gatecrash.running.executors.ray_session import start

    start(ResourceRequest(gpus=0))
    options = RunOptions(device="cpu", workers=count)
    with TemporaryDirectory() as folder:
        run(parse_grid(warm_up), Path(folder, "warm-up"), ray, options=options)
        before = time.perf_counter()
        summary = run(parse_grid(real), Path(folder, "real"), ray, options=options)
        seconds = time.perf_counter() - before
    ray_itself.shutdown()
    assert summary.exit_code == 0, summary.failures[:3]
    largest = max(result.measures.peak_memory_mb for result in summary.results.values())
    return Cost(seconds, f"{peak_of_this_process():,.0f} + {count} x {largest:,.0f}")


GROWTHS = [
    Growth("one epoch of training, small-cnn on 32x32x3", "images", IMAGES, training),
    Growth("one evaluation pass, the same", "images", IMAGES, evaluation),
    Growth(f"trigger search, {SEARCH.rounds} rounds, {HOLDOUT} hold-out images", "classes", CLASSES, search),
    Growth(f"activation clustering of {ROWS:,} rows, no retraining", "classes", CLASSES, clustering),
    Growth("no-op cells, serial", "cells", CELLS, cells),
    Growth("4 victims, 8 cells on digits, Ray, warm", "workers", WORKERS, partial(workers, warm_up=WARM_UP, real=REAL)),
]


def exponent(sizes: Sequence[int], seconds: Sequence[float]) -> float:
    return float(np.polyfit([math.log(size) for size in sizes], [math.log(second) for second in seconds], 1)[0])


@pytest.fixture(scope="module")
def rows() -> Iterator[list[list[str]]]:
    """The rows so far; printed as one table when all are there."""
    found: list[list[str]] = []
    base = in_a_process(nothing)
    yield found
    header = ["grows", "work", "sizes", "seconds", "exponent", "peak MiB"]
    print(f"\n\n{DEVICE}, one thread per process. {base.memory} MiB of each peak are Python, torch and Gatecrash; Ray: driver + workers.\n")
    print(tabulate(found, header, tablefmt="github", disable_numparse=True), flush=True)


@pytest.mark.parametrize("growth", GROWTHS, ids=str)
def test_growth(growth: Growth, rows: list[list[str]]) -> None:
    if growth.axis == "workers" and (os.cpu_count() or 1) < max(growth.sizes):
        pytest.skip(f"needs {max(growth.sizes)} cores")
    costs = [in_a_process(growth.point, size) for size in growth.sizes]
    seconds = [cost.seconds for cost in costs]
    rows.append(
        [
            growth.axis,
            growth.what,
            " / ".join(f"{size:,}" for size in growth.sizes),
            " / ".join(f"{second:.3g}" for second in seconds),
            f"{exponent(growth.sizes, seconds):.2f}",
            " / ".join(cost.memory for cost in costs),
        ]
    )
