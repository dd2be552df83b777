"""The files of `--plugins` on their way to workers on other machines: by content and under the same name, hence as the same modules."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from collections.abc import Collection
from functools import cache
from pathlib import Path

from gatecrash.host.host import Host
from gatecrash.host.loading import load_files, load_plugins
from gatecrash.host.plugin_file import PluginFile

PluginFiles = tuple[PluginFile, ...]
"""In loading order, each with what it takes along from its folder."""


def among(files: PluginFiles, contents: Collection[str]) -> PluginFiles:
    """Those of the files whose content is among `contents`."""
    return tuple(file for file in files if file.content in contents)


@cache
def host_with(files: PluginFiles) -> Host:
    """The host of this worker, loaded once: the shipped and installed plugins, and these files."""
    host = load_plugins()
    if not files:
        return host
    folder = Path(tempfile.mkdtemp(prefix="gatecrash-plugins-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return load_files(host, [file.written_to(folder / file.content[:12]) for file in files])  # two folders may hold files of one name
