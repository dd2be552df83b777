"""What of a grid depends on its dataset: class names become numbers, an adaptive recipe gets its epochs, and what to tell of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from pydantic import ValidationError

from gatecrash.contracts.class_label import misleading_numbers, numbered
from gatecrash.contracts.recipe import recipe_from
from gatecrash.datasets.holdout import remaining_counts
from gatecrash.datasets.preparation import PreparedDataset
from gatecrash.errors import UserError, one_line
from gatecrash.planning.messages import explain
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


def check_model(model: ConfiguredPlugin, num_classes: int, shape: tuple[int, int, int]) -> None:
    """Raise UserError for a model that cannot take images `(channels, height, width)`, before anything is trained.

    Besides the model's own check, two empty images pass through it on the CPU: on torch's meta device a BatchNorm
    would import torch's compiler, which takes longer.
    """
    import torch

    model.instance.check(shape)
    try:
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            model.instance.build(num_classes, shape).eval()(torch.zeros(2, *shape))
    except UserError:
        raise
    except Exception as raised:  # a plugin's code
        channels, height, width = shape
        raise UserError(
            f"model {model.name} cannot take images of {height}x{width} with {channels} channels ({one_line(raised)[:160]}); "
            "choose another model or resize the dataset"
        ) from None


def _with_numbers(configured: ConfiguredPlugin, classes: Sequence[str]) -> ConfiguredPlugin:
    config = configured.instance.config
    numbers = numbered(config, classes, configured.name)
    if not numbers:
        return configured
    fields = {name: getattr(config, name) for name in type(config).model_fields} | numbers
    try:
        return replace(configured, instance=configured.plugin.configure(fields))
    except ValidationError as error:  # source and target may be one class by two names
        raise UserError(explain(error, configured.name, type(config).model_fields)) from None
