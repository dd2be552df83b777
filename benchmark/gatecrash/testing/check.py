"""A check: one promise of a contract, tried on one plugin."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from gatecrash.errors import one_line


class CheckFailed(AssertionError):
    """A plugin breaks a promise: what was expected, what came instead, how to mend it. Each is part of one sentence."""

    def __init__(self, expected: str, got: str, mend: str) -> None:
        super().__init__(f"expected {expected}; got {got}. To mend it: {mend}")
        self.expected, self.got, self.mend = expected, got, mend


def always(_plugin: Any) -> bool:
    """The default of `Check.applies`."""
    return True


@dataclass(frozen=True)
class Check:
    """A named promise. Call it with a configured plugin: it raises CheckFailed, or returns a note worth reading (or "")."""

    function: Callable[[Any], str | None]
    applies: Callable[[Any], bool] = always
    """Whether the promise is one that this plugin makes."""

    @property
    def name(self) -> str:
        return self.function.__name__.replace("_", "-")

    @property
    def summary(self) -> str:
        """What is promised, in one line."""
        return (self.function.__doc__ or "").strip().partition("\n")[0]

    def __call__(self, plugin: Any) -> str:
        with finishing(f"the check {self.name}", "see to the other failures first, then read the traceback"):
            return self.function(plugin) or ""

    def __repr__(self) -> str:
        return self.name


def require(holds: bool, expected: str, got: str, mend: str) -> None:
    """Raise CheckFailed unless the promise holds."""
    if not holds:
        raise CheckFailed(expected, got, mend)


@contextmanager
def finishing(what: str, mend: str) -> Iterator[None]:
    """An exception in the block is a failed check; its traceback stays attached."""
    try:
        yield
    except CheckFailed:
        raise
    except Exception as error:
        text = one_line(error)
        kind = type(error).__name__
        raise CheckFailed(f"{what} to finish", text if text.startswith(kind) else f"{kind}: {text}", mend) from error
