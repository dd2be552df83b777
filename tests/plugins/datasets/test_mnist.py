"""MNIST and Fashion-MNIST, on tiny files in their published format."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gatecrash import UserError
from gatecrash_plugins.datasets.mnist import FashionMnist, Mnist
from support.dataset_files import load


def write_idx(path: Path, array: np.ndarray[Any, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes())


@pytest.mark.parametrize(
    ("plugin", "folder", "flip", "third"), [(Mnist, "MNIST", False, "3 - three"), (FashionMnist, "FashionMNIST", True, "Dress")]
)
def test_mnist_files_are_read(tmp_path: Path, plugin: type[Mnist], folder: str, flip: bool, third: str) -> None:
    for part, labels in (("train", [3, 1, 9]), ("t10k", [2, 3])):
        images = np.stack([np.full((28, 28), 10 * label, np.uint8) for label in labels])
        write_idx(tmp_path / folder / "raw" / f"{part}-images-idx3-ubyte", images)
        write_idx(tmp_path / folder / "raw" / f"{part}-labels-idx1-ubyte", np.array(labels, np.uint8))
    splits = load(plugin(plugin.Config(root=tmp_path)))
    assert splits.train.shape == (1, 28, 28)
    assert splits.train.labels.tolist() == [3, 1, 9]
    assert splits.train.images[:, 0, 5, 5].tolist() == [30, 10, 90]
    assert splits.test.labels.tolist() == [2, 3]
    assert splits.train.classes[3] == third
    assert splits.flip is flip
    assert load(plugin(plugin.Config(root=tmp_path, resize=32))).train.images[:, 0, 5, 5].tolist() == [30, 10, 90]
    (tmp_path / folder / "raw" / "train-images-idx3-ubyte").write_bytes(b"short")
    with pytest.raises(UserError, match=f"cannot read {plugin.name} in"):
        load(plugin(plugin.Config(root=tmp_path)))
