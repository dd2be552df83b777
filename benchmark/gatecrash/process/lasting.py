"""Python's collector of garbage, told what stays.

Importing torch makes some 200,000 objects that live as long as the process. The collector looks at them again and again: a fifth of the
import's time, and 0.1 s at every full collection afterwards.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def nothing_collected() -> Iterator[None]:
    """The collector rests inside: for imports, whose objects stay."""
    on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if on:
            gc.enable()


def keep_all_of_now() -> None:
    """What this process holds now is never looked at again. For processes that have their imports and are about to work: what of it turns
    out as garbage is not freed."""
    gc.collect()
    gc.freeze()
