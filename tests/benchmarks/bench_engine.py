"""How close the engine comes to the hardware, as ratios of runs that take turns (run with `make bench`; a plain pytest run skips it).

1. engine / bare loop: a forward-backward-step loop of the same model on one resident random batch is the most that can be had.
2. engine / usual pipeline: PIL images, torchvision transforms and a DataLoader, in float32, as most training scripts do it.
3. bare loop compiled / eager: what torch.compile (on a GPU with CUDA graphs) would add. Compiling itself, 10 to 30 s, is not counted.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F
from peers.usual import PilImages, loader, one_epoch
from torch import Tensor

from gatecrash import Model, Network, Recipe
from gatecrash.contracts.randomness import Streams
from gatecrash.engine.device import choose_device, supports_bfloat16
from gatecrash.engine.training import Execution, Method, train
from gatecrash_plugins.models.lean import Lean
from gatecrash_plugins.models.preact_resnet18 import PreActResNet18
from gatecrash_plugins.models.resnet18 import ResNet18
from gatecrash_plugins.models.small_cnn import SmallCnn

ROUNDS = 5


@dataclass(frozen=True)
class Setting:
    """A model, its images and how long one turn is: on a CPU a few seconds, so that what happens once a training does not count, on a GPU
    long enough to outlast the launch queue."""

    model: type[Model]
    shape: tuple[int, int, int]
    batch: int
    steps: int

    def __str__(self) -> str:
        channels, height, width = self.shape
        return f"{self.model.name} {height}x{width}x{channels} batch {self.batch}"


SETTINGS = {
    "cpu": [
        Setting(SmallCnn, (1, 16, 16), 64, 400),
        Setting(SmallCnn, (3, 32, 32), 128, 20),
        Setting(Lean, (3, 32, 32), 64, 6),
        Setting(ResNet18, (3, 32, 32), 32, 6),
        Setting(PreActResNet18, (3, 32, 32), 32, 6),
    ],
    "cuda": [Setting(model, (3, 32, 32), 512, 100) for model in (SmallCnn, Lean, ResNet18, PreActResNet18)],
}
DEVICE = choose_device()
HERE = SETTINGS[DEVICE.type]


def network(setting: Setting) -> Network:
    channels = setting.shape[0]
    torch.manual_seed(0)
    return Network(setting.model().build(10, setting.shape), [0.5] * channels, [0.25] * channels).to(DEVICE)


def random_set(setting: Setting) -> tuple[Tensor, Tensor]:
    count = setting.batch * setting.steps
    return torch.randint(0, 256, (count, *setting.shape), dtype=torch.uint8), torch.randint(0, 10, (count,))


def finish() -> float:
    """The time when all work is done: of the processor where one thread does it (others may use the machine too), else of the clock."""
    if DEVICE.type == "cuda":
        torch.cuda.synchronize(DEVICE)
    alone = DEVICE.type == "cpu" and torch.get_num_threads() == 1
    return time.process_time() if alone else time.perf_counter()


def bare_loop(setting: Setting, compiled: bool = False) -> Callable[[], float]:
    net = network(setting).to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    forward = torch.compile(net, mode="reduce-overhead") if compiled else net
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-4, momentum=0.9, weight_decay=5e-4, fused=True)
    images, labels = (part[: setting.batch].to(DEVICE) for part in random_set(setting))
    bfloat16 = supports_bfloat16(DEVICE)

    def turn() -> float:
        start = finish()
        for _ in range(setting.steps):
            with torch.autocast(DEVICE.type, torch.bfloat16, enabled=bfloat16):
                loss = F.cross_entropy(forward(images).float(), labels)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
        return setting.batch * setting.steps / (finish() - start)

    return turn


def engine(setting: Setting) -> Callable[[], float]:
    net = network(setting)
    images, labels = (part.to(DEVICE) for part in random_set(setting))
    recipe = Recipe(epochs=1, batch_size=setting.batch, lr=1e-4)

    def turn() -> float:
        start = finish()
        train(
            net,
            images,
            labels,
            recipe,
            streams=Streams("bench"),
            flip=True,
            device=DEVICE,
            method=Method(diverges=True),  # random labels cannot be learned
            execution=Execution(lambda progress: None),
        )
        return setting.batch * setting.steps / (finish() - start)

    return turn


def usual_pipeline(setting: Setting) -> Callable[[], float]:
    net = network(setting).backbone.train()
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-4, momentum=0.9, weight_decay=5e-4)
    channels, cuda = setting.shape[0], DEVICE.type == "cuda"
    data = PilImages(*random_set(setting), [0.5] * channels, [0.25] * channels)
    batches = loader(data, setting.batch, workers=4 if cuda else 0, pin_memory=cuda)

    def turn() -> float:
        start = finish()
        one_epoch(net, optimizer, batches, DEVICE)
        return setting.batch * setting.steps / (finish() - start)

    return turn


def compare(title: str, one: Callable[[], float], other: Callable[[], float]) -> None:
    """Print the medians of both and of their ratio; each round runs both, so that whatever else the machine does hits both."""
    one(), other()  # the first turn compiles, allocates and starts workers
    rounds = [(one(), other()) for _ in range(ROUNDS)]
    ratio = statistics.median(a / b for a, b in rounds)
    first, second = (statistics.median(speeds) for speeds in zip(*rounds, strict=True))
    print(f"\n{title}: {ratio:.2f} ({first:,.0f} / {second:,.0f} images/s)", end="", flush=True)


@pytest.mark.parametrize("setting", HERE, ids=str)
def test_engine_against_bare_loop(setting: Setting) -> None:
    compare(f"engine / bare loop, {setting}", engine(setting), bare_loop(setting))


@pytest.mark.parametrize("setting", HERE, ids=str)
def test_engine_against_usual_pipeline(setting: Setting) -> None:
    compare(f"engine / usual pipeline, {setting}", engine(setting), usual_pipeline(setting))


@pytest.mark.parametrize("setting", HERE, ids=str)
def test_compiled_against_eager(setting: Setting) -> None:
    compare(f"bare loop compiled / eager, {setting}", bare_loop(setting, compiled=True), bare_loop(setting))
