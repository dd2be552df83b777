"""Named random streams: every draw belongs to a purpose and to the inputs that may change it, and to nothing else.

A stream is a function of its name and inputs only, so results depend neither on the order of work nor on what else runs. Draws are made
on the CPU, whatever the device, so that a GPU poisons the same rows as a laptop.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def seed_of(purpose: str, *inputs: object) -> int:
    """A 63-bit seed for the stream `purpose` with these JSON-able inputs."""
    text = json.dumps([purpose, *inputs], sort_keys=True, separators=(",", ":"))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def stream(purpose: str, *inputs: object) -> torch.Generator:
    """A fresh CPU generator for the stream; the same arguments always give the same draws."""
    import torch

    return torch.Generator().manual_seed(seed_of(purpose, *inputs))


class Streams:
    """The streams of one actor (an attack or a defense in one run), all sharing the actor's inputs.

    Calling it twice with one name gives two generators in the same state, so draws that must differ need different names:

        chosen = torch.randperm(len(data), generator=ctx.stream("rows"))[:count]
        noise = torch.rand(data.shape, generator=ctx.stream("noise"))
    """

    def __init__(self, *inputs: object) -> None:
        self._inputs = inputs

    def __call__(self, name: str) -> torch.Generator:
        return stream(name, *self._inputs)

    def seed(self, name: str, bits: int = 32) -> int:
        """A seed for libraries that want an integer (scikit-learn, NumPy)."""
        return seed_of(name, *self._inputs) % (1 << bits)

    def within(self, *inputs: object) -> Streams:
        """Streams of a part of the actor's work, which these further inputs tell from its other parts."""
        return Streams(*self._inputs, *inputs)
