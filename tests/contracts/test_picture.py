"""Image files of unknown origin: what is read, upright and with its transparency, and what is refused in one line."""

from __future__ import annotations

import os
import struct
import subprocess
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gatecrash import UserError, open_image
from gatecrash.contracts.config import file_hash
from gatecrash.contracts.picture import MAX_PIXELS


def refused(path: Path) -> str:
    """The one line with which the file is refused, without what every such line has."""
    with pytest.raises(UserError) as caught:
        open_image(path)
    message, start, end = str(caught.value), f"cannot decode the image {path}: ", "; repair or replace it"
    assert message.startswith(start)
    assert message.endswith(end)
    assert "\n" not in message
    return message[len(start) : -len(end)]


def png(width: int, height: int, depth: int, colour: int, rows: bytes) -> bytes:
    """A PNG file; `colour` is 0 for grey, 2 for RGB, 4 and 6 with alpha."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def deep_tiff(width: int, height: int) -> bytes:
    """RGB of 16 bits per channel, uncompressed: header, directory of 10 entries, depths, pixels."""
    after = 8 + 2 + 10 * 12 + 4
    entries = [
        (256, 3, 1, width),
        (257, 3, 1, height),
        (258, 3, 3, after),
        (259, 3, 1, 1),
        (262, 3, 1, 2),
        (273, 4, 1, after + 6),
        (277, 3, 1, 3),
        (278, 3, 1, height),
        (279, 4, 1, width * height * 6),
        (284, 3, 1, 1),
    ]
    directory = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return (
        struct.pack("<2sHIH", b"II", 42, 8, len(entries))
        + directory
        + bytes(4)
        + struct.pack("<3H", 16, 16, 16)
        + bytes(width * height * 6)
    )


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "CMYK"])
def test_images_without_transparency_keep_their_mode(tmp_path: Path, mode: str) -> None:
    path = tmp_path / f"image.{'jpg' if mode == 'CMYK' else 'png'}"
    Image.new(mode, (3, 2)).save(path)
    image = open_image(path)
    assert (image.mode, image.size) == (mode, (3, 2))


@pytest.mark.parametrize(("mode", "transparency"), [("LA", None), ("RGBA", None), ("L", 0), ("RGB", (0, 0, 0)), ("P", 0), ("1", 0)])
def test_transparency_of_every_kind_becomes_alpha(tmp_path: Path, mode: str, transparency: int | tuple[int, int, int] | None) -> None:
    path = tmp_path / "image.png"
    Image.new(mode, (3, 2)).save(path, **({} if transparency is None else {"transparency": transparency}))
    image = open_image(path)
    assert image.mode == "RGBA"
    assert image.getchannel("A").getextrema() == (0, 0)


@pytest.mark.parametrize("suffix", ["png", "webp", "gif"])
def test_an_unused_alpha_channel_changes_no_pixel(tmp_path: Path, suffix: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (9, 7, 3), dtype=np.uint8)
    plain, other = tmp_path / f"plain.{suffix}", tmp_path / f"alpha.{suffix}"
    options = {"lossless": True} if suffix == "webp" else {}
    image = Image.fromarray(pixels) if suffix != "gif" else Image.fromarray(pixels).quantize(20)
    image.save(plain, **options)
    image.convert("RGBA").save(other, **options)
    for mode in ("RGB", "L"):
        assert open_image(other).convert(mode).tobytes() == Image.open(plain).convert(mode).tobytes()


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_is_undone(tmp_path: Path, suffix: str, orientation: int) -> None:
    upright = np.zeros((16, 32, 3), np.uint8)
    upright[:8, :8] = 255  # white at the top left
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.swapaxes(0, 1),
        6: np.rot90(upright),
        7: np.rot90(upright, 2).swapaxes(0, 1),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"image.{suffix}"
    Image.fromarray(np.ascontiguousarray(stored)).save(path, exif=exif, **({"lossless": True} if suffix == "webp" else {}))
    np.testing.assert_allclose(np.asarray(open_image(path).convert("RGB")).astype(int), upright, atol=8)


def test_damaged_exif_data_leave_the_picture_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "image.jpg"
    Image.new("RGB", (3, 2)).save(path, exif=b"Exif\0\0XX\0*\0\0\0\x08nonsense")
    assert open_image(path).size == (3, 2)


@pytest.mark.parametrize(("colour", "channels"), [(0, 1), (2, 3), (4, 2), (6, 4)])
def test_sixteen_bits_are_refused_instead_of_black(tmp_path: Path, colour: int, channels: int) -> None:
    """Of values of 12 bits in 16, as cameras give, the upper eight bits are 0 to 15."""
    path = tmp_path / "deep.png"
    rows = np.full((2, 3 * channels), 4095, ">u2")
    path.write_bytes(png(3, 2, 16, colour, b"".join(b"\0" + row.tobytes() for row in rows)))
    assert refused(path) == "it has 16 bits per channel instead of 8"


def test_deep_images_of_other_formats_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "image.tif"
    path.write_bytes(deep_tiff(3, 2))
    assert Image.open(path).mode == "RGB"
    assert refused(path) == "it has 16 bits per channel instead of 8"
    for mode, depth in (("I;16", 16), ("I", 32), ("F", 32)):
        Image.new(mode, (3, 2)).save(path)
        assert refused(path) == f"it has {depth} bits per channel instead of 8"
    for magic, channels in (("P5", 1), ("P6", 3)):
        path.write_bytes(f"{magic} 3 2 65535\n".encode() + bytes(3 * 2 * 2 * channels))
        assert refused(path) == "it has 16 bits per channel instead of 8"


def test_pixels_of_sixteen_bits_are_no_channels_of_sixteen(tmp_path: Path) -> None:
    path = tmp_path / "image.bmp"
    header = struct.pack("<2sIHHI", b"BM", 54 + 8, 0, 0, 54) + struct.pack("<IiiHHIIiiII", 40, 2, 2, 1, 16, 0, 8, 0, 0, 0, 0)
    path.write_bytes(header + b"\xff\x7f" * 4)
    assert open_image(path).convert("RGB").getpixel((0, 0)) == (255, 255, 255)


def test_declared_maxima_below_sixteen_bits_are_scaled(tmp_path: Path) -> None:
    path = tmp_path / "image.ppm"
    path.write_bytes(b"P6 1 1 4095\n" + struct.pack(">3H", 4095, 2048, 0))
    assert open_image(path).getpixel((0, 0)) == (255, 128, 0)


def test_postscript_starts_no_other_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "image.png"
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n%%EOF\n")
    assert Image.open(path).format == "EPS"
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: pytest.fail("a program was started"))
    assert refused(path) == "its content is not JPEG, PNG, BMP, GIF, WebP, TIFF or PPM"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
@pytest.mark.timeout(10)
def test_pipes_devices_and_folders_are_refused_at_once(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.png"
    os.mkfifo(pipe)
    for path in (pipe, Path("/dev/zero"), tmp_path):
        assert refused(path) == "it is not a regular file"
        with pytest.raises(UserError, match="not a regular file"):
            file_hash(path)


@pytest.mark.parametrize("side", [7072, 12_000, 40_000])
@pytest.mark.filterwarnings("error")
def test_too_many_pixels_are_refused_before_they_are_decoded(tmp_path: Path, side: int) -> None:
    assert side**2 > MAX_PIXELS
    path = tmp_path / "bomb.png"
    path.write_bytes(png(side, side, 8, 0, b""))  # decoding would fail for want of pixels
    assert "pixels" in refused(path)


def test_a_picture_within_the_limit_is_read(tmp_path: Path) -> None:
    path = tmp_path / "large.png"
    Image.new("1", (7071, 7071)).save(path)
    assert open_image(path).size == (7071, 7071)


def test_missing_and_damaged_files_are_named(tmp_path: Path) -> None:
    assert refused(tmp_path / "missing.png") == "No such file or directory"
    path = tmp_path / "image.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 20, 3), dtype=np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:200])
    assert "truncated" in refused(path)
    path.write_bytes(b"\x89PNG no image")
    assert refused(path) == "its content is not JPEG, PNG, BMP, GIF, WebP, TIFF or PPM"
