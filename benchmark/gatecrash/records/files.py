"""Files of the store and for people: written whole or not at all, under names that every file system takes."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from gatecrash.process.whole_file import replacing

if TYPE_CHECKING:
    from torch import Tensor

LONGEST_NAME = 80
"""Characters of a picture's name that its file keeps."""


def file_name(name: str, suffix: str) -> str:
    """A name that someone else chose as the name of a file in one folder: safe characters, not long, another file for another name."""
    safe = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip(".-")[:LONGEST_NAME]
    if safe != name or name.lower() != name:  # names may differ in what was lost, or only in case, which some file systems ignore
        safe = f"{safe}-{hashlib.sha256(name.encode(errors='surrogatepass')).hexdigest()[:8]}".lstrip("-")
    return safe + suffix


def png(image: Tensor) -> bytes:
    from PIL import Image

    pixels = image[0] if len(image) == 1 else image.permute(1, 2, 0)
    buffer = io.BytesIO()
    Image.fromarray(pixels.cpu().contiguous().numpy()).save(buffer, "PNG")
    return buffer.getvalue()


def write(path: Path, content: bytes) -> None:
    """Whole or not at all, in a folder that is made if need be. Raises OSError."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def write_named(path: Path, content: bytes | str) -> None:
    """`write`, to a file that a person named: in a folder that exists; what a link leads to; a device or a pipe as it is.

    Text is UTF-8; lone surrogates (names of files that were not) are written as `\\udc80`. Raises OSError.
    """
    content = content.encode(errors="backslashreplace") if isinstance(content, str) else content
    path = path.resolve()
    if path.exists() and not path.is_file():
        path.write_bytes(content)
        return
    if not path.parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
    mode = path.stat().st_mode if path.exists() else None
    write(path, content)
    if mode is not None:
        path.chmod(mode)
