"""The errors that Gatecrash raises on purpose, and what a user reads of them.

`UserError` is the one family of errors that the command line shows as a single line (exit code 2): the message names the thing and the
next action. Everything else is a bug or a failed cell and keeps its traceback.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable


class GatecrashError(Exception):
    """Base of all errors that Gatecrash raises on purpose."""


class UserError(GatecrashError):
    """The request was wrong: one line that names the thing and what to do, whatever newlines the names in it carry."""

    def __init__(self, message: str) -> None:
        super().__init__(printable(" ".join(message.split())))


class OutOfReach(UserError):
    """An option asks for more, or less, than this dataset has: one value of a sweep may, while others work."""


class ContractError(GatecrashError):
    """A plugin broke the contract it is written against; the cell or victim fails with this message."""


class TrainingDiverged(GatecrashError):
    """Training gave NaN, or a model worse than guessing; the victim fails instead of entering a table."""


class NotApplicable(GatecrashError):
    """The method does not apply to this victim (say, no BatchNorm to perturb): the cell is `not-applicable`, not failed."""


def printable(text: str) -> str:
    """The text with lone surrogates (of a file name that is not UTF-8) written out, as in `caf\\udce9`; files and terminals take it."""
    return text.encode("utf-8", "backslashreplace").decode()


def one_line(error: BaseException) -> str:
    """The error's message as one printable line, with its type where the message alone would not say what happened."""
    text = printable(" ".join(str(error).split()))
    if isinstance(error, GatecrashError) and text:
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def counted(count: int, what: str) -> str:
    """`1 cell`, `2,000 cells`."""
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def shown(value: object, longest: int = 60) -> str:
    """A given value as a message quotes it: on one line and not long."""
    text = f"a number of {value.bit_length():,} bits" if isinstance(value, int) and value.bit_length() > 500 else repr(value)
    return text if len(text) <= longest else f"{text[:longest]}..."


def path_fault(path: str | os.PathLike[str]) -> str | None:
    """Why the system cannot even look the path up (too long, a loop of links, a folder that may not be entered); None if it can, whether
    something is there or not."""
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:  # ValueError: a null character
        return getattr(error, "strerror", None) or str(error)
    return None


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A sentence that helps after an unknown name: the close matches, else the command that lists all."""
    names = sorted(set(known))
    close = difflib.get_close_matches(name[:200], names, n=3, cutoff=0.6)
    if close:
        return f"did you mean {' or '.join(repr(match) for match in close)}?"
    return f"known: {', '.join(names)}" if names else "none is installed"
