"""gatecrash results."""

from __future__ import annotations

import json
from collections.abc import Sequence
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
SETTING = ("grid", "dataset_config", "holdout", "model_config", "recipe", "versions", "contents")
"""Columns of the table where the records differ in them."""
PLUGINS = ("dataset", "model", "attack", "defense")
AMONG = {**{f"{kind}_config": (kind,) for kind in PLUGINS}, "versions": PLUGINS, "contents": PLUGINS}
"""Options, versions and files are compared among the plugins of one name."""


@click.command("results")
@click.option("--format", "form", type=click.Choice(["table", "json", "csv"]), default="table", show_default=True, help="Output format.")
@board_option
@source_options
def command(source: ResultSource, form: str) -> None:
    """Print one flat record per cell: rates are fractions in [0, 1], null where a measure does not apply.

    JSON and CSV have all that makes a cell another one (options, recipe, hold-out, versions, keys); in CSV, options are JSON with sorted
    names. The table shows only the options in which its rows differ.
    """
    import pandas as pd

    from gatecrash.boards.source import flat_records, plain

    records = list(flat_records(source.results()))
    if form == "json":
        click.echo(json.dumps(records, indent=1))
    elif form == "csv":
        columns = list(records[0]) if records else None
        click.echo(pd.DataFrame([plain(record, lists=True) for record in records], columns=columns).to_csv(index=False), nl=False)
    elif not records:
        click.echo("no results yet")
    else:
        click.echo(pd.DataFrame(_table(records)).to_markdown(index=False, tablefmt="plain", disable_numparse=True))
    for record in records:
        if form == "table" and record["error"]:
            click.echo(f"{record['attack']} × {record['defense']} (seed {record['seed']}): {record['error']}", err=True)


def _table(records: Sequence[dict[str, Any]]) -> list[dict[str, str]]:
    """A row for each record; options only where they differ."""
    columns = {name: _column(name, records) for name in (*SETTING[:1], *TABLE, *SETTING[1:])}
    shown = [name for name, texts in columns.items() if name in TABLE or len(set(texts)) > 1]
    return [{name: columns[name][row] for name in shown} for row in range(len(records))]


def _column(name: str, records: Sequence[dict[str, Any]]) -> list[str]:
    from gatecrash.records.labels import differences, flattened

    values = [record[name] for record in records]
    if not isinstance(values[0], dict):
        return ["" if value is None else f"{value:.4f}" if isinstance(value, float) else str(value) for value in values]
    texts = [""] * len(records)
    members: dict[tuple[str, ...], list[int]] = {}
    for row, record in enumerate(records):
        members.setdefault(tuple(record[kind] for kind in AMONG.get(name, ())), []).append(row)
    for rows in members.values():
        for row, text in zip(rows, differences([flattened(values[row]) for row in rows]), strict=True):
            texts[row] = text
    return texts
