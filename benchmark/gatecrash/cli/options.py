"""Options and small helpers that several commands share."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from gatecrash.errors import UserError, path_fault, shown

if TYPE_CHECKING:
    from gatecrash.boards.source import ResultSource

F = TypeVar("F", bound=Callable[..., Any])


class AnyPath(click.Path):
    """A path that may exist or not, but that the system can look up: not too long, no loop of links, no folder that may not be entered."""

    def __init__(self, **options: Any) -> None:
        super().__init__(path_type=Path, **options)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if (fault := path_fault(value)) is not None:
            self.fail(f"{shown(str(value))}: {fault}", param, ctx)
        return super().convert(value, param, ctx)


class FiniteNumber(click.types.FloatParamType):
    """A number that is neither infinite nor NaN."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        number = super().convert(value, param, ctx)
        return number if math.isfinite(number) else self.fail(f"{value} is not a finite number", param, ctx)


def store_option(function: F) -> F:
    return click.option(
        "--store",
        type=AnyPath(),
        default=None,
        envvar="GATECRASH_STORE",
        help="Folder for victims and results.  [default: $GATECRASH_STORE, else ./gatecrash-store]",
    )(function)


def plugins_option(function: F) -> F:
    return click.option(
        "--plugins",
        "plugin_paths",
        multiple=True,
        metavar="PATH",
        type=AnyPath(),
        help="Load the plugins of this file, or of all files in this folder, too. Repeatable.",
    )(function)


def boards_option(function: F) -> F:
    return click.option(
        "--boards",
        "boards_path",
        type=AnyPath(file_okay=False),
        default=None,
        help="Folder of published boards.  [default: ./leaderboards or, to read from, that of the checkout]",
    )(function)


def grid_option(function: F) -> F:
    return click.option(
        "--grid",
        default=None,
        metavar="GRID",
        help="Only the newest run of the grid of this name, or exactly the cells of this YAML file or shipped grid.",
    )(function)


def all_runs_option(function: F) -> F:
    return click.option("--all-runs", is_flag=True, help="Also results of earlier runs of a grid, not only of its newest.")(function)


def board_option(function: F) -> F:
    return click.option("--board", default=None, metavar="NAME", help="Read this published board instead of a store.")(function)


def tell_of_hidden(source: ResultSource) -> None:
    """Say that results of earlier runs are left out, if they are."""
    if source.hidden:
        click.echo(f"note: {source.hidden} results of earlier runs are left out; --all-runs shows them", err=True)


def source_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--store`, `--grid`, `--all-runs`, `--boards` and `--plugins`: with its parameter `board`, if it has one, a command's `source`."""

    @functools.wraps(command)
    def with_source(
        *arguments: Any,
        store: Path | None,
        grid: str | None,
        plugin_paths: tuple[Path, ...],
        boards_path: Path | None = None,
        board: str | None = None,
        all_runs: bool = False,
        **others: Any,
    ) -> Any:
        from gatecrash.boards.source import ResultSource

        source = ResultSource(store, board, boards_path, grid, plugin_paths, all_runs)
        done = command(*arguments, source=source, **others)
        tell_of_hidden(source)
        return done

    return store_option(grid_option(all_runs_option(boards_option(plugins_option(with_source)))))


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
            raise UserError(f"-o {text[:60]}: write PATH=VALUE, as in -o recipe.epochs=5")
        pairs[path.strip()] = value
    return pairs


def parse_only(texts: tuple[str, ...]) -> dict[str, set[str]]:
    """`attack=a,b` and `defense=c(option=1)` as a mapping. Raises UserError for any other form."""
    from gatecrash.planning.selection import split_names

    only: dict[str, set[str]] = {}
    for text in texts:
        kind, separator, names = text.partition("=")
        chosen = set(split_names(names))
        if not separator or not chosen:
            raise UserError(f"--only {text[:60]}: write attack=NAME,NAME or defense=NAME")
        only.setdefault(kind.strip(), set()).update(chosen)
    return only


def parse_seeds(text: str | None) -> list[int] | None:
    """`0,1,2` as numbers. Raises UserError."""
    if text is None:
        return None
    try:
        seeds = [int(part) for part in text.split(",")]
    except ValueError:
        raise UserError(f"--seeds {text[:60]}: write whole numbers separated by commas") from None
    if any(not 0 <= seed < 2**63 for seed in seeds):
        raise UserError(f"--seeds {text[:60]}: seeds must lie in [0, 2**63)")
    return seeds


def check_device(name: str | None) -> str | None:
    """The device, if it can be used; else UserError, before a wrong one fails every cell."""
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
    """Name every broken plugin on stderr; the command goes on without it."""
    for problem in host.problems:
        click.echo(f"warning: plugin {problem.origin}: {problem.message} (see `gatecrash plugins`)", err=True)


def write_text(path: Path, text: str) -> None:
    """The whole file or, with a UserError, none of it."""
    from gatecrash.records.files import write_named

    try:
        write_named(path, text)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}; choose another --output") from None
