"""What results say of their grid: a grid that gives them again, what they must share to be compared, the name of their dataset."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import PurePath
from typing import Any

from gatecrash.evaluation.options import as_written
from gatecrash.records.result import Result
from gatecrash.records.runs import Run
from gatecrash.records.stage import Stage

LIMITS = {"limit": "training", "limit_test": "test"}
"""Options of every dataset that take a part of it."""


def grid_of(results: Sequence[Result], name: str | None = None) -> dict[str, Any]:
    """A grid (as parsed from YAML) of these results' attacks, defenses and seeds, with every option spelt out.

    `results` share dataset, model, recipe, hold-out and options of the evaluation, which are taken from the first. Where they are not a
    full product of attacks, defenses and seeds, the grid has more cells than they.
    """
    first = results[0]
    return {
        "name": name or first.grid,
        "dataset": _entry(first.dataset),
        "model": _entry(first.model),
        "recipe": dict(first.recipe),
        "holdout": dict(first.holdout),
        **({"evaluation": as_written(first.evaluation)} if first.evaluation else {}),
        "seeds": sorted({result.seed for result in results}),
        "attacks": _distinct(_entry(result.attack) for result in results),
        "defenses": _distinct(_defense(result.defense) for result in results),
    }


def table_group(result: Result | Run) -> tuple[str, ...]:
    """What cells must share to stand in one table."""
    model = [result.model.name, result.model.config]
    parts = (result.dataset.name, result.dataset_fingerprint, model, result.recipe, result.holdout, result.evaluation)
    return tuple(part if isinstance(part, str) else json.dumps(part, sort_keys=True) for part in parts)


def dataset_label(result: Result) -> str:
    """The dataset for a person: its name, that of its folder where it has one, and how many of its images were used."""
    config, name = result.dataset.config, result.dataset.name
    folder = PurePath(str(config.get("root") or "")).name
    parts = [name] if folder in {"", "data", name} else [name, folder]
    limits = [f"{config[option]:,} {what} images" for option, what in LIMITS.items() if isinstance(config.get(option), int)]
    return " ".join(parts) + (f" ({', '.join(limits)} of it)" if limits else "")


def _defense(stages: Sequence[Stage]) -> str | dict[str, Any]:
    entry = _entry(stages[0]) if len(stages) == 1 else {"chain": [_entry(stage) for stage in stages]}
    clean = next((stage.clean for stage in stages if stage.clean), None)
    return {**({entry: {}} if isinstance(entry, str) else entry), "clean": clean} if clean else entry


def _entry(stage: Stage) -> str | dict[str, Any]:
    if stage.when:
        entry = _entry(stage.model_copy(update={"when": None}))
        return {**({entry: {}} if isinstance(entry, str) else entry), "when": stage.when}
    if not stage.config:
        return stage.name
    # a bare list would be read as a sweep
    return {stage.name: {key: {"sweep": [value]} if isinstance(value, list | dict) else value for key, value in stage.config.items()}}


def _distinct(entries: Iterable[Any]) -> list[Any]:
    return list({json.dumps(entry, sort_keys=True): entry for entry in entries}.values())
