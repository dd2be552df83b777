"""What a task prints: kept apart from everyone else's, bounded, and written to one log file per task."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from gatecrash.errors import printable
from gatecrash.running.tasks.protocol import Failure, Task

HEAD, TAIL = 2**18, 3 * 2**18
"""Bytes kept of a longer output: its beginning and its end, one MiB together."""


@contextmanager
def redirected(path: Path) -> Iterator[None]:
    """Send this process's standard output and error to a file, also what native code and child processes write.

    Text that has no form in UTF-8 is written out, so that a plugin may print any file name.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError):  # Ray wraps them; a plugin may have replaced them
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    kept = os.dup(1), os.dup(2)
    target = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o600)
    os.dup2(target, 1)
    os.dup2(target, 2)
    os.close(target)
    try:
        yield
    finally:
        with suppress(Exception):  # a plugin may have closed or replaced them
            sys.stdout.flush()
            sys.stderr.flush()
        for descriptor, original in zip((1, 2), kept, strict=True):
            os.dup2(original, descriptor)
            os.close(original)


def bounded(path: Path) -> str:
    """The file's text; of a long one the beginning and the end."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(0)
        if size <= HEAD + TAIL:
            return file.read().decode(errors="replace")
        head = file.read(HEAD)
        file.seek(-TAIL, os.SEEK_END)
        tail = file.read()
    return f"{head.decode(errors='replace')}\n[... {size - HEAD - TAIL:,} bytes left out ...]\n{tail.decode(errors='replace')}"


def save_log(folder: Path, task: Task, where: str, output: str, failure: Failure | None) -> str | None:
    """Write the task's log and return its path. A task that said nothing and did not fail leaves none, and takes an older one away.

    None too where the folder cannot be written to: the store, which holds it, says so when the result is written.
    """
    path = folder / f"{task.id.replace(':', '-')}.log"
    broken = failure is not None and failure.kind != "not-applicable"
    if not output and not broken:
        with suppress(OSError):
            path.unlink(missing_ok=True)
        return None
    parts = [f"{task.title}\n{task.id}, {where}\n", output]
    if failure is not None and broken:
        parts.append(f"{failure.kind}: {failure.message}\n{failure.details}")
    try:
        folder.mkdir(exist_ok=True)  # not its parents: a store that was removed stays so
        path.write_text(printable("\n".join(part for part in parts if part)), encoding="utf-8")
    except OSError:
        return None
    return str(path)
