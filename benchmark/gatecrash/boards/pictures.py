"""Pictures that results keep: PNG files below the folder of their store or board."""

from __future__ import annotations

from pathlib import Path

LARGEST = 500_000
"""Bytes. What is larger is no small figure of a cell, and is neither published nor shown in a report."""
_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def picture(root: Path, path: str) -> bytes | None:
    """The PNG at `path` below `root`; None where there is none: a result may name files that are gone, or that are none of its own."""
    file = (root / path).resolve()
    try:
        if not file.is_relative_to(root.resolve()) or file.stat().st_size > LARGEST:
            return None
        content = file.read_bytes()
    except OSError:
        return None
    return content if content.startswith(_SIGNATURE) else None


def picture_source(path: Path) -> str | None:
    """What the PNG at `path` says it was made from; None where it says nothing or is none."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            source = image.info.get("Source")
    except (OSError, UnidentifiedImageError):
        return None
    return source if isinstance(source, str) else None
