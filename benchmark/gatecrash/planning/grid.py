"""YAML -> Grid: what a person asks for, validated; lists where a scalar is expected become sweeps.

Shape errors name the field's path in the YAML. What is asked is resolved against the installed plugins in `resolve`.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from gatecrash.datasets.holdout import HoldoutConfig
from gatecrash.errors import UserError, did_you_mean, shown
from gatecrash.evaluation.options import EvaluationConfig
from gatecrash.planning.messages import explain
from gatecrash.planning.yaml_text import MAX_DEPTH, read_yaml, read_yaml_file

MAX_CELLS = 200_000
"""A grid larger than this is taken for a mistake. Planning 100,000 cells takes seconds, and 0.8 GB with torch."""


class Grid(BaseModel):
    """A grid file as written. Plugins are a name, or `{name: {option: value}}`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(min_length=1, max_length=100, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    dataset: str | dict[str, Any]
    model: str | dict[str, Any]
    recipe: str | dict[str, Any] = "standard"
    holdout: HoldoutConfig = HoldoutConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    seeds: list[int] = Field([0], min_length=1)
    attacks: list[str | dict[str, Any]] = Field(min_length=1)
    defenses: list[str | dict[str, Any]] = Field(min_length=1)
    clean_data: list[str | dict[str, Any]] | None = Field(None, min_length=1, max_length=100)
    """What clean images each defense is given, one cell for each of these; see `CleanData`."""

    @field_validator("seeds", mode="before")
    @classmethod
    def _one_seed_is_a_list(cls, value: Any) -> Any:
        return [value] if isinstance(value, int) and not isinstance(value, bool) else value

    @field_validator("seeds")
    @classmethod
    def _seeds_are_distinct(cls, seeds: list[int]) -> list[int]:
        if any(not 0 <= seed < 2**63 for seed in seeds):
            raise ValueError("seeds must lie in [0, 2**63)")
        return list(dict.fromkeys(seeds))


def shipped_grids() -> list[str]:
    return sorted(
        entry.name.removesuffix(".yaml") for entry in resources.files("gatecrash.grids").iterdir() if entry.name.endswith(".yaml")
    )


def is_grid_file(name: str) -> bool:
    """Whether a grid is named by a file's path, not by its own name."""
    try:
        return Path(name).suffix in {".yaml", ".yml"} or Path(name).is_file()
    except (OSError, ValueError):  # too long, or a null character
        return False


def load_grid(name: str, overrides: Mapping[str, str] | None = None) -> Grid:
    """The grid of that shipped name or YAML path, with `-o path.to.field=value` overrides. Raises UserError."""
    text, origin = _read(name)
    return parse_grid(read_yaml(text, origin), origin, overrides)


def parse_grid(data: Any, origin: str = "grid", overrides: Mapping[str, str] | None = None) -> Grid:
    """A Grid from parsed YAML. Raises UserError with the field's path for anything else."""
    if not isinstance(data, dict):
        raise UserError(f"{origin} is empty or no mapping; a grid needs name, dataset, model, attacks and defenses")
    for path, value in (overrides or {}).items():
        _override(data, path, value)
    try:
        return Grid.model_validate(data)
    except ValidationError as error:
        raise UserError(f"{origin}: {explain(error, '', Grid.model_fields)}") from None
    except RecursionError:
        raise UserError(f"{origin} is nested too deeply") from None


def _read(name: str) -> tuple[str, str]:
    if is_grid_file(name):
        return read_yaml_file(Path(name)), name
    if name not in shipped_grids():
        raise UserError(f"no grid file or shipped grid {shown(name)}; {did_you_mean(name, shipped_grids())}")
    return resources.files("gatecrash.grids").joinpath(f"{name}.yaml").read_text(encoding="utf-8"), name


def _override(data: dict[Any, Any], path: str, value: str) -> None:
    """Set the field at `path` to the YAML `value`; mappings on the way are copied or made."""
    target = data
    *parents, last = path.split(".")
    if len(parents) > MAX_DEPTH or not all((*parents, last)):
        raise UserError(f"-o {path[:60]}: write PATH=VALUE with names joined by '.', as in -o recipe.epochs=5")
    for parent in parents:
        child = _as_mapping(parent, target.get(parent))
        if child is None:
            raise UserError(f"-o {path}: {parent} is {shown(target[parent])}, not a mapping; override the whole of it")
        target[parent] = child
        target = child
    target[last] = read_yaml(value, f"the value of -o {path}")


def _as_mapping(field: str, value: Any) -> dict[Any, Any] | None:
    """A copy of a field's mapping, with short forms written out; None for what is no mapping."""
    if value is None:
        return {}
    if isinstance(value, str) and field in {"dataset", "model"}:
        return {value: {}}
    if isinstance(value, str) and field == "recipe":
        return {"preset": value}
    return dict(value) if isinstance(value, dict) else None
