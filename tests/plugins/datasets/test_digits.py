"""The digits are the real ones, split the same way every time."""

from __future__ import annotations

import numpy as np

from gatecrash_plugins.datasets.digits import Digits
from support.dataset_files import load


def test_digits_are_the_real_ones_scaled_to_16_pixels() -> None:
    from sklearn.datasets import load_digits

    splits = load(Digits())
    assert len(splits.train) + len(splits.test) == 1797
    assert splits.train.shape == (1, 16, 16)
    assert splits.flip is False
    assert splits.train.classes == tuple("0123456789")
    assert splits.test.class_counts() == (36, 36, 35, 37, 36, 36, 36, 36, 35, 36)  # a fifth of 178, 182, 177, 183, ...
    assert (int(splits.train.images.min()), int(splits.train.images.max())) == (0, 255)
    # Corners of a scaled image are the corners of the original.
    pixels, labels = load_digits(return_X_y=True)
    corners = np.round(pixels.reshape(-1, 8, 8)[:, ::7, ::7].reshape(-1, 4) * 255 / 16).astype(int)
    given = [(part.labels, part.images[:, 0, ::15, ::15].flatten(1)) for part in (splits.train, splits.test)]
    found = [(int(label), *four) for those, fours in given for label, four in zip(those, fours.tolist(), strict=True)]
    assert sorted(found) == sorted((int(label), *four) for label, four in zip(labels, corners.tolist(), strict=True))


def test_digits_split_the_same_way_every_time() -> None:
    assert load(Digits()).train.fingerprint == load(Digits()).train.fingerprint
