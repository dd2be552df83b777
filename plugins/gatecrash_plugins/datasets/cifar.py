"""CIFAR-10 and CIFAR-100, in the Python format that torchvision reads (files are checked by their published MD5 before they are opened)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from gatecrash import Dataset, Reference, hookimpl
from gatecrash_plugins.datasets._images import resized
from gatecrash_plugins.datasets._torchvision import DownloadableDataset

if TYPE_CHECKING:
    from gatecrash import ImageSet, Splits

PAPER = Reference("Krizhevsky, Learning multiple layers of features from tiny images", 2009, "https://www.cs.toronto.edu/~kriz/cifar.html")


class Cifar10(DownloadableDataset):
    """50,000 training and 10,000 test images of 10 classes, 32x32, three channels."""

    name = "cifar10"
    summary = "60,000 photographs of 10 classes, 32x32"
    reference = PAPER
    folder = "cifar-10-batches-py"
    file_names: ClassVar[tuple[str, ...]] = (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch", "batches.meta")

    def files(self) -> Sequence[Path]:
        return [self.root / self.folder / name for name in self.file_names]

    def source(self) -> Any:
        from torchvision.datasets import CIFAR10

        return CIFAR10

    def download(self) -> None:
        self.source()(self.root, download=True)

    def load(self, progress: Callable[[int, int], None]) -> Splits:
        from gatecrash import Splits

        train, test = self._read(train=True), self._read(train=False)
        progress(len(train) + len(test), len(train) + len(test))
        return Splits(train, test)

    def _read(self, train: bool) -> ImageSet:
        import torch

        from gatecrash import ImageSet

        data = self.read(self.source(), train)
        images = torch.from_numpy(data.data).permute(0, 3, 1, 2).contiguous()
        return ImageSet(resized(images, self.size), torch.tensor(data.targets, dtype=torch.int64), tuple(data.classes))


class Cifar100(Cifar10):
    """50,000 training and 10,000 test images of 100 (fine) classes, 32x32, three channels."""

    name = "cifar100"
    summary = "60,000 photographs of 100 classes, 32x32"
    folder = "cifar-100-python"
    file_names = ("train", "test", "meta")

    def source(self) -> Any:
        from torchvision.datasets import CIFAR100

        return CIFAR100


@hookimpl
def register_datasets(register: Callable[[type[Dataset]], None]) -> None:
    register(Cifar10)
    register(Cifar100)
