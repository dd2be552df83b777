"""gatecrash results."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from gatecrash.cli.options import board_option, source_options

if TYPE_CHECKING:
    from gatecrash.boards.source import ResultSource

TABLE = (
    "dataset",
    "model",
    "attack",
    "attack_config",
    "defense",
    "defense_config",
    "seed",
    "status",
    "acc",
    "asr",
    "asr_floor",
    "ra",
    "der",
)


@click.command("results")
@click.option("--format", "form", type=click.Choice(["table", "json", "csv"]), default="table", show_default=True, help="Output format.")
@board_option
@source_options
def command(source: ResultSource, form: str) -> None:
    """Print one flat record per cell: rates are fractions in [0, 1], null where a measure does not apply."""
    import pandas as pd

    from gatecrash.boards.source import flat_records

    records = list(flat_records(source.results()))
    if form == "json":
        click.echo(json.dumps(records, indent=1))
    elif form == "csv":
        plain = [{name: _text(value) for name, value in record.items()} for record in records]
        click.echo(pd.DataFrame(plain, columns=list(records[0]) if records else None).to_csv(index=False), nl=False)
    elif not records:
        click.echo("no results yet")
    else:
        rows = [{name: _short(name, record) for name in TABLE} for record in records]
        click.echo(pd.DataFrame(rows).to_markdown(index=False, tablefmt="plain", disable_numparse=True))
    for record in records:
        if form == "table" and record["error"]:
            click.echo(f"{record['attack']} × {record['defense']} (seed {record['seed']}): {record['error']}", err=True)


def _text(value: Any) -> Any:
    return json.dumps(value) if isinstance(value, dict | list) else value


def _short(name: str, record: dict[str, Any]) -> str:
    value = record[name]
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.4f}"
    if isinstance(value, dict):
        return ",".join(f"{option}={setting}" for option, setting in value.items() if setting is not None)[:60]
    return str(value)
