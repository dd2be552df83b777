"""Image files of unknown origin, opened as a viewer shows them, or refused in one line."""

from __future__ import annotations

import os
import re
import stat
import threading
import warnings
from pathlib import Path

from PIL import Image, ImageOps, UnidentifiedImageError

from gatecrash.errors import UserError

FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF", "PPM")
"""What is opened, whatever the file is called. Pillow knows more, among them PostScript, for which it starts another program."""
MAX_PIXELS = 50_000_000
"""Pixels that one image may have: 150 MB when decoded as RGB."""

_warnings = threading.Lock()


def open_image(path: Path) -> Image.Image:
    """The first frame of an image file, upright as its EXIF orientation says, with 8 bits per channel.

    Its mode is RGBA where the file has transparency (be it unused), else the file's own. JPEG, PNG, BMP, GIF, WebP, TIFF and PPM are
    read. Raises UserError naming a file that is missing, is no regular file, has another format, more than 8 bits per channel (in which
    12-bit values would come out black) or more than 50 million pixels, or is damaged.
    """
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise ValueError("it is not a regular file")
        with _header(path) as file:
            pixels = file.width * file.height
            if pixels > MAX_PIXELS:
                raise ValueError(f"it has {pixels:,} pixels, more than the limit of {MAX_PIXELS:,}")
            if depth := _depth(file):
                raise ValueError(f"it has {depth} bits per channel instead of 8")
            image = _upright(file)
            if "transparency" in image.info or "A" in image.getbands():
                return image.convert("RGBA")
            image.load()
            return image
    except Exception as error:  # Pillow raises errors of many types for broken files
        if isinstance(error, UnidentifiedImageError):
            reason = "its content is not JPEG, PNG, BMP, GIF, WebP, TIFF or PPM"
        else:
            reason = (isinstance(error, OSError) and error.strerror) or " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"cannot decode the image {path}: {reason}; repair or replace it") from None


def _header(path: Path) -> Image.Image:
    """The opened file, of which only the header is read."""
    # Pillow warns of many pixels in lines of its own, before the size is known here; filters of warnings are shared by threads.
    with _warnings, warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        return Image.open(path, formats=FORMATS)


def _depth(file: Image.Image) -> int:
    """Bits per channel as stored, where they are more than 8, else 0; known until the pixels are decoded.

    Pillow opens colour of 16 bits as mode RGB: only the name of the stored layout (`RGB;16B`) tells. `BGR;16` is a pixel of 16 bits.
    A PPM file declares its largest value, by which Pillow scales; only the largest possible one leaves open which values are used.
    """
    stored = [str(part) for tile in getattr(file, "tile", []) for part in (tile[3] if isinstance(tile[3], tuple) else (tile[3],))]
    for part in stored:
        found = re.search(r"(?<!BGR);(16|32|64)", part)
        if found:
            return int(found[1])
    if file.mode.startswith(("I", "F")) or (file.format == "PPM" and "65535" in stored):
        return 16 if file.format == "PPM" else 32
    return 0


def is_turned(path: Path) -> bool:
    """Whether EXIF data say that the image of a file that `open_image` reads is stored turned or mirrored."""
    with _header(path) as file:
        return _orientation(file) in range(2, 9)


def _upright(file: Image.Image) -> Image.Image:
    return ImageOps.exif_transpose(file) if _orientation(file) in range(2, 9) else file


def _orientation(file: Image.Image) -> int:
    try:
        return int(file.getexif().get(0x0112, 1))
    except Exception:  # damaged EXIF data: viewers show the picture as it is stored
        return 1
