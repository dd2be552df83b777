"""Options that name a second data set: public images, reflections, a shift."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator

from gatecrash.contracts.config import find_mark


@dataclass(frozen=True)
class _NamesDataset:
    """Marks an option whose value is a data set, as a grid's `dataset` is."""


def _checked(value: Any) -> Any:
    """A name, or `{name: {option: value}}`; which names and options there are is known to the host."""
    if isinstance(value, str) and value:
        return value
    if isinstance(value, dict) and len(value) == 1:
        name, options = next(iter(value.items()))
        if isinstance(name, str) and name and (options is None or isinstance(options, dict)):
            return {name: options or {}}
    raise ValueError("a data set is its name, or {name: {option: value}}")


DatasetRef = Annotated[str | dict[str, Any], BeforeValidator(_checked), _NamesDataset()]
"""Type of an option that names a second data set: `cifar100`, or `{cifar100: {limit: 1000}}`.

The plugin finds its training images in `ctx.datasets` or `evidence.datasets` by the option's name: an `ImageSet` with labels and classes of
its own, whose images have the shape of the grid's (grey and RGB are turned into each other, other sizes are resized without keeping the
aspect ratio). Keys have its fingerprint in place of its name. None can name the grid's own.
"""


def dataset_references(config: BaseModel) -> dict[str, tuple[str, dict[str, Any]]]:
    """By option, name and options of each data set that `config` names; options that are None name none."""
    found = {}
    for option, info in type(config).model_fields.items():
        value = getattr(config, option)
        if value is None or find_mark((*info.metadata, info.annotation), _NamesDataset) is None:
            continue
        [(name, options)] = [(value, {})] if isinstance(value, str) else list(value.items())
        found[option] = name, dict(options)
    return found
