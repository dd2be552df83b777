"""Every value of the options that name their values, one option at a time."""

from __future__ import annotations

import types
import typing
from collections.abc import Callable, Iterator
from typing import Any, Literal

from pydantic import BaseModel, ValidationError

from gatecrash.testing.check import CheckFailed
from gatecrash.testing.options import changed


def choices(config: BaseModel) -> Iterator[tuple[str, Any, BaseModel | None]]:
    """(option, value, the options with it): each value but the present one of each `Literal` or bool option, the others as they are.

    The options are None where they refuse the value, as one-to-one is refused without a source class.
    """
    for name, info in type(config).model_fields.items():
        for value in _values(info.annotation):
            if value == getattr(config, name):
                continue
            try:
                yield name, value, changed(config, **{name: value})
            except ValidationError:
                yield name, value, None


def try_choices(config: BaseModel, run: Callable[[BaseModel], None]) -> str:
    """Run every choice, and say how many there were; raises CheckFailed, naming the option, for the first that fails."""
    tried, refused = 0, []
    for name, value, other in choices(config):
        if other is None:
            refused.append(f"{name}={value}")
            continue
        try:
            run(other)
        except CheckFailed as failure:
            raise CheckFailed(f"{name}={value!r} to work: {failure.expected}", failure.got, failure.mend) from failure
        tried += 1
    note = f"{tried} tried" if tried or refused else "no option names its values"
    return f"{note}; refused by the options themselves: {', '.join(refused)}" if refused else note


def _values(annotation: Any) -> tuple[Any, ...]:
    origin, parts = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Literal:
        return parts
    if annotation is bool:
        return False, True
    if origin in {typing.Union, types.UnionType, typing.Annotated}:
        return tuple(value for part in parts for value in (*_values(part), *((None,) if part is type(None) else ())))
    return ()
