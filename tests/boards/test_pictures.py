"""Pictures that results name are read from their folder only."""

from __future__ import annotations

from pathlib import Path

from gatecrash.boards.pictures import picture


def test_only_pictures_below_the_folder_are_read(tmp_path: Path) -> None:
    png = b"\x89PNG\r\n\x1a\n..."
    for name in ("secret.png", "store/a/mask.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(png)
    (tmp_path / "store/text.png").write_bytes(b"root:x:0:0")
    assert picture(tmp_path / "store", "a/mask.png") == png
    for path in ("../secret.png", str(tmp_path / "secret.png"), "text.png", "none.png", "a"):
        assert picture(tmp_path / "store", path) is None
