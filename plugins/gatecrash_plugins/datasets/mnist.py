"""MNIST and Fashion-MNIST, in the idx format that torchvision reads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gatecrash import Dataset, Reference, hookimpl
from gatecrash_plugins.datasets._images import resized
from gatecrash_plugins.datasets._torchvision import DownloadableDataset

if TYPE_CHECKING:
    from gatecrash import ImageSet, Splits

FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


class Mnist(DownloadableDataset):
    """60,000 training and 10,000 test images of handwritten digits, 28x28, one channel."""

    name = "mnist"
    summary = "70,000 handwritten digits, 28x28, one channel"
    reference = Reference("LeCun et al., Gradient-based learning applied to document recognition", 1998, "https://doi.org/10.1109/5.726791")
    folder = "MNIST/raw"
    flip = False

    def files(self) -> Sequence[Path]:
        return [self.root / self.folder / name for name in FILES]

    def source(self) -> Any:
        from torchvision.datasets import MNIST

        return MNIST

    def download(self) -> None:
        self.source()(self.root, download=True)

    def load(self, progress: Callable[[int, int], None]) -> Splits:
        from gatecrash import Splits

        train, test = self._read(train=True), self._read(train=False)
        progress(len(train) + len(test), len(train) + len(test))
        return Splits(train, test, flip=self.flip)

    def _read(self, train: bool) -> ImageSet:
        from gatecrash import ImageSet

        data = self.read(self.source(), train)
        return ImageSet(resized(data.data[:, None], self.size), data.targets.long(), tuple(data.classes))


class FashionMnist(Mnist):
    """60,000 training and 10,000 test images of clothes, 28x28, one channel; mirroring keeps the class."""

    name = "fashion-mnist"
    summary = "70,000 photographs of clothes in 10 classes, 28x28, one channel"
    reference = Reference("Xiao et al., Fashion-MNIST", 2017, "https://arxiv.org/abs/1708.07747")
    folder = "FashionMNIST/raw"
    flip = True

    def source(self) -> Any:
        from torchvision.datasets import FashionMNIST

        return FashionMNIST


@hookimpl
def register_datasets(register: Callable[[type[Dataset]], None]) -> None:
    register(Mnist)
    register(FashionMnist)
