"""gatecrash results."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from gatecrash.cli.options import existing_store, store_option

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
@store_option
@click.option("--format", "form", type=click.Choice(["table", "json", "csv"]), default="table", show_default=True, help="Output format.")
@click.option("--grid", default=None, metavar="NAME", help="Only cells of this grid's last runs.")
def command(store: Path | None, form: str, grid: str | None) -> None:
    """Print one flat record per cell in the store: rates are fractions in [0, 1], null where a measure does not apply."""
    import pandas as pd

    records = [result.flat() for result in existing_store(store).results() if grid is None or result.grid == grid]
    records.sort(
        key=lambda record: (record["dataset"], record["model"], record["attack"], record["defense"], record["seed"], record["key"])
    )
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
