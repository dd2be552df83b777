"""A plugin as a stored record names it."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer

PLUGIN_FILE = ""
"""Stands in `Stage.content` for the plugin's own code."""
DATASET = "dataset:"
"""Start of what `Stage.content` has for an option that names a second data set; its fingerprint follows."""


class Stage(BaseModel):
    """A plugin with the options it ran with (defaults included) and its version."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    name: str
    version: int = 1
    config: dict[str, Any] = Field(default_factory=dict)
    content: dict[str, str] = Field(default_factory=dict)
    """Hashes of what decides the numbers beside name, version and options: of each file or second data set that an option names, by that
    option, and of the code of a `--plugins` file, under "". Empty for a shipped plugin without such options, and where an older version
    recorded none."""
    when: Literal["accused"] | None = None
    """Of a stage of a chain that runs only if the stages before it call the model backdoored; None for one that always runs."""

    clean: dict[str, Any] | None = None
    """Kind and number of the clean images that the defense is given, where it is not the whole hold-out."""

    @property
    def datasets(self) -> dict[str, str]:
        """By option, the fingerprints of the second data sets that the options name."""
        return {option: text.removeprefix(DATASET) for option, text in self.content.items() if text.startswith(DATASET)}

    @model_serializer(mode="wrap")
    def _without_what_is_not_set(self, fields_of: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Results that have no content are written as they were read: published boards carry hashes of their text."""
        fields: dict[str, Any] = fields_of(self)
        return {name: value for name, value in fields.items() if name not in {"content", "when", "clean"} or value}
