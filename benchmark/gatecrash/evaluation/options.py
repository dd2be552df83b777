"""What a grid can ask of the evaluation beyond the scores of every cell. Imports no torch: planning reads it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from gatecrash.versions import ROBUSTNESS_VERSION

TRANSFORMED = ("rotation", "jitter", "blur", "shift", "crop", "jpeg-90", "jpeg-70", "jpeg-50", "scaling", "noise")
"""Names of the transformations of `robustness`, in the order of tables and figures; `evaluation.robustness` has them."""


class EvaluationConfig(BaseModel):
    """Options of the evaluation: `evaluation: {robustness: true}` in a grid. What is off stands in no key and in no result."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    robustness: bool = Field(
        False,
        description="measure ACC and ASR again with every test image, clean or triggered, rotated, recoloured, blurred, shifted, cropped, "
        "saved as JPEG, scaled down and up, and noisy",
    )

    def asked(self) -> dict[str, Any]:
        """The options that are on, each with the version of what it measures: what enters cell keys and results. JSON."""
        return {"robustness": {"version": ROBUSTNESS_VERSION}} if self.robustness else {}


def as_written(asked: Mapping[str, Any]) -> dict[str, Any]:
    """The options that a result was measured with, as a grid writes them."""
    return {name: {key: value for key, value in options.items() if key != "version"} or True for name, options in asked.items()}
