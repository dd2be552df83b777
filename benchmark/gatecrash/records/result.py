"""The stored result of a cell, and the flat record that people and tables read."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer

from gatecrash.records.kept import Kept
from gatecrash.records.measures import COLUMNS, Measures, TrajectoryStep
from gatecrash.records.provenance import Provenance
from gatecrash.records.sealed import sealed, unsealed
from gatecrash.records.stage import Stage

SCHEMA = 1


Status = Literal["ok", "failed", "victim-failed", "not-applicable"]


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
    evaluation: dict[str, Any] = Field(default_factory=dict)
    """What the evaluation measured beyond the scores of every cell, by option: its version and settings."""
    attack: Stage
    defense: list[Stage]
    """One stage, or several for a chain; `none` is a stage of that name."""
    access: str | None = None
    """The defense's access class (`gatecrash.Access`), within which it is ranked; None for `none`."""
    gives: list[str] | None = None
    """What the defense, or all stages of a chain together, hand back (values of `gatecrash.Give`)."""
    seed: int
    status: Status
    error: str | None = None
    log: str | None = None
    weights: str | None = None
    """sha256 of the victim's weights, so that mixtures are noticed."""
    notes: list[str] = Field(default_factory=list)
    """What a reader of the attack's numbers on this dataset should know; found when planning."""
    measures: Measures = Measures()
    trajectory: list[TrajectoryStep] = Field(default_factory=list)
    tables: dict[str, list[dict[str, Any]]] = Field(default_factory=dict)
    figures: dict[str, str] = Field(default_factory=dict)
    """Path of each picture, relative to the store."""
    skipped: list[int] = Field(default_factory=list)
    """Places in `defense` of the conditional stages that did not run."""
    kept: Kept | None = None
    """What the defense produced, in files of their own; None where there is nothing, or an older version computed the cell."""
    provenance: Provenance = Provenance()

    @property
    def defense_name(self) -> str:
        return " + ".join(stage.name for stage in self.defense)

    @property
    def defense_config(self) -> dict[str, Any]:
        """The stage's options; for a chain, those of each stage under its name."""
        if len(self.defense) == 1:
            return _with_conditions(self.defense[0])
        return {f"{index}:{stage.name}": _with_conditions(stage) for index, stage in enumerate(self.defense)}

    @model_serializer(mode="wrap")
    def _without_what_is_empty(self, fields_of: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Results from before these fields stay as they are, to the digest: pictures of published boards name it."""
        fields: dict[str, Any] = fields_of(self)
        return {name: value for name, value in fields.items() if name not in {"notes", "skipped", "evaluation"} or value}

    def to_text(self) -> str:
        """The stored form, with a digest."""
        return sealed(self.model_dump(mode="json", exclude=None if self.kept else {"kept"}))

    @classmethod
    def from_text(cls, text: str | bytes) -> Self:
        """Read the stored form. Raises ValueError for anything damaged or edited, UserError for what a newer Gatecrash wrote."""
        return cls.model_validate(unsealed(text, SCHEMA))

    def flat(self) -> dict[str, Any]:
        """One flat record, as `gatecrash results` prints it; None where a measure does not apply.

        The columns after `error` are the rest of what makes a cell another one.
        """
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
        record |= {name: getattr(self.measures, name) for name in COLUMNS}
        record |= {"device": self.provenance.device, "gatecrash_version": self.provenance.gatecrash_version}
        return record | {"key": self.key, "error": self.error} | self._setting()

    def _setting(self) -> dict[str, Any]:
        stages = {"dataset": self.dataset, "model": self.model, "attack": self.attack}
        stages |= {f"defense {index}" if len(self.defense) > 1 else "defense": stage for index, stage in enumerate(self.defense)}
        harness = {"engine": self.provenance.engine_version, "evaluation": self.provenance.evaluation_version}
        contents = {f"{part} {name}".strip(): held for part, stage in stages.items() for name, held in stage.content.items()}
        return {
            "grid": self.grid,
            "dataset_config": self.dataset.config,
            "dataset_fingerprint": self.dataset_fingerprint,
            "holdout": self.holdout,
            "model_config": self.model.config,
            "recipe": self.recipe,
            "victim_key": self.victim_key,
            "weights": self.weights,
            "versions": harness | {part: stage.version for part, stage in stages.items()},
            "contents": contents,
            "evaluation": self.evaluation,
        }


def _with_conditions(stage: Stage) -> dict[str, Any]:
    """The options, and what a grid says of the stage beside them."""
    return stage.config | {name: value for name, value in (("when", stage.when), ("clean", stage.clean)) if value}
