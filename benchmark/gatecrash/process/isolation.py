"""Process-wide settings, reset around every task: a plugin that leaves them changed cannot change another cell's numbers.

What cannot be reset like this (patched functions, threads that go on, memory that is never given back) takes a process of its own, which
Ray gives to plugins from `--plugins`, and to all of them under `--isolate`.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch

from gatecrash.process.settings import ProcessSetting, process_settings, surroundings


@contextmanager
def fresh_process_state(threads: int) -> Iterator[None]:
    """Everything in `process_settings` at its start value, with `threads` CPU threads; afterwards all of it is as it was before.

    Environment, working directory, import path and warning filters are not reset for the task, but are as before afterwards, too.
    """
    every = process_settings(threads)
    with ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        stack.callback(_write, [(setting, setting.read()) for setting in (*surroundings(), *every)])
        stack.enter_context(torch.inference_mode(False))  # turns gradients on and off, hence before the settings are written
        _write((setting, setting.start) for setting in every)
        yield


def _write(values: Iterable[tuple[ProcessSetting, Any]]) -> None:
    for setting, value in values:
        setting.write(value)
