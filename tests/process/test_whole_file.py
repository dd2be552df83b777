"""A file that is replaced is the old one or the new one, never a part."""

from __future__ import annotations

from pathlib import Path

import pytest

from gatecrash.process.whole_file import replacing


def test_a_file_takes_the_others_place_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "made" / "on the way" / "x.json"
    for text in ("old", "new"):
        with replacing(path) as temporary:
            temporary.write_text(text)
    assert [file.read_text() for file in path.parent.iterdir()] == ["new"]


def test_what_fails_halfway_leaves_the_old_file_and_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text("old")

    def fail() -> None:
        with replacing(path) as temporary:
            temporary.write_text("ne")
            raise OSError("the disk is full")

    with pytest.raises(OSError, match="full"):
        fail()
    assert [file.read_text() for file in tmp_path.iterdir()] == ["old"]
