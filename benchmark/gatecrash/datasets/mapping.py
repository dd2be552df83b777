"""The tensors of a safetensors file: images mapped, so that they come into memory as they are read, all else read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors import safe_open

from gatecrash.process.mapped import mapped_file

if TYPE_CHECKING:
    from torch import Tensor

_LENGTH = 8
"""Bytes of the number in front of the header, its length; offsets count from the header's end."""


def mapped_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors by name; those of uint8 are originals (`process.mapped`). Raises OSError, or SafetensorError for a damaged file."""
    tensors = {}
    with safe_open(path, framework="pt") as content, path.open("rb") as file:  # which checks the header, and that all bytes are there
        start = _LENGTH + int.from_bytes(file.read(_LENGTH), "little")
        header = json.loads(file.read(start - _LENGTH))
        for name in content.keys():  # noqa: SIM118 - no dict
            said = header[name]
            if said["dtype"] == "U8":
                tensors[name] = mapped_file(path, start + said["data_offsets"][0], tuple(said["shape"]))
            else:
                tensors[name] = content.get_tensor(name).clone()
    return tensors
