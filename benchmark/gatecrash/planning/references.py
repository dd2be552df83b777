"""The second data sets that options name (`DatasetRef`): found, decoded into the cache, and fit for the grid's images."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from pydantic import ValidationError

from gatecrash.contracts.dataset import DatasetConfig, Progress
from gatecrash.contracts.dataset_ref import dataset_references
from gatecrash.datasets.adapting import check_adaptable
from gatecrash.datasets.preparation import PreparedDataset, prepare_dataset
from gatecrash.errors import UserError
from gatecrash.host.host import Host
from gatecrash.planning.messages import explain
from gatecrash.planning.resolve import ConfiguredPlugin, ResolvedGrid


def with_datasets(resolved: ResolvedGrid, prepared: PreparedDataset, host: Host, progress: Progress | None = None) -> ResolvedGrid:
    """The grid with the data sets that its attacks and defenses name; `prepared` is the grid's own.

    Raises UserError for one that is unknown, has other options, cannot take the shape of the grid's images, or that is the grid's own.
    """
    found: dict[str, PreparedDataset] = {}

    def referring(configured: ConfiguredPlugin) -> ConfiguredPlugin:
        references = dataset_references(configured.instance.config)
        if not references:
            return configured
        datasets = {}
        for option, (name, options) in references.items():
            path = f"{configured.name}: {option}"
            key = json.dumps([name, options], sort_keys=True, default=str)
            instance = _configured(host, path, name, options)
            if _same_source(instance, resolved.dataset.instance):  # it also holds the images that only the defender has
                whose = "the defense is judged on" if configured.plugin.kind == "defense" else "is attacked"
                raise UserError(f"{path}: {name} is the data set that {whose}; name another one")
            if key not in found:
                found[key] = prepare_dataset(instance, progress=progress)
            check_adaptable(name, found[key].shape, prepared.shape)
            datasets[option] = found[key]
        return replace(configured, datasets=datasets)

    return replace(
        resolved,
        attacks=tuple(map(referring, resolved.attacks)),
        defenses=tuple(tuple(map(referring, chain)) for chain in resolved.defenses),
    )


def _configured(host: Host, path: str, name: str, options: dict[str, Any]) -> Any:
    try:
        plugin = host.get("dataset", name)
        return plugin.configure(options)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    except ValidationError as error:
        raise UserError(explain(error, f"{path}.{name}", plugin.cls.Config.model_fields)) from None


def _same_source(one: Any, other: Any) -> bool:
    """Whether two configured data sets differ in their limits at most."""
    limits = set(DatasetConfig.model_fields)
    return bool(one.name == other.name and one.config.model_dump(exclude=limits) == other.config.model_dump(exclude=limits))
