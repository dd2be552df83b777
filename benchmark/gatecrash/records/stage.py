"""A plugin as a stored record names it."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class Stage(BaseModel):
    """A plugin with the options it ran with (defaults included) and its version."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    name: str
    version: int = 1
    config: dict[str, Any] = Field(default_factory=dict)
