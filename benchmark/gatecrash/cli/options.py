"""Options and small helpers that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from gatecrash.errors import UserError

F = TypeVar("F", bound=Callable[..., Any])


def store_option(function: F) -> F:
    return click.option(
        "--store",
        type=click.Path(path_type=Path, file_okay=True),
        default=None,
        help="Folder for victims and results.  [default: $GATECRASH_STORE, else ./gatecrash-store]",
    )(function)


def plugins_option(function: F) -> F:
    return click.option(
        "--plugins",
        "plugin_paths",
        multiple=True,
        metavar="PATH",
        type=click.Path(path_type=Path),
        help="A plugin file, or a folder of them. Repeatable.",
    )(function)


def boards_option(function: F) -> F:
    return click.option(
        "--boards",
        "boards_path",
        type=click.Path(path_type=Path, file_okay=False),
        default=None,
        help="Folder of published boards.  [default: leaderboards/ here, else of the checkout]",
    )(function)


def boards_in(path: Path | None) -> Any:
    """The folder of published boards. Raises UserError where there is none."""
    from gatecrash.boards.published import Boards, default_boards

    return Boards(path if path is not None else default_boards())


def overrides_option(function: F) -> F:
    return click.option(
        "-o", "overrides", multiple=True, metavar="PATH=VALUE", help="Change a grid field: -o recipe.epochs=5. Repeatable."
    )(function)


def parse_overrides(texts: tuple[str, ...]) -> dict[str, str]:
    """`PATH=VALUE` texts as a mapping. Raises UserError for any other form."""
    pairs = {}
    for text in texts:
        path, separator, value = text.partition("=")
        if not separator or not path.strip():
            raise UserError(f"-o {text}: write PATH=VALUE, as in -o recipe.epochs=5")
        pairs[path.strip()] = value
    return pairs


def parse_seeds(text: str | None) -> list[int] | None:
    """`0,1,2` as numbers. Raises UserError."""
    if text is None:
        return None
    try:
        seeds = [int(part) for part in text.split(",")]
    except ValueError:
        raise UserError(f"--seeds {text}: write whole numbers separated by commas") from None
    if any(not 0 <= seed < 2**63 for seed in seeds):
        raise UserError(f"--seeds {text}: seeds must lie in [0, 2**63)")
    return seeds


def check_device(name: str | None) -> str | None:
    """The device, if it can be used. Raises UserError: a wrong one would otherwise fail every cell."""
    if name is None:
        return None
    import torch

    try:
        device = torch.device(name)
    except RuntimeError:
        raise UserError(f"--device {name}: not a device; use cpu, cuda or cuda:N") from None
    if device.type == "cuda" and (not torch.cuda.is_available() or (device.index or 0) >= torch.cuda.device_count()):
        raise UserError(f"--device {name}: this machine has {torch.cuda.device_count()} usable CUDA devices; use cpu")
    if device.type not in {"cpu", "cuda"}:
        raise UserError(f"--device {name}: use cpu, cuda or cuda:N")
    return name


def warn_of_problems(host: Any) -> None:
    """Name every broken plugin on stderr; the run goes on without it."""
    for problem in host.problems:
        click.echo(f"warning: plugin {problem.origin}: {problem.message} (see `gatecrash plugins`)", err=True)


def existing_store(path: Path | None) -> Any:
    """An existing store to read from. Raises UserError where there is none."""
    from gatecrash.records.store import Store, default_store

    root = path or default_store()
    if not root.exists():
        raise UserError(f"no store at {root}; run a grid first (gatecrash run quickstart), or choose another with --store")
    store = Store(root)
    store.check()
    return store
