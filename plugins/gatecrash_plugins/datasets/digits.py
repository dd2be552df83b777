"""The digits that come with scikit-learn: real images that need no download."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from gatecrash import Dataset, Reference, hookimpl
from gatecrash_plugins.datasets._images import with_test_share

if TYPE_CHECKING:
    from gatecrash import Splits


class Digits(Dataset):
    """1,797 handwritten digits, 8x8 pixels of 17 grey levels, scaled to 16x16 (bilinear) and 0..255.

    A fifth of each class, drawn by a fixed seed, is the test set. Writers are not identified in the data, so the split is by image.
    """

    name = "digits"
    summary = "1,797 real handwritten digits, 16x16, one channel; embedded, no download"
    reference = Reference(
        "Kaynak, Methods of combining multiple classifiers (UCI optdigits)", 1995, "https://archive.ics.uci.edu/dataset/80"
    )

    def manifest(self) -> str:
        return "scikit-learn digits"

    def load(self, progress: Callable[[int, int], None]) -> Splits:
        import torch
        from sklearn.datasets import load_digits
        from torch.nn import functional as F

        from gatecrash import ImageSet

        pixels, labels = load_digits(return_X_y=True)
        levels = torch.from_numpy(pixels).float().view(-1, 1, 8, 8) * (255 / 16)
        images = F.interpolate(levels, size=(16, 16), mode="bilinear", align_corners=False).round().to(torch.uint8)
        everything = ImageSet(images, torch.from_numpy(labels).long(), tuple("0123456789"))
        progress(len(everything), len(everything))
        return with_test_share(everything, fraction=0.2, seed=0, flip=False)


@hookimpl
def register_datasets(register: Callable[[type[Dataset]], None]) -> None:
    register(Digits)
