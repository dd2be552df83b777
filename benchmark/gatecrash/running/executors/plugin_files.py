"""The files of `--plugins` on their way to workers on other machines: by content and under the same name, hence as the same modules."""

from __future__ import annotations

import atexit
import hashlib
import shutil
import tempfile
from collections.abc import Collection, Sequence
from functools import cache
from pathlib import Path

from gatecrash.host.host import Host
from gatecrash.host.loading import load_plugins, plugin_files

PluginFiles = tuple[tuple[str, bytes], ...]
"""(file name, content) of each file, in loading order."""


def read(paths: Sequence[Path]) -> PluginFiles:
    return tuple((file.name, file.read_bytes()) for file in plugin_files(paths))


def among(files: PluginFiles, digests: Collection[str]) -> PluginFiles:
    """Those of the files whose sha256 is among `digests`."""
    return tuple((name, content) for name, content in files if hashlib.sha256(content).hexdigest() in digests)


@cache
def host_with(files: PluginFiles) -> Host:
    """The host of this worker, loaded once: the shipped and installed plugins, and these files."""
    if not files:
        return load_plugins()
    folder = Path(tempfile.mkdtemp(prefix="gatecrash-plugins-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    paths = []
    for name, content in files:
        place = folder / hashlib.sha256(content).hexdigest()[:12]  # two folders may hold files of one name
        place.mkdir(exist_ok=True)
        path = place / name
        path.write_bytes(content)
        paths.append(path)
    return load_plugins(paths)
