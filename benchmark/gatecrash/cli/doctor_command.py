"""gatecrash doctor."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Callable
from pathlib import Path

import click

from gatecrash.cli.options import store_option


@click.command("doctor")
@store_option
def command(store: Path | None) -> int:
    """Check this machine and installation, one line per check. Exit code 1 if something will not work."""
    checks: list[tuple[str, Callable[[], str]]] = [
        ("gatecrash", _gatecrash),
        ("python", lambda: f"{platform.python_version()} on {platform.platform()}"),
        ("torch", _torch),
        ("torchvision", _torchvision),
        ("ray", _ray),
        ("device", _device),
        ("cpu", _cpu),
        ("plugins", _plugins),
        ("cache", _cache),
        ("store", lambda: _store(store)),
    ]
    bad = 0
    for name, check in checks:
        try:
            click.echo(f"ok    {name}: {check()}")
        except Exception as error:  # a diagnosis must go on, whatever is broken
            bad += 1
            click.echo(f"FAIL  {name}: {' '.join(str(error).split()) or type(error).__name__}")
    return 1 if bad else 0


def _gatecrash() -> str:
    from gatecrash.records.provenance import code_version

    version = code_version()
    commit = f" ({version['commit'][:10]}{', changed' if version['dirty'] else ''})" if version["commit"] else ""
    return f"{version['gatecrash_version']}{commit}"


def _torch() -> str:
    import torch

    return torch.__version__


def _torchvision() -> str:
    import torch
    import torchvision

    torchvision.ops.nms(torch.zeros(1, 4), torch.zeros(1), 0.5)  # fails where torch and torchvision do not fit together
    return str(torchvision.__version__)


def _ray() -> str:
    import importlib.metadata

    return importlib.metadata.version("ray")


def _device() -> str:
    from gatecrash.engine.device import choose_device, device_name
    from gatecrash.engine.precision import auto_precision

    device = choose_device(None)
    return f"{device_name(device)}, trains in {auto_precision(device)}"


def _cpu() -> str:
    import torch

    free = shutil.disk_usage(".").free / 2**30
    return f"{os.cpu_count()} cores, {torch.backends.cpu.get_cpu_capability()}, {free:.0f} GiB free disk here"


def _plugins() -> str:
    from gatecrash.host.kinds import KINDS
    from gatecrash.host.loading import load_plugins

    host = load_plugins()
    if host.problems:
        raise RuntimeError("; ".join(f"{problem.origin}: {problem.message}" for problem in host.problems))
    return ", ".join(f"{len(host.all(kind))} {kind}s" for kind in KINDS)


def _cache() -> str:
    from gatecrash.process.cache_folder import cache_folder

    folder = cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    if not os.access(folder, os.W_OK):
        raise RuntimeError(f"{folder} is not writable; set GATECRASH_CACHE")
    return str(folder)


def _store(path: Path | None) -> str:
    from gatecrash.records.store import Store, default_store

    root = path or default_store()
    Store(root).check()
    parent = next(folder for folder in [root, *root.absolute().parents] if folder.exists())
    if not os.access(parent, os.W_OK):
        raise RuntimeError(f"{root} cannot be written; choose another with --store")
    return f"{root.absolute()}{'' if root.exists() else ' (made on the first run)'}"
