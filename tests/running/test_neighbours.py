"""A plugin that misbehaves spoils its own cells only: a grid beside vandals gives the other cells' numbers to the last digit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from gatecrash.records.store import Store
from gatecrash.records.summary import Summary
from gatecrash.running.run import run, serial
from support.vandals import honest, quiet_grid, write_plugins


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_plugins(tmp_path_factory.mktemp("plugins"))


@pytest.fixture
def _unpatched(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a plugin patches in this process is as it was after the test."""
    for holder, name in ((F, "cross_entropy"), (F, "relu"), (torch, "randperm"), (torch.Tensor, "argmax")):
        monkeypatch.setattr(holder, name, getattr(holder, name))


class TestSerial:
    def beside_vandals(self, files: dict[str, Path], folder: Path, **means: Any) -> tuple[Summary, Summary]:
        """A grid alone, and the same beside vandals."""
        alone = run(quiet_grid(defenses=["witness"], seeds=[0, 1]), folder / "alone", serial, plugins=[files["witness"]])
        vandal = {"vandal": {"store": str(folder / "beside"), **means}}
        plugins = [files["vandals"], files["witness"]]
        beside = run(quiet_grid([vandal], [vandal, "witness"], [0, 1]), folder / "beside", serial, plugins=plugins)
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
        again = run(quiet_grid(defenses=["witness"], seeds=[0, 1]), store, serial, plugins=[files["witness"]])
        assert honest(again) == honest(alone)

    @pytest.mark.usefixtures("_unpatched")
    def test_serial_trusts_plugins_not_to_patch_torch(self, files: dict[str, Path], tmp_path: Path) -> None:
        """As it is documented; and the comparison above would notice."""
        alone, beside = self.beside_vandals(files, tmp_path, patches=True)
        assert honest(beside) != honest(alone)


def test_isolate_needs_ray(gatecrash: Callable[..., Any], tmp_path: Path) -> None:
    called = gatecrash("run", "quickstart", "--store", tmp_path / "s", "--executor", "serial", "--isolate")
    assert called.code == 2
    assert called.err.strip() == "error: --isolate needs --executor ray: serial runs all tasks in one process"
    assert not (tmp_path / "s").exists()
