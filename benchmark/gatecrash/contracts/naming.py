"""Options that name another plugin, with options of its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pydantic import GetCoreSchemaHandler, PlainSerializer, ValidationInfo
from pydantic_core import CoreSchema, core_schema

from gatecrash.contracts.config import Nested
from gatecrash.errors import UserError

Find = Callable[[str, dict[str, Any]], Nested]
"""From a trigger's name and options to the plugin; the host passes it as `triggers` of the validation context."""


@dataclass(frozen=True)
class NamesTrigger:
    """Marks an option whose value is a trigger plugin with its options."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.with_info_plain_validator_function(_found)


def _found(value: Any, info: ValidationInfo) -> Nested:
    if isinstance(value, Nested):
        return value
    entry = (value, None) if isinstance(value, str) else next(iter(value.items())) if _is_entry(value) else ("", None)
    name, options = entry
    if not isinstance(name, str) or not name or not isinstance(options, dict | None):
        raise ValueError("write a trigger's name, or {name: {option: value}}")
    find: Find | None = (info.context or {}).get("triggers")
    if find is None:
        raise ValueError(f"the trigger {name!r} is known by name to the host only; give a TriggerMaker here")
    try:
        return find(name, options or {})
    except UserError as error:
        raise ValueError(str(error)) from None


def _is_entry(value: Any) -> bool:
    return isinstance(value, dict) and len(value) == 1


def _written(nested: Nested) -> dict[str, Any]:
    return {nested.name: nested.config.model_dump(mode="json")}


as_entry = PlainSerializer(_written)
"""Writes a plugin as `{name: {option: value}}`."""
