"""`gatecrash results`: one row per cell, with everything that makes it another cell."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

from gatecrash.records.stage import Stage
from gatecrash.records.store import Store
from support.cells import cell

Gatecrash = Callable[..., Any]
VARIANTS: list[dict[str, Any]] = [
    {},
    {"grid": "another"},
    {"recipe": {"epochs": 2}},
    {"model": Stage(name="small-cnn", config={"width": 2})},
    {"dataset": Stage(name="digits", config={"limit": 9})},
    {"holdout": {"fraction": 0.1}},
    {"victim_key": "another"},
    {"attack": Stage(name="badnets", config={"rate": 0.1})},
    {"attack": Stage(name="badnets", content={"image": "sha256:1"})},
    {"defense": [Stage(name="anp", config={"n": 16 / 255})]},
    {"defense": [Stage(name="anp", config={"n": 0.0627451})]},
    {"defense": [Stage(name="anp", version=2)]},
]
MEASURED = ("key", "acc")


def store_of_variants(root: Path) -> Path:
    store = Store(root).open()
    for index, fields in enumerate(VARIANTS):
        store.save_result(cell("badnets", "anp", 0, acc=index / 100, **({"key": f"{index:040x}"} | fields)))
    return root


def test_rows_of_different_experiments_are_different(gatecrash: Gatecrash, tmp_path: Path) -> None:
    """Two recipes once gave two rows that looked alike, and that a groupby averaged."""
    store = store_of_variants(tmp_path / "s")
    table = pd.read_csv(io.StringIO(gatecrash("results", "--store", store, "--format", "csv").out))
    assert len(table.drop(columns=list(MEASURED)).drop_duplicates()) == len(VARIANTS)
    assert not {"{'", "None"} & {text[:2] for text in table["recipe"]}


def test_the_table_for_people_shows_the_options_in_which_its_rows_differ(gatecrash: Gatecrash, tmp_path: Path) -> None:
    shown = gatecrash("results", "--store", store_of_variants(tmp_path / "s")).out.splitlines()
    assert shown[0].split()[:2] == ["grid", "dataset"]
    for text in ("epochs=2", "width=2", "limit=9", "fraction=0.1", "rate=0.1", "n=0.06274509803921569", "n=0.0627451 ", "defense=2"):
        assert any(text in line for line in shown), text
