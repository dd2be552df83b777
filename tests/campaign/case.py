"""One case of the campaign: a command line, and the hostile files that it meets. Carried out in this process, as a person would.

A case is JSON, so that one that failed goes into the corpus as it is.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from click.testing import CliRunner

from campaign.damage import Damage
from gatecrash.cli import main

HANG = {signal.SIGPROF: (signal.ITIMER_PROF, 20.0), signal.SIGALRM: (signal.ITIMER_REAL, 120.0)}
"""Seconds of work, and of waiting, after which a command counts as hanging; a sound one works for less than two."""


@dataclass(frozen=True)
class Case:
    """`arguments` may name {home}, a fresh folder, {store}, the store of a small run, and {boards}, a folder with one published board."""

    arguments: tuple[str, ...]
    yaml: str | None = None
    """Content of {home}/grid.yaml; one character is one byte (latin-1)."""
    damage: Damage | None = None

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=1)

    @classmethod
    def from_json(cls, text: str) -> Case:
        fields: dict[str, Any] = json.loads(text)
        damage = fields.pop("damage")
        return cls(tuple(fields.pop("arguments")), **fields, damage=None if damage is None else Damage.of(damage))


class Hang(BaseException):
    """No `except Exception` may swallow it."""


def fault(case: Case, places: dict[str, Path]) -> str | None:
    """What is wrong with how the command ended: a traceback, a hang, more than one line, another exit code. None if nothing is."""
    if case.yaml is not None:
        (places["home"] / "grid.yaml").write_bytes(case.yaml.encode("latin-1"))
    arguments = [_placed(argument, places) for argument in case.arguments]
    with case.damage.done(places["store"]) if case.damage else _nothing(), _inside(places["home"]):
        return _outcome(arguments)


def _placed(argument: str, places: dict[str, Path]) -> str:
    for name, path in places.items():
        argument = argument.replace(f"{{{name}}}", str(path))
    return argument


def _outcome(arguments: list[str]) -> str | None:
    with CliRunner().isolation() as streams:
        try:
            with _limited():
                main(arguments)
            code: Any = "none"
        except SystemExit as ended:
            code = ended.code
        except Hang:
            return "hangs"
        except BaseException:
            return "".join(traceback.format_exc())
        sys.stderr.flush()
        said = streams[1].getvalue().decode(errors="replace").strip()
    if code not in {0, 1, 2}:
        return f"exit code {code!r}: {said[-300:]}"
    if "Traceback (most recent call last)" in said:
        return f"traceback on stderr: {said[-2000:]}"
    if code == 2 and not said.splitlines()[-1:][0].lower().startswith("error: "):
        return f"exit code 2 without a message: {said[-300:]}"
    return None


@contextmanager
def _limited() -> Iterator[None]:
    def ring(*_: Any) -> None:
        raise Hang

    before = {number: signal.signal(number, ring) for number in HANG}
    for timer, seconds in HANG.values():
        signal.setitimer(timer, seconds)
    try:
        yield
    finally:
        for number, (timer, _) in HANG.items():
            signal.setitimer(timer, 0)
            signal.signal(number, before[number])


@contextmanager
def _inside(folder: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


@contextmanager
def _nothing() -> Iterator[None]:
    yield
