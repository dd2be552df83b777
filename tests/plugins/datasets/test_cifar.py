"""CIFAR-10 and CIFAR-100, on tiny files in their published format."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torchvision

from gatecrash import UserError
from gatecrash_plugins.datasets.cifar import Cifar10, Cifar100
from support.dataset_files import cifar10_files, load, write_cifar


def accept(monkeypatch: pytest.MonkeyPatch, source: Any, md5: dict[str, str]) -> None:
    """Let torchvision take these files for the published ones."""
    monkeypatch.setattr(source, "train_list", [[name, md5[name]] for name, _ in source.train_list])
    monkeypatch.setattr(source, "test_list", [[name, md5[name]] for name, _ in source.test_list])
    monkeypatch.setattr(source, "meta", {**source.meta, "md5": md5[source.meta["filename"]]})


def test_cifar10_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    accept(monkeypatch, torchvision.datasets.CIFAR10, cifar10_files(tmp_path))
    splits = load(Cifar10(Cifar10.Config(root=tmp_path)))
    assert splits.train.labels.tolist() == [1, 0, 2, 0, 3, 0, 4, 0, 5, 0]
    assert splits.train.shape == (3, 32, 32)
    assert splits.test.images[1, :, 31, 0].tolist() == [9, 100, 200]
    assert splits.test.classes[3] == "name 3"
    assert splits.flip is True


def test_cifar100_has_its_fine_labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"fine {i}" for i in range(100)]
    md5 = write_cifar(tmp_path, "cifar-100-python", {"train": [99, 5], "test": [7]}, ("meta", "fine_label_names", names), "fine_labels")
    accept(monkeypatch, torchvision.datasets.CIFAR100, md5)
    splits = load(Cifar100(Cifar100.Config(root=tmp_path, resize=16)))
    assert splits.train.labels.tolist() == [99, 5]
    assert splits.train.shape == (3, 16, 16)
    assert splits.train.images[0, :, 8, 8].tolist() == [99, 100, 200]
    assert splits.train.num_classes == 100


def test_cifar_files_that_are_not_the_published_ones_are_not_unpickled(tmp_path: Path) -> None:
    cifar10_files(tmp_path)
    with pytest.raises(UserError, match=r"cannot read cifar10 .* corrupted") as caught:
        load(Cifar10(Cifar10.Config(root=tmp_path)))
    assert "\n" not in str(caught.value)
