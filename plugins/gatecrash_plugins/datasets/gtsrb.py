"""The German Traffic Sign Recognition Benchmark, in the files that torchvision downloads or the benchmark's final ones."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from gatecrash import Dataset, Reference, UserError, hookimpl
from gatecrash_plugins.datasets._images import decode
from gatecrash_plugins.datasets._torchvision import DownloadableDataset, DownloadConfig

if TYPE_CHECKING:
    from gatecrash import Splits


FINAL_TRAINING = "https://sid.erda.dk/public/archives/daaeac0d7ce1152aea9b61d9f1e19370/GTSRB_Final_Training_Images.zip"
FINAL_TRAINING_MD5 = "f33fd80ac59bff73c82d25ab499e03a3"


class Gtsrb(DownloadableDataset):
    """Photographs of 43 signs, three channels: 12,630 test images, and one of two training sets.

    `torchvision` is the set of 26,640 images of the benchmark's first stage, which torchvision downloads. `final` is the final one, of
    39,209 images, which most papers use; it contains the first. Resized to 32 pixels it is the set of the board gtsrb.

    Training images come in tracks of 30 frames of one sign (`TTTTT_FFFFF.ppm`): the tracks are the groups, so that the clean hold-out holds
    no near-duplicate of a training image. Images are used whole, not cropped to the sign. Arrows point somewhere: no flip.
    """

    name = "gtsrb"
    summary = "39,270 or 51,839 photographs of 43 German traffic signs, resized to 32x32; tracks kept together"
    reference = Reference("Stallkamp et al., Man vs. computer", 2012, "https://doi.org/10.1016/j.neunet.2012.02.016")
    folder = "gtsrb"

    class Config(DownloadConfig):
        """Images are of many sizes, so they are always resized."""

        NEWER = frozenset({"training"})

        training: Literal["torchvision", "final"] = Field(
            "torchvision",
            description="torchvision: 26,640 training images, in gtsrb/GTSRB/Training; final: 39,209, in gtsrb/GTSRB/Final_Training/Images",
        )
        resize: int = Field(32, ge=4, le=1024, description="side in pixels to resize images to (bilinear); they are of many sizes")

    config: Config

    @property
    def _training(self) -> Path:
        base = self.root / self.folder / "GTSRB"
        return base / "Final_Training" / "Images" if self.config.training == "final" else base / "Training"

    @property
    def _test_images(self) -> Path:
        return self.root / self.folder / "GTSRB" / "Final_Test" / "Images"

    @property
    def _answers(self) -> Path:
        return self.root / self.folder / "GT-final_test.csv"

    def files(self) -> Sequence[Path]:
        training = sorted(self._training.glob("*/*.ppm"))
        test = sorted(self._test_images.glob("*.ppm"))
        return [self._answers, *(training or [self._training / "*" / "*.ppm"]), *(test or [self._test_images / "*.ppm"])]

    def download(self) -> None:
        from torchvision.datasets import GTSRB
        from torchvision.datasets.utils import download_and_extract_archive

        if self.config.training == "final":
            download_and_extract_archive(FINAL_TRAINING, str(self.root / self.folder), md5=FINAL_TRAINING_MD5)
        else:
            GTSRB(self.root, split="train", download=True)
        GTSRB(self.root, split="test", download=True)

    def load(self, progress: Callable[[int, int], None]) -> Splits:
        import torch

        from gatecrash import ImageSet, Splits

        train_files = sorted(self._training.glob("*/*.ppm"))
        classes = tuple(sorted({path.parent.name for path in train_files}))
        number = {name: label for label, name in enumerate(classes)}
        test_files, test_labels = self._test(number)
        tracks: dict[tuple[str, str], int] = {}
        groups = [tracks.setdefault((path.parent.name, path.name.split("_")[0]), len(tracks)) for path in train_files]
        total, before = len(train_files) + len(test_files), len(train_files)
        train_images = decode([str(path) for path in train_files], "rgb", self.size, lambda done: progress(done, total))
        test_images = decode([str(path) for path in test_files], "rgb", self.size, lambda done: progress(before + done, total))
        return Splits(
            ImageSet(train_images, torch.tensor([number[path.parent.name] for path in train_files]), classes),
            ImageSet(test_images, torch.tensor(test_labels), classes),
            groups=torch.tensor(groups),
            flip=False,
        )

    def _test(self, number: dict[str, int]) -> tuple[list[Path], list[int]]:
        try:
            with self._answers.open(newline="") as file:
                rows = [(row["Filename"], f"{int(row['ClassId']):05d}") for row in csv.DictReader(file, delimiter=";")]
            return [self._test_images / name for name, _ in rows], [number[label] for _, label in rows]
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise UserError(f"cannot read {self._answers}: {type(error).__name__} {error}; download {self.name} again") from None


@hookimpl
def register_datasets(register: Callable[[type[Dataset]], None]) -> None:
    register(Gtsrb)
