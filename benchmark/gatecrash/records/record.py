"""The base of what is stored as JSON."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, SerializerFunctionWrapHandler, model_serializer


class Record(BaseModel):
    """A part of a stored file.

    Fields that a file does not have stay absent when it is written again, and fields of a newer version are kept: reading and writing a
    file gives the same text.
    """

    model_config = ConfigDict(frozen=True, extra="allow", allow_inf_nan=False)

    @model_serializer(mode="wrap")
    def _only_what_was_set(self, fields_of: SerializerFunctionWrapHandler) -> dict[str, Any]:
        fields: dict[str, Any] = fields_of(self)
        return {name: value for name, value in fields.items() if name in self.model_fields_set}
