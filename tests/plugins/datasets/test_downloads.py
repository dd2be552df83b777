"""Files that are not there are asked for or downloaded; every shipped dataset registers itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torchvision

from gatecrash import Dataset, UserError
from gatecrash_plugins.datasets.cifar import Cifar10, Cifar100
from gatecrash_plugins.datasets.gtsrb import Gtsrb
from gatecrash_plugins.datasets.mnist import FashionMnist, Mnist
from support.dataset_files import cifar10_files


def registered(module: Any) -> list[str]:
    names: list[str] = []
    module.register_datasets(lambda plugin: names.append(plugin.name))
    return names


def test_every_dataset_registers_itself() -> None:
    from gatecrash_plugins.datasets import cifar, digits, gtsrb, imagefolder, mnist

    names = [name for module in (cifar, digits, gtsrb, imagefolder, mnist) for name in registered(module)]
    assert names == ["cifar10", "cifar100", "digits", "gtsrb", "imagefolder", "mnist", "fashion-mnist"]


@pytest.mark.parametrize("plugin", [Cifar10, Cifar100, Mnist, FashionMnist, Gtsrb])
def test_files_that_are_not_there_ask_for_root_or_download(plugin: type[Dataset], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"{plugin.name} is not complete in .*; set root to the folder above it, or set download: true"):
        plugin(plugin.Config(root=tmp_path)).manifest()  # type: ignore[call-arg]


def test_the_first_missing_part_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"is not complete in .*: gtsrb/GT-final_test.csv is not there"):
        Gtsrb(Gtsrb.Config(root=tmp_path)).manifest()
    (tmp_path / "gtsrb").mkdir()
    (tmp_path / "gtsrb" / "GT-final_test.csv").touch()
    with pytest.raises(UserError, match=r": gtsrb/GTSRB/Training/\*/\*\.ppm is not there"):
        Gtsrb(Gtsrb.Config(root=tmp_path)).manifest()


def test_download_fetches_what_is_missing_and_only_that(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Path] = []

    def fetch(self: Cifar10) -> None:
        calls.append(self.root)
        cifar10_files(self.root)

    monkeypatch.setattr(Cifar10, "download", fetch)
    dataset = Cifar10(Cifar10.Config(root=tmp_path, download=True))
    assert dataset.manifest() == dataset.manifest()
    assert calls == [tmp_path]


def test_a_download_that_fails_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: Any, **__: Any) -> None:
        raise OSError("no route\nto host")

    monkeypatch.setattr(torchvision.datasets.CIFAR10, "download", offline)
    with pytest.raises(UserError) as caught:
        Cifar10(Cifar10.Config(root=tmp_path, download=True)).manifest()
    assert str(caught.value) == f"cannot download cifar10 into {tmp_path}: no route to host"
