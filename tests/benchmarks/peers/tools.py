"""Other tools, none of which Gatecrash needs: each is a package that is installed, or a folder that an environment variable names."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path


@dataclass(frozen=True)
class Tool:
    """`variable` names a folder to import from; `shown_by` is a file that such a folder has, and that tells its version."""

    name: str
    variable: str
    shown_by: str
    package: str | None = None
    """Its name for pip, looked for where the variable is not set."""
    needs: tuple[str, ...] = ()
    """Modules that it imports and Gatecrash does not have."""

    def missing(self) -> str | None:
        """Why it cannot be used here, and what to do; None where it can."""
        return self._absent() or self._incomplete()

    def folder(self) -> Path | None:
        """The folder to import from; None where the tool is an installed package."""
        given = os.environ.get(self.variable)
        return Path(given).resolve() if given else None

    def version(self) -> str:
        """Its version where it says one, else the start of the checksum of `shown_by`."""
        folder = self.folder()
        if folder is None:
            return metadata.version(self.package or self.name)
        text = (folder / self.shown_by).read_bytes()
        said = re.search(rb'^__version__ = "(.+)"', text, re.MULTILINE)
        return said[1].decode() if said else f"{self.shown_by}, sha256 {hashlib.sha256(text).hexdigest()[:12]}"

    def _absent(self) -> str | None:
        if folder := self.folder():
            return None if (folder / self.shown_by).is_file() else f"{self.name} is not in {folder}, which has no {self.shown_by}"
        if self.package and any(metadata.distributions(name=self.package)):
            return None
        install = f"install the package {self.package} or " if self.package else ""
        return f"{self.name} is not here; {install}give its folder: make bench-peers {self.variable}=FOLDER"

    def _incomplete(self) -> str | None:
        with self.importable():
            lacking = [name for name in self.needs if importlib.util.find_spec(name) is None]
        return f"{self.name} needs {', '.join(lacking)}; install that, or put its folder on PYTHONPATH" if lacking else None

    @contextmanager
    def importable(self) -> Iterator[None]:
        """What lies in its folder can be imported inside; behind all that is installed, so that it replaces nothing."""
        before, folder = sys.path[:], self.folder()
        if folder is not None:
            sys.path.append(str(folder))
        try:
            yield
        finally:
            sys.path[:] = before


BACKDOORBENCH = Tool("BackdoorBench", "BACKDOORBENCH", "utils/trainer_cls.py", needs=("tqdm",))
ART = Tool("Adversarial Robustness Toolbox", "ART", "art/__init__.py", package="adversarial-robustness-toolbox", needs=("six", "tqdm"))
