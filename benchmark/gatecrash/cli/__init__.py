"""The command line: one file per command, loaded when it is called, so that `--help` imports no torch."""

from __future__ import annotations

import atexit
import gc
import importlib
import io
import logging
import os
import sys
import traceback
from typing import Any

import click

from gatecrash.errors import UserError, did_you_mean, shown
from gatecrash.versions import VERSION

COMMANDS = {
    "run": "Run a grid: train victims, run defenses, score every cell.",
    "leaderboard": "Print the leaderboard of a store or a board.",
    "report": "Write one HTML page of a store or a board.",
    "results": "Print one record per cell of a store or a board.",
    "compare": "Compare two defenses on the same victims.",
    "publish": "Copy a grid's results into a published board.",
    "verify": "Run published cells again and compare.",
    "plot": "Draw figures from stored results.",
    "list": "List attacks, defenses, datasets, models, grids.",
    "show": "Show what a plugin does, its paper and its options.",
    "new": "Write the files of a new attack or defense, with its test.",
    "check": "Check that an attack or defense keeps its contract.",
    "plugins": "Show where plugins come from, and which are broken.",
    "doctor": "Check this machine and installation.",
}


class LazyGroup(click.Group):
    """Imports `gatecrash.cli.<command>_command` only when that command is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(f"gatecrash.cli.{cmd_name}_command").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            raise UserError(f"no command {shown(args[0])}; {did_you_mean(args[0], COMMANDS)}")
        return super().resolve_command(ctx, args)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(VERSION, prog_name="gatecrash")
@click.option("--debug", is_flag=True, help="Show tracebacks and debug messages.")
def group(debug: bool) -> None:
    """Gatecrash: a benchmark of backdoor attacks x defenses on image classifiers.

    Start with `gatecrash run quickstart`.
    """
    logging.basicConfig(level=logging.DEBUG if debug else logging.WARNING, format="%(levelname)s: %(message)s", stream=sys.stderr)
    if not debug:
        logging.getLogger("gatecrash").setLevel(logging.WARNING)


def main(arguments: list[str] | None = None) -> None:
    """The console script: a wrong request is one line and exit code 2; only bugs show a traceback."""
    # idle OpenMP threads would otherwise spin and starve other workers on the machine
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    atexit.register(gc.freeze)  # Python would look for garbage among all that torch has made before it ends: half a second
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # file names need not be UTF-8
    given = sys.argv[1:] if arguments is None else arguments
    try:
        code = group.main(given, prog_name="gatecrash", standalone_mode=False)
    except UserError as error:
        if "--debug" in given:
            traceback.print_exc()
        click.echo(f"error: {error}", err=True)
        code = 2
    except click.ClickException as error:
        error.show()
        code = 2
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        code = 130
    except BrokenPipeError:
        sys.stderr.close()
        code = 0
    sys.exit(code if isinstance(code, int) else 0)
