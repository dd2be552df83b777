"""gatecrash plot."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from gatecrash.cli.options import (
    all_runs_option,
    board_option,
    grid_option,
    overrides_option,
    parse_overrides,
    plugins_option,
    source_options,
    store_option,
    tell_of_hidden,
    warn_of_problems,
)
from gatecrash.errors import UserError

if TYPE_CHECKING:
    from gatecrash.boards.source import ResultSource

F = TypeVar("F", bound=Callable[..., Any])


def _output_option(function: F) -> F:
    return click.option(
        "--output",
        type=click.Path(path_type=Path),
        default=None,
        help="File to write: .png, .svg or .pdf.  [default: a .png and an .svg named after the plot]",
    )(function)


def _cell_options(function: F) -> F:
    for option in (
        click.option("--attack", default=None, metavar="NAME", help="Only this attack, as in the tables.  [default: all]"),
        click.option(
            "--defense",
            default=None,
            metavar="NAME",
            help="Only this defense, as in the tables.  [default: the first with such data]",
        ),
    ):
        function = option(function)
    return function


@click.group("plot")
def command() -> None:
    """Draw figures from stored results, which must share dataset, model and recipe."""


@command.command("heatmap")
@_output_option
@click.option("--measure", "measures", multiple=True, type=click.Choice(["asr", "acc", "der"]), help="Repeatable.  [default: all three]")
@board_option
@source_options
def heatmap_command(source: ResultSource, output: Path | None, measures: tuple[Any, ...]) -> None:
    """Attacks × defenses: ASR, ACC and DER."""
    from gatecrash.boards.plots.heatmap import heatmap

    _save(heatmap(source.panel(), measures or ("asr", "acc", "der")), output, "heatmap")


@command.command("tradeoff")
@_output_option
@board_option
@source_options
def tradeoff_command(source: ResultSource, output: Path | None) -> None:
    """ACC against ASR, one mark per defense."""
    from gatecrash.boards.plots.tradeoff import tradeoff

    _save(tradeoff(source.panel()), output, "tradeoff")


@command.command("curve")
@_output_option
@click.option("--defense", required=True, metavar="NAME", help="The defense whose steps or options are drawn, as in the tables.")
@click.option(
    "--x",
    default=None,
    metavar="NAME",
    help="An option that was swept (attack.NAME or defense.NAME where both have it), or a parameter of the defense's trajectory.",
)
@board_option
@source_options
def curve_command(source: ResultSource, output: Path | None, defense: str, x: str | None) -> None:
    """ACC and ASR over a swept option, or along a trajectory.

    A trajectory is what a defense returns to be scored on the way, such as one network per threshold.
    """
    from gatecrash.boards.plots.curve import curve

    _save(curve(source.panel(), defense, x), output, "curve")


@command.command("rates")
@_output_option
@click.option(
    "--defense", default="none", show_default=True, metavar="NAME", help="The defense whose cells are drawn, by its plugin's name."
)
@board_option
@source_options
def rates_command(source: ResultSource, output: Path | None, defense: str) -> None:
    """ACC and ASR over the poisoned share, one line per attack.

    For grids in which attacks have several poison rates, such as `ladder`.
    """
    from gatecrash.boards.plots.curve import rates

    _save(rates(source.panel(), defense), output, "rates")


@command.command("robustness")
@_output_option
@click.option("--defense", default="none", show_default=True, metavar="NAME", help="The defense whose cells are drawn, as in the tables.")
@board_option
@source_options
def robustness_command(source: ResultSource, output: Path | None, defense: str) -> None:
    """ACC and ASR under transformations of the images.

    Measured where a grid has `evaluation: {robustness: true}`.
    """
    from gatecrash.boards.plots.robustness import robustness

    _save(robustness(source.panel(), defense), output, "robustness")


@command.command("reversed")
@_output_option
@_cell_options
@board_option
@source_options
def reversed_command(source: ResultSource, output: Path | None, defense: str | None, attack: str | None) -> None:
    """Neural Cleanse's reversed triggers.

    For every class its mask and pattern, the norm of the mask and the anomaly index; classes that the verdict accuses are marked.
    """
    from gatecrash.boards.plots.reversed import reversed_triggers

    _save(reversed_triggers(source.panel(), source.pictures, defense, attack), output, "reversed")


@command.command("masks")
@_output_option
@_cell_options
@board_option
@source_options
def masks_command(source: ResultSource, output: Path | None, defense: str | None, attack: str | None) -> None:
    """Histogram of ANP's masks, with the threshold."""
    from gatecrash.boards.plots.masks import masks

    _save(masks(source.panel(), defense, attack), output, "masks")


@command.command("triggers")
@_output_option
@store_option
@grid_option
@all_runs_option
@overrides_option
@click.option(
    "--trigger",
    "makers",
    multiple=True,
    metavar="TRIGGER",
    help="Draw this trigger instead, as a grid names it: blend, or '{patch: {size: 5}}'. Needs no store. Repeatable.",
)
@click.option("--dataset", default=None, metavar="DATASET", help="With --trigger: the images, as a grid names them.  [default: digits]")
@plugins_option
def triggers_command(
    store: Path | None,
    grid: str | None,
    all_runs: bool,
    output: Path | None,
    overrides: tuple[str, ...],
    makers: tuple[str, ...],
    dataset: str | None,
    plugin_paths: tuple[Path, ...],
) -> None:
    """A test image before and after each trigger.

    Also the difference, magnified. One row per backdoor and attack, from the stored victim of the lowest seed; with --trigger, one for each
    trigger that is named, whether an attack has used it or not.
    """
    if makers:
        _save(_named_triggers(makers, dataset or "digits", grid, overrides, plugin_paths), output, "triggers")
        return
    if dataset is not None:
        raise UserError("--dataset belongs to --trigger; stored victims have their own data set")
    from gatecrash.boards.plots.triggers import triggers

    source, panel, found = _stored(store, grid, all_runs, overrides, plugin_paths)
    _save(triggers(panel, found), output, "triggers")
    tell_of_hidden(source)


@command.command("stealth")
@_output_option
@store_option
@grid_option
@all_runs_option
@overrides_option
@click.option(
    "--distance", type=click.Choice(["psnr", "ssim"]), default="psnr", show_default=True, help="What says how hard a trigger is to see."
)
@plugins_option
def stealth_command(
    store: Path | None,
    grid: str | None,
    all_runs: bool,
    output: Path | None,
    overrides: tuple[str, ...],
    distance: Any,
    plugin_paths: tuple[Path, ...],
) -> None:
    """PSNR or SSIM of each trigger against ASR.

    One mark per backdoor and attack, without a defense; the trigger is that of the stored victim of the lowest seed.
    """
    from gatecrash.boards.plots.stealth import stealth_effect

    source, panel, found = _stored(store, grid, all_runs, overrides, plugin_paths)
    _save(stealth_effect(panel, found, distance), output, "stealth")
    tell_of_hidden(source)


def _stored(store: Path | None, grid: str | None, all_runs: bool, overrides: tuple[str, ...], paths: tuple[Path, ...]) -> Any:
    """The source, its panel, and the triggers of its victims."""
    from gatecrash.boards.plots.triggers import dataset_of, stored_triggers
    from gatecrash.boards.source import ResultSource

    source = ResultSource(store, grid=grid, plugin_paths=paths, all_runs=all_runs)
    panel = source.panel()
    prepared = dataset_of(panel, source.host, parse_overrides(overrides))
    return source, panel, stored_triggers(panel, source.store, prepared)


def _named_triggers(makers: tuple[str, ...], dataset: str, grid: str | None, overrides: tuple[str, ...], paths: tuple[Path, ...]) -> Any:
    from gatecrash.boards.plots.named_triggers import named_triggers
    from gatecrash.host.loading import load_plugins
    from gatecrash.planning.yaml_text import read_yaml

    if grid is not None or overrides:
        raise UserError("--grid and -o choose among stored results; --trigger needs none of them")
    host = load_plugins(paths)
    warn_of_problems(host)
    return named_triggers([read_yaml(text, "--trigger") for text in makers], read_yaml(dataset, "--dataset"), host)


def _save(figure: Any, output: Path | None, name: str) -> None:
    from gatecrash.boards.plots.style import save

    for path in save(figure, output or Path(name)):
        click.echo(str(path))
