"""A folder of images with one hostile file: the dry run names the fault in one line, or reads it. It does not hang and runs no program."""

from __future__ import annotations

import os
import random
import socket
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from PIL import Image

from campaign.case import Case, fault

POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n(gatecrash-was-here) (w) file closefile\n%%EOF\n"


def _picture(path: Path, mode: str = "RGB", size: tuple[int, int] = (8, 8), form: str = "PNG", **options: object) -> None:
    noise = random.Random(os.fsencode(path.name)).randbytes(len(Image.new(mode, size).tobytes()))
    Image.frombytes(mode, size, noise).save(path, form, **options)


def _chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def _bomb(path: Path) -> None:
    """13,000 x 13,000 pixels of one colour in a few hundred kilobytes."""
    size = 13_000
    rows = zlib.compress(b"\0" * (size + 1) * size, 9)
    header = struct.pack(">IIBBBBB", size, size, 8, 0, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", rows) + _chunk(b"IEND", b""))


def _text_bomb(path: Path) -> None:
    """A picture whose comment unpacks to 200 MB."""
    _picture(path)
    content = path.read_bytes()
    comment = _chunk(b"zTXt", b"Comment\0\0" + zlib.compress(b"x" * 200_000_000, 9))
    path.write_bytes(content[:33] + comment + content[33:])


def _socket(path: Path) -> None:
    before = Path.cwd()
    os.chdir(path.parent)  # sockets have short paths
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path.name)
    finally:
        os.chdir(before)


def _part(path: Path) -> None:
    _picture(path)
    path.write_bytes(path.read_bytes()[:60])


def _wrong_sum(path: Path) -> None:
    _picture(path)
    content = bytearray(path.read_bytes())
    content[50] ^= 255
    path.write_bytes(content)


def _frames(path: Path) -> None:
    Image.new("P", (8, 8)).save(path, "GIF", save_all=True, append_images=[Image.new("P", (8, 8), 1)] * 50)


HOSTILE: dict[str, tuple[str, Callable[[Path], object]]] = {
    "PostScript": ("x.png", lambda path: path.write_bytes(POSTSCRIPT)),
    "EPS": ("x.eps", lambda path: path.write_bytes(POSTSCRIPT)),
    "a pipe": ("x.png", os.mkfifo),
    "a socket": ("x.png", _socket),
    "an endless device": ("x.png", lambda path: path.symlink_to("/dev/zero")),
    "a link to itself": ("x.png", lambda path: path.symlink_to(path)),
    "a link to nothing": ("x.png", lambda path: path.symlink_to(path.with_name("nothing"))),
    "a folder": ("x.png", Path.mkdir),
    "169 million pixels": ("x.png", _bomb),
    "a comment of 200 MB": ("x.png", _text_bomb),
    "half a picture": ("x.png", _part),
    "a wrong checksum": ("x.png", _wrong_sum),
    "nothing": ("x.png", lambda path: path.write_bytes(b"")),
    "noise": ("x.jpg", lambda path: path.write_bytes(random.Random(0).randbytes(5000))),
    "text": ("x.jpg", lambda path: path.write_text("not a picture")),
    "SVG": ("x.png", lambda path: path.write_text("<svg xmlns='http://www.w3.org/2000/svg'><image href='file:///etc/passwd'/></svg>")),
    "frames": ("x.gif", _frames),
    "sixteen bits": ("x.png", lambda path: Image.new("I;16", (8, 8), 4000).save(path)),
    "four inks": ("x.jpg", lambda path: _picture(path, "CMYK", form="JPEG")),
    "a name that is not UTF-8": ("x\udcff.png", _picture),
    "a name of two lines": ("x\n\x1b[31my.png", _picture),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_one_hostile_file_is_one_line_or_an_image(tmp_path: Path, kind: str) -> None:
    root, home, store = (tmp_path / name for name in ("images", "home", "store"))
    home.mkdir()
    for number in range(48):
        folder = root / ("train" if number < 32 else "test") / ("a" if number % 2 else "b")
        folder.mkdir(parents=True, exist_ok=True)
        _picture(folder / f"{number}.png")
    name, make = HOSTILE[kind]
    make(root / "train" / "a" / name)
    grid = {"name": "own", "dataset": {"imagefolder": {"root": str(root)}}, "model": "small-cnn", "attacks": ["none"], "defenses": ["none"]}
    arguments = ("run", "{home}/grid.yaml", "--dry-run", "--store", "{store}")
    assert fault(Case(arguments, yaml.safe_dump(grid)), {"home": home, "store": store}) is None
    assert not (home / "gatecrash-was-here").exists()
