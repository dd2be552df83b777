"""Options that name a class of the dataset, by its number or by its name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator

from gatecrash.contracts.config import find_mark
from gatecrash.errors import UserError, did_you_mean


@dataclass(frozen=True)
class _NamesClass:
    """Marks an option whose value is a class of the dataset."""

    ge: int = 0
    """The smallest number, shown as the option's bound."""


def _checked(value: Any) -> Any:
    """Only whole numbers and text: YAML reads an unquoted `no` as false, which must not become class 0."""
    if isinstance(value, bool) or not isinstance(value, int | str) or value == "" or (isinstance(value, int) and value < 0):
        raise ValueError("a class is its number, from 0, or its name, in quotes where YAML would read something else")
    return value


ClassLabel = Annotated[int | str, BeforeValidator(_checked), _NamesClass()]
"""Type of an option that names a class: its number, from 0 in the dataset's order, or its name. Planning puts the number for a name."""


def numbered(config: BaseModel, classes: Sequence[str], who: str) -> dict[str, Any]:
    """The options of `config` that name a class of `classes` in words, with the class numbers that they stand for; also in options
    that are lists of options.

    Raises UserError, which begins with `who`, for a name that no class has.
    """
    found: dict[str, Any] = {
        option: _number(value, classes, f"{who}: {option}") for option, value in _labels(config).items() if isinstance(value, str)
    }
    for option, value in config:
        if isinstance(value, tuple) and any(isinstance(part, BaseModel) for part in value):
            parts = [_numbered_part(part, classes, f"{who}: {option}[{index}]") for index, part in enumerate(value)]
            if any(new is not old for new, old in zip(parts, value, strict=True)):
                found[option] = tuple(parts)
    return found


def _numbered_part(part: Any, classes: Sequence[str], who: str) -> Any:
    numbers = numbered(part, classes, who) if isinstance(part, BaseModel) else {}
    return type(part).model_validate({**dict(part), **numbers}) if numbers else part


def misleading_numbers(config: BaseModel, classes: Sequence[str], who: str) -> list[str]:
    """One line for each option that gives a class by a number which is another class's name (`10` comes before `2`)."""
    return [
        f"{who}: {option} {value} is class number {value}, which is called {classes[value]!r}; write '{value}' in quotes for the class "
        "of that name"
        for option, value in _labels(config).items()
        if isinstance(value, int) and value < len(classes) and str(value) in classes and classes[value] != str(value)
    ]


def _labels(config: BaseModel) -> Mapping[str, int | str | None]:
    marked = (
        name for name, info in type(config).model_fields.items() if find_mark((*info.metadata, info.annotation), _NamesClass) is not None
    )
    return {name: getattr(config, name) for name in marked}


def _number(name: str, classes: Sequence[str], what: str) -> int:
    if name in classes:
        return classes.index(name)
    hint = f"write {int(name)} without quotes for the class of that number" if name.isdecimal() else did_you_mean(name, classes)
    raise UserError(f"{what}: no class is called {name!r}; {hint}")
