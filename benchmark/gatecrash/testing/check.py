"""A check: one promise of a contract, tried on one plugin."""

from __future__ import annotations

import unittest
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

from gatecrash.errors import NotApplicable, one_line
from gatecrash.testing.limits import SECONDS, TimeUp, captured, time_limit

Status = Literal["ok", "FAILED", "declared", "n/a"]
"""How a check ended: the promise holds; it does not; it does not, as the plugin declares; the plugin does not apply here."""


class CheckFailed(AssertionError):
    """A plugin breaks a promise: what was expected, what came instead, how to mend it. Each is part of one sentence."""

    def __init__(self, expected: str, got: str, mend: str) -> None:
        super().__init__(f"expected {expected}; got {got}. To mend it: {mend}")
        self.expected, self.got, self.mend = expected, got, mend

    def again(self) -> CheckFailed:
        """The same failure, to be raised a second time."""
        return CheckFailed(self.expected, self.got, self.mend)


class CheckNotApplicable(unittest.SkipTest):
    """The plugin raised NotApplicable for what the check tries it on; pytest shows the test as skipped."""


@dataclass(frozen=True)
class Finding:
    """What came of a check."""

    status: Status
    text: str = ""
    """A note worth reading, or the message of a failure."""
    printed: tuple[str, ...] = ()
    """The last lines that the plugin printed meanwhile."""
    failure: CheckFailed | None = None


def always(_plugin: Any) -> bool:
    """The default of `Check.applies`."""
    return True


@dataclass(frozen=True)
class Check:
    """A named promise. Call it with a configured plugin: it returns a note worth reading (or ""), or raises.

    CheckFailed where the promise is broken, CheckNotApplicable where the plugin does not apply to what it is tried on.
    """

    function: Callable[[Any], str | None]
    applies: Callable[[Any], bool] = always
    """Whether the promise is one that this plugin makes."""
    quick: bool = True
    """Whether it is part of the quick depth, which CI runs on every plugin."""

    @property
    def name(self) -> str:
        return self.function.__name__.replace("_", "-")

    @property
    def summary(self) -> str:
        """What is promised, in one line."""
        return (self.function.__doc__ or "").strip().partition("\n")[0]

    def find(self, plugin: Any, seconds: float = SECONDS) -> Finding:
        """Try the promise, for at most so many seconds; what the plugin prints meanwhile does not reach the terminal."""
        reason = type(plugin).deviations.get(self.name)
        with captured() as printed:
            try:
                with finishing(f"the check {self.name}", "see to the other failures first, then read the traceback"), time_limit(seconds):
                    note = self.function(plugin) or ""
            except NotApplicable as error:
                return Finding("n/a", one_line(error))
            except CheckFailed as failure:
                if reason is not None:
                    return Finding("declared", reason)
                return Finding("FAILED", str(failure), printed.tail, failure)
        if reason is None:
            return Finding("ok", note)
        mend = f"take {self.name!r} out of deviations, it is no longer needed"
        unneeded = CheckFailed(f"the declared deviation ({reason})", "a promise that is kept", mend)
        return Finding("FAILED", str(unneeded), failure=unneeded)

    def __call__(self, plugin: Any) -> str:
        finding = self.find(plugin)
        if finding.status == "n/a":
            raise CheckNotApplicable(finding.text)
        if finding.failure is not None:
            for line in finding.printed:
                finding.failure.add_note(f"printed: {line}")
            raise finding.failure
        return f"declared: {finding.text}" if finding.status == "declared" else finding.text

    def __repr__(self) -> str:
        return self.name


def require(holds: bool, expected: str, got: str, mend: str) -> None:
    """Raise CheckFailed unless the promise holds."""
    if not holds:
        raise CheckFailed(expected, got, mend)


@contextmanager
def finishing(what: str, mend: str | Callable[[BaseException], str]) -> Iterator[None]:
    """An exception in the block is a failed check; its traceback stays attached. NotApplicable goes through."""
    try:
        yield
    except (CheckFailed, NotApplicable):
        raise
    except TimeUp as error:
        bound = "bound the loop that does not end; for a slow method give options that make it quick, or more time (--timeout)"
        raise CheckFailed(f"{what} to finish", str(error), bound) from error
    except (Exception, SystemExit) as error:
        text = one_line(error)
        kind = type(error).__name__
        got = text if text.startswith(kind) else f"{kind}: {text}"
        raise CheckFailed(f"{what} to finish", got, mend if isinstance(mend, str) else mend(error)) from error
