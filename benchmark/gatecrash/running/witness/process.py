"""The process that forks witnesses, as its owner sees it. Imports nothing large: under Ray it stands in a process of its own."""

from __future__ import annotations

import functools
import os
import socket
import subprocess
import sys
import tempfile
import threading
from contextlib import suppress
from pathlib import Path

from gatecrash.process import sockets
from gatecrash.running.witness.wire import Message, receive, send

PATIENCE = 600.0
"""Seconds that a question may take."""

_PROGRAM = """
import sys
sys.path[:] = {path!r}
import gatecrash
for name in gatecrash.__all__:  # each is imported when it is first used: here, not in every child
    getattr(gatecrash, name)
from gatecrash.running.witness.server import serve
serve({fd})
"""

_SOCKET = "s"


class WitnessProcess:
    """Forks a new process for each question; ends with its owner. Questions may be asked by several threads at a time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._start()

    def _start(self) -> None:
        self._folder = _folder()
        self._address = str(Path(self._folder.name) / _SOCKET)
        # a connection waits here until the new process has its imports
        with socket.socket(socket.AF_UNIX) as listener, open(Path(self._folder.name) / "errors", "wb") as errors:
            listener.bind(self._address)
            listener.listen(128)
            program = _PROGRAM.format(path=[os.path.abspath(entry) for entry in sys.path], fd=listener.fileno())
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", program],
                stdin=subprocess.PIPE,  # its end tells the process that its owner is gone
                stdout=subprocess.DEVNULL,
                stderr=errors,
                pass_fds=[listener.fileno()],
                env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
                start_new_session=True,  # an interrupt from the keyboard is for its owner
            )

    def ask(self, question: Message) -> Message:
        """The answer. Raises RuntimeError where there is none."""
        with self._lock:
            # a long run outlives what cleans temporary folders
            if self._process.poll() is not None or not os.path.exists(self._address):
                self._stop()
                self._start()
        try:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(PATIENCE)
                connection.connect(self._address)
                with connection.makefile("rwb") as stream:
                    with suppress(BrokenPipeError):  # an early answer, that says why
                        send(stream, question)
                    return receive(stream)
        except (OSError, EOFError, ValueError) as error:
            raise RuntimeError(f"no answer from the process that was asked ({error or type(error).__name__}){self._said()}") from None

    def _said(self) -> str:
        with suppress(OSError):
            lines = (Path(self._folder.name) / "errors").read_text(errors="backslashreplace").strip().splitlines()
            return f": {lines[-1]}" if lines and self._process.poll() is not None else ""
        return ""

    def close(self) -> None:
        with self._lock:
            self._stop()

    def _stop(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._folder.cleanup()


def _folder() -> tempfile.TemporaryDirectory[str]:
    folder = tempfile.TemporaryDirectory(prefix="gatecrash-witness-")
    if sockets.fits(folder.name, _SOCKET):
        return folder
    folder.cleanup()
    return tempfile.TemporaryDirectory(prefix="gatecrash-witness-", dir=sockets.short_folder())


@functools.cache
def of_this_process() -> WitnessProcess:
    """The one of all serial runs in this process, started at the first; the end of this process ends it."""
    return WitnessProcess()
