"""The collector of garbage rests while lasting objects are made, and passes over what a process keeps."""

from __future__ import annotations

import gc
import subprocess
import sys
from contextlib import suppress

from gatecrash.process.lasting import nothing_collected

KEPT = """
import gc, weakref
from gatecrash.process.lasting import keep_all_of_now

class Node: ...

def circle():
    node = Node()
    node.itself = node
    return weakref.ref(node)

before = circle()
keep_all_of_now()
after = circle()
assert before() is None and gc.get_freeze_count() > 1000 and len(gc.get_objects()) < 1000
gc.collect()
assert after() is None
"""


def test_the_collector_rests_inside_and_goes_on_afterwards_also_after_an_error() -> None:
    with suppress(ImportError), nothing_collected():
        assert not gc.isenabled()
        raise ImportError
    assert gc.isenabled()


def test_a_collector_that_was_off_stays_off() -> None:
    with nothing_collected():
        with nothing_collected():
            pass
        assert not gc.isenabled()


def test_what_a_process_keeps_is_passed_over_and_later_garbage_is_still_freed() -> None:
    subprocess.run([sys.executable, "-c", KEPT], check=True)
