"""Pictures that results keep: PNG files below the folder of their store or board."""

from __future__ import annotations

from pathlib import Path

LARGEST = 500_000
"""Bytes. Larger files are neither published nor shown in a report."""
_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def picture(root: Path, path: str) -> bytes | None:
    """The PNG at `path` below `root`; None where there is none, and for a path that leads out of `root`: results come from others."""
    file = (root / path).resolve()
    try:
        if not file.is_relative_to(root.resolve()) or file.stat().st_size > LARGEST:
            return None
        content = file.read_bytes()
    except OSError:
        return None
    return content if content.startswith(_SIGNATURE) else None


def picture_source(path: Path) -> str | None:
    """The hash of results in the PNG at `path`; None where it has none, or is no PNG."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            source = image.info.get("Source")
    except (OSError, UnidentifiedImageError):
        return None
    return source if isinstance(source, str) else None
