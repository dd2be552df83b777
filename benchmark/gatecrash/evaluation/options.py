"""What a grid can ask of the evaluation beyond the scores of every cell. Imports no torch: planning reads it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_validator

from gatecrash.errors import UserError
from gatecrash.versions import RETUNE_VERSION, ROBUSTNESS_VERSION

TRANSFORMED = ("rotation", "jitter", "blur", "shift", "crop", "jpeg-90", "jpeg-70", "jpeg-50", "scaling", "noise")
"""Names of the transformations of `robustness`, in the order of tables and figures; `evaluation.robustness` has them."""


RETUNE_SHARE, RETUNE_LEAST = 0.02, 500
"""Share of the training set that `retune` takes, and how few rows it does not take unless they are asked for."""


class RetuneConfig(BaseModel):
    """Options of `retune`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rows: int | None = Field(
        None, ge=50, le=10_000_000, description="training rows to fine-tune on; by default 2% of the training set, if that is 500 or more"
    )

    def count(self, train_size: int) -> int:
        """How many rows of a training set of that size. Raises UserError where 2% are too few."""
        count = round(RETUNE_SHARE * train_size) if self.rows is None else self.rows
        if self.rows is None and count < RETUNE_LEAST:
            raise UserError(
                f"evaluation.retune: 2% of {train_size:,} training images are {count}, fewer than the protocol's {RETUNE_LEAST}; "
                "give a number, as in retune: {rows: 300}, and results are marked with it"
            )
        if count > train_size:
            raise UserError(f"evaluation.retune.rows: {count:,} of {train_size:,} training images; use fewer")
        return count


class EvaluationConfig(BaseModel):
    """Options of the evaluation: `evaluation: {robustness: true}` in a grid. What is off stands in no key and in no result."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    robustness: bool = Field(
        False,
        description="measure ACC and ASR again with every test image, clean or triggered, rotated, recoloured, blurred, shifted, cropped, "
        "saved as JPEG, scaled down and up, and noisy",
    )

    retune: RetuneConfig | None = Field(
        None,
        description="fine-tune what the defense returned on a little data of which five rows carry the trigger: is the backdoor gone or "
        "asleep? True, or {rows: number}",
    )

    @field_validator("retune", mode="before")
    @classmethod
    def _on_or_off(cls, value: Any) -> Any:
        return ({} if value else None) if isinstance(value, bool) else value

    def asked(self) -> dict[str, Any]:
        """The options that are on, each with the version of what it measures: what enters cell keys and results. JSON."""
        found: dict[str, Any] = {"robustness": {"version": ROBUSTNESS_VERSION}} if self.robustness else {}
        if self.retune is not None:
            found["retune"] = {"version": RETUNE_VERSION, **self.retune.model_dump(exclude_none=True)}
        return found


def as_written(asked: Mapping[str, Any]) -> dict[str, Any]:
    """The options that a result was measured with, as a grid writes them."""
    return {name: {key: value for key, value in options.items() if key != "version"} or True for name, options in asked.items()}
