"""What a piece of work is charged: its own seconds and its own peak of memory."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest
import torch

from gatecrash.process.measuring import Meter

CPU = torch.device("cpu")
PROGRAM = """
import torch
from gatecrash.process.measuring import Meter, peak_of_this_process
with Meter(torch.device("cpu")) as large:
    block = b"x" * 2**28
    del block
with Meter(torch.device("cpu")) as small:
    pass
print(large.peak_mb, small.peak_mb, peak_of_this_process())
"""


def test_seconds_are_those_of_the_block() -> None:
    with Meter(CPU) as meter:
        time.sleep(0.05)
    assert meter.seconds >= 0.05


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux forgets a process's peak")
def test_the_peak_is_that_of_the_block_not_of_what_was_before() -> None:
    # In a process of its own: this one may keep memory that earlier tests have freed.
    told = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    large, small, now = map(float, told.stdout.split())
    assert large - small > 200
    assert small == pytest.approx(now, rel=0.05)
