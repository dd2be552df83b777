"""The stored result of a cell, and the flat record that people and tables read."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

SCHEMA = 1
Status = Literal["ok", "failed", "victim-failed", "not-applicable"]


class Stage(BaseModel):
    """A plugin with the options it ran with (defaults included) and its version."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    name: str
    version: int = 1
    config: dict[str, Any] = Field(default_factory=dict)


class Result(BaseModel):
    """One cell: what was asked (`spec` fields), what came out (`measures`), and where it ran (`provenance`)."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    schema_version: int = SCHEMA
    key: str
    victim_key: str
    grid: str
    dataset: Stage
    dataset_fingerprint: str
    holdout: dict[str, Any]
    model: Stage
    recipe: dict[str, Any]
    attack: Stage
    defense: list[Stage]
    """One stage, or several for a chain; `none` is a stage of that name."""
    seed: int
    status: Status
    error: str | None = None
    log: str | None = None
    weights: str | None = None
    """sha256 of the victim's weights, so that mixtures are noticed."""
    measures: dict[str, Any] = Field(default_factory=dict)
    trajectory: list[dict[str, Any]] = Field(default_factory=list)
    tables: dict[str, list[dict[str, Any]]] = Field(default_factory=dict)
    provenance: dict[str, Any] = Field(default_factory=dict)

    @property
    def defense_name(self) -> str:
        return " + ".join(stage.name for stage in self.defense)

    @property
    def defense_config(self) -> dict[str, Any]:
        """The stage's options; for a chain, those of each stage under its name."""
        if len(self.defense) == 1:
            return self.defense[0].config
        return {f"{index}:{stage.name}": stage.config for index, stage in enumerate(self.defense)}

    def flat(self) -> dict[str, Any]:
        """One flat record with the fields that design.md lists; null where a measure does not apply."""
        record: dict[str, Any] = {
            "dataset": self.dataset.name,
            "model": self.model.name,
            "attack": self.attack.name,
            "attack_config": self.attack.config,
            "defense": self.defense_name,
            "defense_config": self.defense_config,
            "seed": self.seed,
            "status": self.status,
        }
        record |= {name: self.measures.get(name) for name in MEASURES}
        record |= {name: self.provenance.get(name) for name in ("device", "gatecrash_version")}
        return record | {"key": self.key, "error": self.error}


MEASURES = (
    "acc",
    "asr",
    "asr_worst",
    "asr_floor",
    "ra",
    "acc_before",
    "asr_before",
    "der",
    "clean_reject_rate",
    "trigger_reject_rate",
    "detection_tpr",
    "detection_fpr",
    "detection_auroc",
    "verdict",
    "verdict_targets",
    "poison_share",
    "holdout_size",
    "seconds_victim",
    "seconds_defense",
    "peak_memory_mb",
)
"""The measures of a flat record, in its order; `Result.measures` may hold more."""
