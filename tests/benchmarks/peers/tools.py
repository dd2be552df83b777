"""Other tools, none of which Gatecrash needs: each is a package that is installed, or a folder that an environment variable names."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Tool:
    """`variable` names a folder to import from; `shown_by` is a file that such a folder has, and that says which version it is."""

    name: str
    variable: str
    shown_by: str
    package: str | None = None
    """Looked for among what is installed where the variable is not set."""
    needs: tuple[str, ...] = ()
    """Packages that it imports and Gatecrash does not have."""

    def missing(self) -> str | None:
        """Why it cannot be used here, and what to do; None where it can."""
        return self._absent() or self._incomplete()

    def _incomplete(self) -> str | None:
        with self.importable():
            lacking = [name for name in self.needs if importlib.util.find_spec(name) is None]
        return f"{self.name} needs {', '.join(lacking)}; install that, or put its folder on PYTHONPATH" if lacking else None

    def _absent(self) -> str | None:
        if given := os.environ.get(self.variable):
            return None if (Path(given) / self.shown_by).is_file() else f"{self.name} is not in {given}, which has no {self.shown_by}"
        if self.package and importlib.util.find_spec(self.package):
            return None
        install = f"install the package {self.package} or " if self.package else ""
        return f"{self.name} is not here; {install}give its folder: make bench-peers {self.variable}=FOLDER"

    def folder(self) -> Path | None:
        """The folder to import from; None where the tool is an installed package."""
        given = os.environ.get(self.variable)
        return Path(given).resolve() if given else None

    def version(self) -> str:
        """Its version where it says one, else the start of the checksum of `shown_by`."""
        folder = self.folder()
        if folder is None:
            spec = importlib.util.find_spec(self.package or "")
            assert spec is not None
            assert spec.origin is not None
            folder = Path(spec.origin).parents[1]
        text = (folder / self.shown_by).read_bytes()
        said = [line.split(b'"')[1].decode() for line in text.splitlines() if line.startswith(b'__version__ = "')]
        return said[0] if said else f"{self.shown_by}, sha256 {hashlib.sha256(text).hexdigest()[:12]}"

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
ART = Tool("Adversarial Robustness Toolbox", "ART", "art/__init__.py", package="art", needs=("six", "tqdm"))
