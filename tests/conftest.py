"""What tests share: an own dataset cache, the real command line, small grids on the real digits."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings

from gatecrash import Backdoor, Classifier, ImageSet, Network, Poisoned
from gatecrash.cli import main
from gatecrash.contracts.randomness import stream
from gatecrash.contracts.recipe import recipe_from
from gatecrash.datasets.holdout import HoldoutConfig, cut
from gatecrash.evaluation.exam import attack_success
from gatecrash.host.loading import load_plugins
from gatecrash.testing import make_context
from support.grids import SMALL_GRID

# A busy machine is slow; that is no fault of what is tested.
hypothesis_settings.register_profile("gatecrash", deadline=None, suppress_health_check=[HealthCheck.too_slow])
hypothesis_settings.load_profile("gatecrash")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="also run tests marked slow, as CI does")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--slow"):
        skip = pytest.mark.skip(reason="slow; run by `make test SLOW=1`, and by CI")
        for item in items:
            if "slow" in item.keywords:
                item.add_marker(skip)


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Tests neither read nor fill the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GATECRASH_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.delenv("GATECRASH_STORE", raising=False)
        patch.setenv("GATECRASH_EXECUTOR", "serial")
        yield


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """As a task has by default; two threads in each of several processes collapse on two cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@dataclass(frozen=True)
class Called:
    """How a command ended and what it printed."""

    code: int
    out: str
    err: str


@pytest.fixture
def gatecrash(capsys: pytest.CaptureFixture[str]) -> Callable[..., Called]:
    """The command line in this process: `gatecrash("run", "quickstart")`."""

    def call(*arguments: str | Path) -> Called:
        capsys.readouterr()
        with pytest.raises(SystemExit) as exit_info:
            main([str(argument) for argument in arguments])
        printed = capsys.readouterr()
        code = exit_info.value.code
        return Called(code if isinstance(code, int) else 0, printed.out, printed.err)

    return call


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, str], Path]:
    """Write a dedented text file below the test's folder and return its path."""

    def writer(name: str, text: str) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text), encoding="utf-8")
        return path

    return writer


@pytest.fixture
def small_grid(tmp_path: Path) -> Callable[..., Path]:
    """A YAML file of SMALL_GRID with fields replaced: `small_grid(seeds=[0, 1])`."""
    import yaml

    def writer(**fields: Any) -> Path:
        path = tmp_path / f"{fields.get('name', 'small')}.yaml"
        path.write_text(yaml.safe_dump({**SMALL_GRID, **fields}), encoding="utf-8")
        return path

    return writer


@dataclass(frozen=True)
class BadnetsOnDigits:
    """A BadNets victim on the real digits, the defender's hold-out and the test set."""

    network: Network
    clean: ImageSet
    test: ImageSet
    poisoned: Poisoned
    """What it was trained on."""

    @property
    def backdoors(self) -> Sequence[Backdoor]:
        return self.poisoned.backdoors

    def asr(self, classifier: Classifier) -> float:
        return attack_success(classifier, self.test, self.backdoors, device="cpu").asr or 0.0


@pytest.fixture(scope="session")
def badnets_on_digits() -> BadnetsOnDigits:
    """Trained once for all tests, in a second or two: a narrow net, half the usual epochs. Do not change it: defenses work on copies."""
    host = load_plugins(installed=False)
    torch.set_num_threads(1)
    splits = host.get("dataset", "digits").configure().load(lambda _done, _total: None)
    train, clean = cut(splits, HoldoutConfig(), stream("hold-out", 0))
    attack = host.get("attack", "badnets").configure()
    context = make_context(
        attack, train, host.get("model", "small-cnn").configure({"width": 8}), recipe=recipe_from({"preset": "tiny", "epochs": 10})
    )
    implant = attack.implant(train, context)
    return BadnetsOnDigits(implant.classifier, clean, splits.test, implant.poisoned)


@pytest.fixture(scope="session")
def local_ray() -> Iterator[None]:
    """Ray on this machine, shared by all tests: executors use it and leave it running."""
    import ray

    from gatecrash.running.executors.cluster import ResourceRequest
    from gatecrash.running.executors.ray_session import start

    start(ResourceRequest())
    yield
    ray.shutdown()
