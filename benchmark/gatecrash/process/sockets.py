"""Where Unix sockets can lie: their paths are short by the kernel's rule, and a user's temporary folder may be deep."""

from __future__ import annotations

import os
import sys

LONGEST_SOCKET = 103 if sys.platform == "darwin" else 107
"""Bytes of a Unix socket's path."""


def fits(folder: str, name: str) -> bool:
    """Is `folder`/`name` short enough for a socket?"""
    return len(os.fsencode(os.path.join(os.path.abspath(folder), name))) <= LONGEST_SOCKET


def short_folder() -> str | None:
    """A folder for temporary files with a short path; None where there is none that can be written."""
    return next((folder for folder in ("/tmp", "/var/tmp", "/dev/shm") if os.access(folder, os.W_OK | os.X_OK)), None)
