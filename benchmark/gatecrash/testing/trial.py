"""Runs of one plugin that its checks share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import cached_property
from typing import Generic, TypeVar

from gatecrash.testing.check import CheckFailed
from gatecrash.testing.setting import CheckSetup, setting

Run = TypeVar("Run")
"""What one run left behind."""


class Trial(ABC, Generic[Run]):
    """One plugin, and what came of running it twice: each run is made once, whether it succeeds or fails."""

    def __init__(self) -> None:
        self.setting: CheckSetup = setting()

    @abstractmethod
    def make(self, number: int) -> Run:
        """Run the plugin, with global random generators in a state given by `number`. Raises CheckFailed."""

    @cached_property
    def first(self) -> Run | CheckFailed:
        return self._attempt(1)

    @cached_property
    def second(self) -> Run | CheckFailed:
        return self._attempt(2)

    @property
    def work(self) -> Run:
        """The first run; raises what went wrong in it."""
        return or_raise(self.first)

    def _attempt(self, number: int) -> Run | CheckFailed:
        try:
            return self.make(number)
        except CheckFailed as failure:
            return failure


def or_raise(work: Run | CheckFailed) -> Run:
    """The run, or what went wrong in it as an exception."""
    if isinstance(work, CheckFailed):
        raise CheckFailed(work.expected, work.got, work.mend) from work
    return work
