"""GTSRB, on a few signs in its published layout."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from gatecrash import UserError
from gatecrash.datasets.preparation import prepare_dataset
from gatecrash_plugins.datasets.gtsrb import Gtsrb
from support.dataset_files import load, write_image


@pytest.fixture
def signs(tmp_path: Path) -> Path:
    """GTSRB's layout: two signs with two tracks of three frames each, of many sizes, and three test images."""
    base = tmp_path / "gtsrb"
    for label in range(2):
        for track in range(2):
            for frame in range(3):
                name = f"{track:05d}_{frame:05d}.ppm"
                write_image(base / "GTSRB" / "Training" / f"{label:05d}" / name, 50 * label + 10 * track + frame, size=(30 + frame, 29))
    for number in range(3):
        write_image(base / "GTSRB" / "Final_Test" / "Images" / f"{number:05d}.ppm", 90 + number, size=(40, 41))
    header = "Filename;Width;Height;Roi.X1;Roi.Y1;Roi.X2;Roi.Y2;ClassId"
    rows = [f"{number:05d}.ppm;40;41;5;5;34;35;{number % 2}" for number in range(3)]
    (base / "GT-final_test.csv").write_text("\r\n".join([header, *rows]) + "\r\n")
    return tmp_path


def test_gtsrb_keeps_tracks_together(signs: Path) -> None:
    splits = load(Gtsrb(Gtsrb.Config(root=signs)))
    assert splits.train.shape == splits.test.shape == (3, 32, 32)
    assert splits.train.classes == ("00000", "00001")
    assert splits.train.labels.tolist() == [0] * 6 + [1] * 6
    assert splits.groups is not None
    assert splits.groups.tolist() == [0] * 3 + [1] * 3 + [2] * 3 + [3] * 3
    assert splits.train.images[:, 0, 16, 16].tolist() == [0, 1, 2, 10, 11, 12, 50, 51, 52, 60, 61, 62]
    assert splits.test.labels.tolist() == [0, 1, 0]
    assert splits.test.images[:, 0, 16, 16].tolist() == [90, 91, 92]
    assert splits.flip is False
    assert load(Gtsrb(Gtsrb.Config(root=signs, resize=48))).train.shape == (3, 48, 48)


def test_gtsrb_with_broken_answers_is_a_user_error(signs: Path) -> None:
    (signs / "gtsrb" / "GT-final_test.csv").write_text("Filename;ClassId\n00000.ppm;77\n")
    with pytest.raises(UserError, match=r"cannot read .*GT-final_test.csv"):
        load(Gtsrb(Gtsrb.Config(root=signs)))


def test_a_tiny_set_goes_through_the_cache(signs: Path, tmp_path: Path) -> None:
    prepared = prepare_dataset(Gtsrb(Gtsrb.Config(root=signs)), tmp_path / "cache")
    assert prepared.has_groups
    groups = prepared.splits().groups
    assert groups is not None
    assert torch.equal(groups, torch.arange(4).repeat_interleave(3))
