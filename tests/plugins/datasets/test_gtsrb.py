"""GTSRB, on a few signs in its published layout."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
import torchvision
from PIL import Image

from gatecrash import UserError
from gatecrash.datasets.preparation import prepare_dataset
from gatecrash_plugins.datasets.gtsrb import FINAL_TRAINING, FINAL_TRAINING_MD5, Gtsrb
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


def test_the_final_training_set_gives_the_same_images_from_its_own_layout(signs: Path, tmp_path: Path) -> None:
    usual = prepare_dataset(Gtsrb(Gtsrb.Config(root=signs)), tmp_path / "cache")
    (signs / "gtsrb" / "GTSRB" / "Final_Training").mkdir()
    (signs / "gtsrb" / "GTSRB" / "Training").rename(signs / "gtsrb" / "GTSRB" / "Final_Training" / "Images")
    with pytest.raises(UserError, match=r"GTSRB/Training/\*/\*\.ppm is not there"):
        Gtsrb(Gtsrb.Config(root=signs)).manifest()
    final = prepare_dataset(Gtsrb(Gtsrb.Config(root=signs, training="final")), tmp_path / "cache")
    assert final.fingerprint == usual.fingerprint


def test_what_is_resized_beforehand_is_the_same_set(signs: Path, tmp_path: Path) -> None:
    """Whoever has the images at 32 pixels has the set of whoever has the originals."""
    originals = Gtsrb(Gtsrb.Config(root=signs))
    splits = load(originals)
    small = tmp_path / "small"
    for path, image in zip(sorted((signs / "gtsrb" / "GTSRB" / "Training").glob("*/*.ppm")), splits.train.images, strict=True):
        written(small / path.relative_to(signs), image)
    for path, image in zip(sorted((signs / "gtsrb" / "GTSRB" / "Final_Test" / "Images").glob("*.ppm")), splits.test.images, strict=True):
        written(small / path.relative_to(signs), image)
    shutil.copy(signs / "gtsrb" / "GT-final_test.csv", small / "gtsrb")
    shrunk = prepare_dataset(Gtsrb(Gtsrb.Config(root=small)), tmp_path / "cache")
    assert shrunk.fingerprint == prepare_dataset(originals, tmp_path / "cache").fingerprint


def written(path: Path, image: torch.Tensor) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image.permute(1, 2, 0).numpy()).save(path)


def test_the_final_set_is_downloaded_from_the_benchmark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fetched: list[object] = []
    monkeypatch.setattr(torchvision.datasets.utils, "download_and_extract_archive", lambda *what, **how: fetched.append((what, how)))
    monkeypatch.setattr(torchvision.datasets, "GTSRB", lambda *what, split, **how: fetched.append(split))
    Gtsrb(Gtsrb.Config(root=tmp_path, training="final")).download()
    Gtsrb(Gtsrb.Config(root=tmp_path)).download()
    assert fetched == [((FINAL_TRAINING, str(tmp_path / "gtsrb")), {"md5": FINAL_TRAINING_MD5}), "test", "train", "test"]


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
