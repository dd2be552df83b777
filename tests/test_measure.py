"""What a piece of work is charged: its own seconds and its own peak of memory."""

from __future__ import annotations

import sys
import time

import pytest
import torch

from gatecrash.measure import Meter, peak_of_this_process

BLOCK = 256 * 2**20
CPU = torch.device("cpu")


def test_seconds_are_those_of_the_block() -> None:
    with Meter(CPU) as meter:
        time.sleep(0.05)
    assert meter.seconds >= 0.05


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux forgets a process's peak")
def test_the_peak_is_that_of_the_block_not_of_what_was_before() -> None:
    with Meter(CPU) as large:
        block = bytearray(BLOCK)
        block[::4096] = b"x" * len(block[::4096])
        del block
    with Meter(CPU) as small:
        pass
    assert large.peak_mb - small.peak_mb > 200
    assert small.peak_mb == pytest.approx(peak_of_this_process(), rel=0.05)
