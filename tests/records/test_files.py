"""A file that a person names is whole or as it was."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from gatecrash.records.files import write_named


def test_a_file_stays_as_it_was_where_the_new_one_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "report.html"
    write_named(path, "old")

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space left"):
        write_named(path, "new")
    assert [(one.name, one.read_text(encoding="utf-8")) for one in tmp_path.iterdir()] == [("report.html", "old")]


def test_names_that_are_not_utf8_are_written_readably(tmp_path: Path) -> None:
    write_named(tmp_path / "x", b"caf\xe9".decode("utf-8", "surrogateescape"))
    assert (tmp_path / "x").read_text(encoding="utf-8") == "caf\\udce9"


def test_links_modes_and_devices_stay_what_they_are(tmp_path: Path) -> None:
    (tmp_path / "real").write_text("old", encoding="utf-8")
    (tmp_path / "real").chmod(0o600)
    (tmp_path / "link").symlink_to("real")
    write_named(tmp_path / "link", b"new")
    assert (tmp_path / "link").is_symlink()
    assert ((tmp_path / "real").read_bytes(), (tmp_path / "real").stat().st_mode & 0o777) == (b"new", 0o600)
    os.mkfifo(tmp_path / "pipe")
    got: list[bytes] = []
    reader = threading.Thread(target=lambda: got.append((tmp_path / "pipe").read_bytes()))
    reader.start()
    write_named(tmp_path / "pipe", "told")
    reader.join(10)
    assert (got, (tmp_path / "pipe").is_fifo()) == ([b"told"], True)


def test_no_folder_is_made_on_the_way(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        write_named(tmp_path / "nowhere" / "x", "")
