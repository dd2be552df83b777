"""Options made anew from values, where options may name plugins that only a host knows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from pydantic import BaseModel

from gatecrash.contracts.config import Nested, nested_in
from gatecrash.errors import UserError

Model = TypeVar("Model", bound=BaseModel)


def changed(config: Model, **values: Any) -> Model:
    """The same options but for these values. Raises pydantic.ValidationError."""
    return type(config).model_validate({**dict(config), **values}, context=naming(config))


def naming(config: BaseModel) -> dict[str, Callable[[str, dict[str, Any]], Nested]]:
    """The validation context in which the plugins that the options have now are known by their names."""
    known = {nested.name: type(nested) for nested in nested_in(config)}

    def find(name: str, options: dict[str, Any]) -> Nested:
        if name not in known:
            raise UserError(f"unknown trigger {name!r}")
        cls: Any = known[name]
        made: Nested = cls(cls.Config.model_validate(options))
        return made

    return {"triggers": find}
