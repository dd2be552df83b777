"""Grid -> victims and cells with content keys. Imports neither torch nor ray.

A key says what is the same result: it covers everything that may change the numbers (dataset content, plugins with their versions and
non-default options, seed, engine) and nothing else (not the device, the threads, the grid's name or its order).
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from gatecrash.contracts.config import key_fields
from gatecrash.datasets.holdout import remaining_counts
from gatecrash.datasets.preparation import PreparedDataset
from gatecrash.errors import UserError
from gatecrash.host.host import Host
from gatecrash.planning.grid import MAX_CELLS
from gatecrash.planning.resolve import Choice, Resolved
from gatecrash.records.plan import NONE, Cell, Plan, Victim
from gatecrash.records.stage import Stage
from gatecrash.versions import ENGINE_VERSION, EVALUATION_VERSION


@dataclass(frozen=True)
class _Part:
    """A configured plugin, prepared once for all the keys that it enters."""

    stage: Stage
    identity: Any
    choice: Choice


def make_plan(
    resolved: Resolved,
    prepared: PreparedDataset,
    host: Host,
    *,
    only: Mapping[str, Collection[str]] | None = None,
    seeds: Iterable[int] | None = None,
) -> Plan:
    """Victims and cells of the grid. Raises UserError where something cannot work on this dataset (found before anything runs)."""
    from gatecrash.contracts.attack import DatasetInfo  # knows triggers, hence torch: not needed to import this module

    grid = resolved.grid
    counts = remaining_counts(prepared, grid.holdout)
    info = DatasetInfo(prepared.name, prepared.classes, prepared.shape, counts)
    resolved.model.instance.check(info.shape)
    attacks = [_part(choice) for choice in _with_none(resolved.attacks, host)]
    for part in attacks:
        part.choice.instance.check(info)
    chains = [[_part(choice) for choice in stages] for stages in _with_none_stage(resolved.defenses, host)]
    for chain in chains:
        _check_chain(chain)
    seed_list = list(dict.fromkeys(seeds)) if seeds is not None else grid.seeds
    if not seed_list:
        raise UserError("no seed is selected")
    if len(attacks) * len(chains) * len(seed_list) > MAX_CELLS:
        raise UserError(f"a grid of {len(attacks) * len(chains) * len(seed_list):,} cells; use at most {MAX_CELLS:,}")
    _check_only(only or {}, attacks, chains)

    holdout = grid.holdout.model_dump(mode="json", exclude_defaults=True)
    recipe = resolved.recipe.model_dump(mode="json", exclude_defaults=True)
    model = _part(resolved.model)
    ground = [prepared.fingerprint, holdout, model.identity, recipe, ENGINE_VERSION]
    victims: dict[str, Victim] = {}
    cells: dict[str, Cell] = {}
    selected: set[str] = set()
    cost = float(info.train_size * resolved.recipe.epochs)
    stages_of = [(tuple(part.stage for part in chain), [part.identity for part in chain]) for chain in chains]
    for seed in seed_list:
        benign: str | None = None
        for part in attacks:
            needs_benign = bool(part.choice.plugin.cls.needs_benign)
            depends = [benign] if needs_benign else []
            key = _digest("victim", ground, part.identity, seed, depends)
            victim = victims[key] = Victim(key, part.stage, seed, benign, needs_benign, cost)
            benign = benign or key
            baseline: str | None = None
            for stages, identity in stages_of:
                cell_key = _digest("cell", key, identity, EVALUATION_VERSION)
                cells[cell_key] = Cell(cell_key, victim, stages, baseline)
                baseline = baseline or cell_key
                if _matches(only or {}, part.stage.name, [stage.name for stage in stages]):
                    selected.add(cell_key)
    return _narrow(
        Plan(
            grid.name,
            _part(resolved.dataset).stage,
            prepared.fingerprint,
            model.stage,
            resolved.recipe.model_dump(mode="json"),
            grid.holdout.model_dump(mode="json"),
            victims,
            cells,
            frozenset(selected),
        )
    )


def _part(choice: Choice) -> _Part:
    cls, config = choice.plugin.cls, choice.instance.config
    identity = [choice.name, cls.version, key_fields(config), choice.plugin.content]
    return _Part(Stage(name=choice.name, version=cls.version, config=config.model_dump(mode="json")), identity, choice)


def _with_none(attacks: tuple[Choice, ...], host: Host) -> list[Choice]:
    """The benign attack first, once: other victims depend on it."""
    plugin = host.get("attack", NONE)
    return [Choice(plugin, plugin.configure()), *(choice for choice in attacks if choice.name != NONE)]


def _with_none_stage(defenses: tuple[tuple[Choice, ...], ...], host: Host) -> list[tuple[Choice, ...]]:
    plugin = host.get("defense", NONE)
    rest = [stages for stages in defenses if [choice.name for choice in stages] != [NONE]]
    return [(Choice(plugin, plugin.configure()),), *rest]


def _check_chain(chain: list[_Part]) -> None:
    names = [part.stage.name for part in chain]
    if len(chain) > 1 and NONE in names:
        raise UserError(f"chain [{', '.join(names)}]: 'none' is no stage of a chain")
    for before, after in itertools.pairwise(chain):
        gives, needs = set(before.choice.plugin.cls.gives), set(after.choice.plugin.cls.needs)
        if "reject" in gives and "model" in needs:
            raise UserError(
                f"chain [{', '.join(names)}]: {before.stage.name} gives a rejecting classifier, which {after.stage.name} "
                f"cannot take; put {before.stage.name} last"
            )


def _check_only(only: Mapping[str, Collection[str]], attacks: list[_Part], chains: list[list[_Part]]) -> None:
    known = {"attack": {part.stage.name for part in attacks}, "defense": {part.stage.name for chain in chains for part in chain}}
    for kind, names in only.items():
        if kind not in known:
            raise UserError(f"--only {kind}=...: filter by attack=NAME or defense=NAME")
        for name in names:
            if name not in known[kind]:
                raise UserError(f"--only {kind}={name}: the grid has no such {kind}; it has {', '.join(sorted(known[kind]))}")


def _matches(only: Mapping[str, Collection[str]], attack: str, defenses: list[str]) -> bool:
    return ("attack" not in only or attack in only["attack"]) and ("defense" not in only or bool(set(defenses) & set(only["defense"])))


def _narrow(plan: Plan) -> Plan:
    """Keep the selected cells and what they depend on: their baselines, victims and benign victims."""
    keep = dict.fromkeys(key for key in plan.cells if key in plan.selected)
    for key in list(keep):
        baseline = plan.cells[key].baseline
        if baseline is not None:
            keep.setdefault(baseline)
    cells = {key: cell for key, cell in plan.cells.items() if key in keep}
    used = {cell.victim.key for cell in cells.values()} | {cell.victim.benign for cell in cells.values() if cell.victim.benign}
    victims = {key: victim for key, victim in plan.victims.items() if key in used}
    return Plan(plan.grid, plan.dataset, plan.fingerprint, plan.model, plan.recipe, plan.holdout, victims, cells, frozenset(plan.selected))


def _digest(*parts: Any) -> str:
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:40]
