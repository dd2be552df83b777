"""What CIFAR-10 costs from end to end (run with `make bench`; a plain pytest run skips it: two CPU cores take an hour and three quarters).

1. The time a victim takes to ACC 91 (ResNet-18: 93) and ASR 99 under BadNets. A run ends when its schedule does, so that is the time of the
   shortest run that ends above them: of `fast` on a GPU; on a CPU of airbench's net, which gets furthest in the same time.
2. The whole grid of BadNets, Blend and Clean-Label against all shipped defenses, one seed: `cifar10` on a GPU, `cifar10-cpu` on a CPU.

With nothing else running; seconds of the clock.
"""

from __future__ import annotations

import tarfile
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from bench_defenses import archive
from bench_limits import CORES

from gatecrash.contracts.randomness import stream
from gatecrash.contracts.recipe import recipe_from
from gatecrash.datasets.holdout import HoldoutConfig, cut
from gatecrash.engine.device import choose_device
from gatecrash.evaluation.exam import evaluate
from gatecrash.host.loading import load_plugins
from gatecrash.planning.grid import load_grid
from gatecrash.process.allocator import freed_memory_kept
from gatecrash.process.isolation import fresh_process_state
from gatecrash.process.measuring import Meter
from gatecrash.running.run import ray, run
from gatecrash.testing import make_context


@dataclass(frozen=True)
class Goal:
    """A model, its recipe, the accuracy to reach, and in how many seconds."""

    model: str
    recipe: str
    acc: float
    seconds: int

    def __str__(self) -> str:
        return f"{self.model}, {self.recipe}"


DEVICE = choose_device()
GOALS = {
    "cpu": [Goal("airbench", "airbench", 0.91, 12 * 60)],
    "cuda": [Goal("lean", "fast", 0.91, 10), Goal("resnet18", "fast", 0.93, 60)],
}
SEEDS = {"cpu": [0], "cuda": [0, 1, 2]}
ASR = 0.99
GRID = {"cpu": ("cifar10-cpu", {"limit": 20_000}, 90 * 60), "cuda": ("cifar10", {}, 5 * 60)}
"""Name, options of the data set, and the goal in seconds."""


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """All of CIFAR-10 as JPEG files, and an empty cache."""
    folder = tmp_path_factory.mktemp("cifar10")
    with tarfile.open(archive()) as tar:
        tar.extractall(folder / "images", filter="data")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GATECRASH_CACHE", str(folder / "cache"))
        yield folder / "images"


def say(text: str) -> None:
    print(f"\n{text}", end="", flush=True)


@pytest.mark.parametrize("seed", SEEDS[DEVICE.type])
@pytest.mark.parametrize("goal", GOALS[DEVICE.type], ids=str)
def test_time_to_accuracy(goal: Goal, seed: int, images: Path) -> None:
    host = load_plugins(installed=False)
    splits = host.get("dataset", "imagefolder").configure({"root": images}).load(lambda _done, _total: None)
    train, _ = cut(splits, HoldoutConfig(), stream("hold-out", seed))
    attack = host.get("attack", "badnets").configure({"pattern": "checkerboard", "poison_rate": 0.05})
    model = host.get("model", goal.model).configure({})
    recipe = recipe_from(goal.recipe)
    threads = CORES if DEVICE.type == "cpu" else 1
    with freed_memory_kept(), fresh_process_state(threads):
        with Meter(DEVICE) as meter:
            made = attack.implant(train, make_context(attack, train, model, recipe=recipe, seed=seed, flip=splits.flip, device=DEVICE))
        scores = evaluate(made.classifier, splits.test, made.poisoned.backdoors, device=DEVICE)
    acc, asr = scores.acc or 0.0, scores.asr or 0.0
    reached = "reached" if acc >= goal.acc and asr >= ASR else "NOT reached"
    say(
        f"{goal}, {DEVICE.type}, {threads} threads, seed {seed}: ACC {acc:.2%}, ASR {asr:.2%} after {recipe.epochs} epochs"
        f" of {len(train):,} images in {meter.seconds:,.0f} s; {goal.acc:.0%} and {ASR:.0%} {reached} (goal: in {goal.seconds:,} s)"
    )


def test_whole_grid(images: Path, tmp_path: Path) -> None:
    name, options, goal = GRID[DEVICE.type]
    grid = load_grid(name).model_copy(update={"dataset": {"imagefolder": {"root": str(images), **options}}})
    start = time.perf_counter()
    summary = run(grid, tmp_path / "store", ray, seeds=[0])
    seconds = time.perf_counter() - start
    assert summary.exit_code == 0, summary.failures[:3]
    victims = {result.victim_key: result.measures.seconds_victim for result in summary.results.values()}
    tasks: dict[str, float] = defaultdict(float, {"victims": sum(victims.values())})
    for result in summary.results.values():
        tasks["+".join(stage.name for stage in result.defense)] += result.measures.seconds_defense or 0
    spent = ", ".join(f"{what} {each:,.0f}" for what, each in sorted(tasks.items(), key=lambda item: -item[1]) if each)
    say(f"{name}: {len(summary.results)} cells in {seconds:,.0f} s (goal: {goal:,} s), of which tasks by their own clocks: {spent}")
