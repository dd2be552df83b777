"""What of a grid depends on its dataset: class names become numbers, an adaptive recipe gets its epochs, and what to tell of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from pydantic import ValidationError

from gatecrash.contracts.class_label import misleading_numbers, numbered
from gatecrash.contracts.recipe import recipe_from
from gatecrash.datasets.holdout import remaining_counts
from gatecrash.datasets.preparation import PreparedDataset
from gatecrash.errors import UserError
from gatecrash.planning.grid import explain
from gatecrash.planning.resolve import ConfiguredPlugin, ResolvedGrid


def fitted(resolved: ResolvedGrid, prepared: PreparedDataset) -> ResolvedGrid:
    """The grid on this dataset. Raises UserError for a class that it does not have."""
    images = sum(remaining_counts(prepared, resolved.grid.holdout))
    return replace(
        resolved,
        recipe=recipe_from(resolved.grid.recipe, images),
        attacks=tuple(_with_numbers(attack, prepared.classes) for attack in resolved.attacks),
        defenses=tuple(tuple(_with_numbers(stage, prepared.classes) for stage in chain) for chain in resolved.defenses),
    )


def notes_on(attack: ConfiguredPlugin, classes: Sequence[str], found: Sequence[str]) -> tuple[str, ...]:
    """What a reader of this attack's numbers should know: `found` by the attack itself, and class numbers that look like names."""
    return (*misleading_numbers(attack.instance.config, classes, attack.name), *found)


def _with_numbers(configured: ConfiguredPlugin, classes: Sequence[str]) -> ConfiguredPlugin:
    config = configured.instance.config
    numbers = numbered(config, classes, configured.name)
    if not numbers:
        return configured
    fields = {name: getattr(config, name) for name in type(config).model_fields} | numbers
    try:
        return ConfiguredPlugin(configured.plugin, configured.plugin.configure(fields))
    except ValidationError as error:  # source and target may be one class by two names
        raise UserError(explain(error, configured.name, type(config).model_fields)) from None
