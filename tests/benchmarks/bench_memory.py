"""Peak memory of a whole run: decoding into the cache, poisoning, one epoch, evaluation (`make bench`; a plain pytest run skips it).

The images are made: only their number and size matter. A run is a process of its own, watched from outside. Two figures count: what it has
in memory at most (`resident`, with bytes of files, which the kernel drops where memory is short), and what cannot be dropped (`own`).
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

ALLOWED = 1.3, 1500
"""Resident megabytes at most: so many times the training images' bytes, and so many beside these (the interpreter, torch, activations)."""

SIZES = [(50_000, 32), (200_000, 32), (1_000_000, 32), (100_000, 64)]

DATASET = '''
import tempfile

from pydantic import Field

import gatecrash


class MadeImages(gatecrash.Dataset):
    """Noise, as bright as the number of its class."""

    name = "made-images"
    summary = "made images, of any number and size"

    class Config(gatecrash.DatasetConfig):
        images: int = Field(1000, description="training images")
        side: int = Field(32, description="height and width")

    config: Config

    def manifest(self):
        return "made"

    def load(self, progress):
        import torch

        generator = torch.Generator().manual_seed(0)
        classes = tuple("0123456789")

        def made(count):
            shape = (count, 3, self.config.side, self.config.side)
            with tempfile.NamedTemporaryFile() as file:
                size = count * 3 * self.config.side**2
                images = torch.from_file(file.name, shared=True, size=size, dtype=torch.uint8).view(shape)
            labels = torch.arange(count) % 10
            noise = torch.randint(0, 256, (1000, *shape[1:]), generator=generator, dtype=torch.uint8) // 4
            for start in range(0, count, 1000):
                part = noise.roll(start // 1000, 3)[: count - start]
                images[start : start + 1000] = part + 18 * labels[start : start + 1000, None, None, None].to(torch.uint8)
            return gatecrash.ImageSet(images, labels, classes)

        return gatecrash.Splits(made(self.config.images), made(10_000))


@gatecrash.hookimpl
def register_datasets(register):
    register(MadeImages)
'''

MODEL = """
import gatecrash
from gatecrash_plugins.models.small_cnn import SmallCnn


class LargerSmallCnn(SmallCnn):
    name = "larger-small-cnn"
    summary = "small-cnn that takes 64 pixels"
    max_size = 64


@gatecrash.hookimpl
def register_models(register):
    register(LargerSmallCnn)
"""

GRID = """
name: memory
dataset: {{made-images: {{images: {images}, side: {side}}}}}
model: {model}
recipe: {{epochs: 1, crop: 4, precision: float32}}
seeds: [0]
attacks: [badnets]
defenses: [none]
"""


def megabytes(process: subprocess.Popen[str], *fields: str) -> list[float]:
    """What the kernel says of the process under these names of `/proc/PID/status`."""
    lines = dict(line.split(":", 1) for line in Path(f"/proc/{process.pid}/status").read_text().splitlines())
    return [int(lines[field].split()[0]) * 1024 / 1e6 if field in lines else 0.0 for field in fields]


def peaks(command: list[str], environment: dict[str, str], log: Path) -> tuple[float, float]:
    """The most megabytes that the command had resident, and the most of its own."""
    resident = own = 0.0
    with log.open("w") as output, subprocess.Popen(command, env=environment, stdout=output, stderr=output, text=True) as process:
        while process.poll() is None:
            top, anonymous, shared = megabytes(process, "VmHWM", "RssAnon", "RssShmem")
            resident, own = max(resident, top), max(own, anonymous + shared)
            time.sleep(0.05)
    assert process.returncode == 0, log.read_text()
    return resident, own


@pytest.fixture(scope="module", autouse=True)
def _columns() -> None:
    print(f"\n{'images':>9} {'side':>4} {'MB':>8} {'resident':>10} {'own':>8} {'allowed':>9}", end="")


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peaks are read from Linux's /proc")
@pytest.mark.parametrize(("images", "side"), SIZES)
def test_a_run_on_many_images(images: int, side: int, tmp_path: Path) -> None:
    plugins, grid = tmp_path / "plugins", tmp_path / "grid.yaml"
    plugins.mkdir()
    (plugins / "made_images.py").write_text(DATASET)
    (plugins / "larger_small_cnn.py").write_text(MODEL)
    grid.write_text(GRID.format(images=images, side=side, model="small-cnn" if side <= 32 else "larger-small-cnn"))
    environment = os.environ | {"GATECRASH_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "gatecrash", "run", str(grid), "--executor", "serial"]
    command += ["--plugins", str(plugins), "--store", str(tmp_path / "store")]
    size = images * 3 * side**2 / 1e6
    allowed = ALLOWED[0] * size + ALLOWED[1]
    resident, own = peaks(command, environment, tmp_path / "log")
    print(f"\n{images:>9,} {side:>4} {size:>8,.0f} {resident:>10,.0f} {own:>8,.0f} {allowed:>9,.0f}", end="", flush=True)
    assert resident <= allowed
