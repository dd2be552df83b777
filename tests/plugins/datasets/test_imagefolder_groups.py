"""Groups of near-duplicates: by file name or from a table, kept on one side of the split, given to the hold-out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from gatecrash.contracts.randomness import stream
from gatecrash.datasets.holdout import HoldoutConfig, cut
from gatecrash.datasets.preparation import prepare_dataset
from support.dataset_files import load, write_image
from support.image_folders import folder_of, refused

PATTERN = r"^(s\d+)_"


@pytest.fixture
def films(tmp_path: Path) -> Path:
    """Two classes of six films with five frames each; the value of a pixel is 30 times the class, plus the film; films s10 ... are of b."""
    root = tmp_path / "films"
    for label in (0, 1):
        for film in range(6):
            for frame in range(5):
                write_image(root / "ab"[label] / f"s{10 * label + film}_{frame}.png", 30 * label + film)
    return root


def table(path: Path, films: Path, header: str = "path,group") -> Path:
    files = sorted(films.rglob("*.png"))
    rows = [f"{file.relative_to(films).as_posix()},{file.name.split('_')[0]}" for file in files]
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return path


def films_of(part: Any) -> set[int]:
    return set(part.images[:, 0, 0, 0].tolist())


@pytest.mark.parametrize("by", ["pattern", "table"])
@pytest.mark.parametrize("seed", range(5))
def test_a_group_is_on_one_side_of_the_split(films: Path, tmp_path: Path, by: str, seed: int) -> None:
    groups = PATTERN if by == "pattern" else str(table(tmp_path / "groups.csv", films))
    splits = load(folder_of(films, groups=groups, split_seed=seed))
    assert not films_of(splits.train) & films_of(splits.test)
    assert splits.test.class_counts() == (10, 10), "two films: one has fewer images than a fifth"
    assert splits.groups is not None
    assert len(splits.groups) == len(splits.train)
    by_group = set(zip(splits.groups.tolist(), splits.train.images[:, 0, 0, 0].tolist(), strict=True))
    assert len(by_group) == len(films_of(splits.train)), "one group per film"


def test_groups_reach_the_hold_out(films: Path, tmp_path: Path) -> None:
    prepared = prepare_dataset(folder_of(films, groups=PATTERN), tmp_path / "cache")
    assert prepared.has_groups
    rest, held = cut(prepared.splits(), HoldoutConfig(per_class=3), stream("hold-out"))
    assert len(held)
    assert not films_of(rest) & films_of(held)


def test_with_a_test_folder_the_groups_are_those_of_the_training_images(films: Path, tmp_path: Path) -> None:
    root = tmp_path / "splits"
    root.mkdir()
    films.rename(root / "train")
    for label in "ab":
        write_image(root / "test" / label / "without group.png", 200)
    splits = load(folder_of(root, groups=PATTERN))
    assert splits.groups is not None
    assert splits.groups.tolist() == [film for film in range(12) for _ in range(5)]


def test_one_name_in_two_classes_is_one_group(tmp_path: Path) -> None:
    for label in "ab":
        for patient in range(10):
            for number in range(2):
                write_image(tmp_path / label / f"p{patient}_{number}.png", 10 * patient + number)
    splits = load(folder_of(tmp_path, groups=r"(p\d+)"))
    assert not {value // 10 for value in films_of(splits.train)} & {value // 10 for value in films_of(splits.test)}


def test_an_image_without_a_group_is_named(films: Path, tmp_path: Path) -> None:
    write_image(films / "a" / "other.png", 1)
    assert refused(films, groups=PATTERN) == f"groups: 1 of 61 images have no group in {PATTERN}, first {films}/a/other.png"
    path = table(tmp_path / "groups.csv", films)
    path.write_text(path.read_text(encoding="utf-8").replace("a/other.png,other.png\n", ""), encoding="utf-8")
    assert "1 of 61 images have no group" in refused(films, groups=str(path))


def test_a_class_of_one_group_cannot_be_split(films: Path) -> None:
    for number, path in enumerate(sorted((films / "a").iterdir())):
        path.rename(path.with_name(f"s0_{number}.png"))
    assert "class 'a' cannot be split into train and test" in refused(films, groups=PATTERN)


def test_a_table_that_cannot_be_used_is_named(films: Path, tmp_path: Path) -> None:
    path = tmp_path / "groups.csv"
    assert f"cannot read {path}" in refused(films, groups=str(path))
    table(path, films, header="file,group")
    assert refused(films, groups=str(path)) == f"groups: cannot read {path}: it needs columns path and group, filled in every row"
    path.write_text("path,group\na/s0_0.png,1\na/s0_0.png,2\n")
    assert "a/s0_0.png has two groups" in refused(films, groups=str(path))


def test_the_manifest_knows_the_content_of_the_table(films: Path, tmp_path: Path) -> None:
    path = table(tmp_path / "groups.csv", films)
    before = folder_of(films, groups=str(path)).manifest()
    assert folder_of(films, groups=str(path)).manifest() == before
    path.write_text(path.read_text() + "\n")
    assert folder_of(films, groups=str(path)).manifest() != before
    assert before.startswith(folder_of(films).manifest())


@pytest.mark.parametrize(("groups", "said"), [("(", "no regular expression"), (r"s\d+", "no parentheses")])
def test_a_pattern_that_cannot_name_groups_is_refused(tmp_path: Path, groups: str, said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        folder_of(tmp_path, groups=groups)
