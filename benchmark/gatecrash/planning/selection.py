"""Which attacks and defenses of a grid are meant: by name, by name and options, or by their label."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import yaml

from gatecrash.errors import UserError
from gatecrash.records.labels import Stages, flattened
from gatecrash.records.plan import Cell, Plan

Only = Mapping[str, Collection[str]]
"""What to keep, by "attack" and "defense": texts that `means` understands."""
_WITH_OPTIONS = re.compile(r"(.+?)\s*\((.*)\)", re.DOTALL)


def split_names(text: str) -> list[str]:
    """The parts between commas; commas within brackets divide nothing."""
    parts, depth = [""], 0
    for character in text:
        depth += (character in "([{") - (character in ")]}")
        if character == "," and depth <= 0:
            parts.append("")
        else:
            parts[-1] += character
    return [part.strip() for part in parts if part.strip()]


def means(text: str, label: str, stages: Stages) -> bool:
    """Whether `text` is the label, the name of a stage, or such a name with options: `fine-pruning(threshold=0.8)`."""
    if "".join(text.split()) == "".join(label.split()) or text in {stage.name for stage in stages}:
        return True
    match = _WITH_OPTIONS.fullmatch(text)
    if match is None:
        return False
    wanted = [part.partition("=") for part in split_names(match[2])]
    return any(
        stage.name == match[1] and all(_has(flattened(stage.config), name.strip(), value.strip()) for name, _, value in wanted)
        for stage in stages
    )


def selected(plan: Plan, only: Only) -> frozenset[str]:
    """Keys of the cells that `only` keeps. Raises UserError for what fits nothing in the grid."""
    found = {key for key, cell in plan.cells.items() if all(_fits(cell, kind, texts) for kind, texts in only.items())}
    for kind, texts in only.items():
        for text in texts:
            if not any(_fits(cell, kind, [text]) for cell in plan.cells.values()):
                known = ", ".join(sorted({_plugin(cell, kind)[0] for cell in plan.cells.values()}))
                raise UserError(f"--only {kind}={text}: the grid has no such {kind}; it has {known}")
    return frozenset(found)


def _fits(cell: Cell, kind: str, texts: Collection[str]) -> bool:
    label, stages = _plugin(cell, kind)
    return any(means(text, label, stages) for text in texts)


def _plugin(cell: Cell, kind: str) -> tuple[str, Stages]:
    if kind == "attack":
        return cell.victim.title, (cell.victim.attack,)
    if kind == "defense":
        return cell.defense_title, cell.defense
    raise UserError(f"--only {kind}=...: filter by attack=NAME or defense=NAME")


def _has(options: Mapping[str, Any], name: str, text: str) -> bool:
    if name not in options:
        return False
    value: Any = options[name]
    try:
        given: Any = yaml.safe_load(text)
    except yaml.YAMLError:
        given = text
    same_kind: Sequence[Any] = (type(value) is type(given), {type(value), type(given)} <= {int, float})
    return (value == given and any(same_kind)) or str(value) == text
