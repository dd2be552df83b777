"""Grid -> victims and cells with content keys. Imports neither torch nor ray.

A key says what is the same result: it covers everything that may change the numbers (dataset content, plugins with their versions and
non-default options, seed, engine) and nothing else (not the device, the threads, the grid's name or its order).
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from gatecrash.datasets.holdout import remaining_counts
from gatecrash.datasets.preparation import PreparedDataset
from gatecrash.errors import OutOfReach, UserError
from gatecrash.host.host import Host
from gatecrash.planning.fitting import check_model, fitted, notes_on
from gatecrash.planning.resolve import Chain, ConfiguredPlugin, ResolvedGrid, check_size
from gatecrash.planning.selection import Only, selected
from gatecrash.records.labels import labels
from gatecrash.records.plan import NONE, Cell, Plan, Victim
from gatecrash.versions import ENGINE_VERSION, EVALUATION_VERSION


@dataclass(frozen=True)
class _Found:
    """What planning found of an attack on this dataset."""

    notes: tuple[str, ...] = ()
    out_of_reach: str = ""
    """`Victim.out_of_reach`."""


def make_plan(
    resolved: ResolvedGrid, prepared: PreparedDataset, host: Host, *, only: Only | None = None, seeds: Iterable[int] | None = None
) -> Plan:
    """Victims and cells of the grid. Raises UserError where something cannot work on this dataset (found before anything runs)."""
    resolved = fitted(resolved, prepared)
    grid, wanted = resolved.grid, only or {}
    planned_seeds = chosen_seeds(resolved, seeds)
    attacks, chains = _benign_first(resolved.attacks, host), _undefended_first(resolved.defenses, host)
    found = _check_dataset(resolved, attacks, prepared)
    for chain in chains:
        _check_chain(chain)
    victims = _victims(resolved, prepared, list(zip(attacks, found, strict=True)), planned_seeds)
    evaluation = grid.evaluation.asked()
    if grid.evaluation.retune is not None:
        grid.evaluation.retune.count(sum(remaining_counts(prepared, grid.holdout)))
    cells = _cells(victims.values(), chains, evaluation)
    plan = Plan(
        grid=grid.name,
        dataset=resolved.dataset.stage,
        fingerprint=prepared.fingerprint,
        model=resolved.model.stage,
        recipe=resolved.recipe.model_dump(mode="json"),
        holdout=grid.holdout.model_dump(mode="json"),
        victims=victims,
        cells=cells,
        evaluation=evaluation,
    )
    return _narrowed(replace(plan, selected=selected(plan, wanted)))


def _victims(
    resolved: ResolvedGrid, prepared: PreparedDataset, attacks: Sequence[tuple[ConfiguredPlugin, _Found]], seeds: Sequence[int]
) -> dict[str, Victim]:
    """One victim per seed and attack (with what was found of it); the first attack is `none`."""
    holdout = resolved.grid.holdout.model_dump(mode="json", exclude_defaults=True)
    recipe = resolved.recipe.model_dump(mode="json", exclude_defaults=True)
    shared = [prepared.fingerprint, holdout, resolved.model.identity, recipe, ENGINE_VERSION]
    cost = float(sum(remaining_counts(prepared, resolved.grid.holdout)) * resolved.recipe.epochs)
    names = labels([(attack.stage,) for attack, _ in attacks])
    victims: dict[str, Victim] = {}
    for seed in seeds:
        benign: str | None = None
        for (attack, found), name in zip(attacks, names, strict=True):
            needs_benign = bool(attack.instance.needs_benign)
            made_from = [seed, [benign] if needs_benign else []]
            key = _digest("victim", shared, attack.identity, *made_from)
            preparation = _digest("preparation", shared, attack.preparation_identity, *made_from) if attack.plugin.cls.prepares() else None
            victims[key] = Victim(key, attack.stage, seed, benign, needs_benign, cost, found.notes, name, found.out_of_reach, preparation)
            benign = benign or key
    return victims


def _cells(victims: Iterable[Victim], chains: Sequence[Chain], evaluation: Mapping[str, Any]) -> dict[str, Cell]:
    """Every victim under every defense; the first defense is `none`, whose cell is the baseline of the others.

    Options of the `evaluation` enter a key only where there are any: what is off changes no key.
    """
    asked = [evaluation] if evaluation else []
    cells: dict[str, Cell] = {}
    defenses = [(tuple(part.stage for part in chain), [part.identity for part in chain]) for chain in chains]
    names = labels([stages for stages, _ in defenses])
    for victim in victims:
        baseline: str | None = None
        for (stages, identity), name in zip(defenses, names, strict=True):
            key = _digest("cell", victim.key, identity, EVALUATION_VERSION, *asked)
            cells[key] = Cell(key, victim, stages, baseline, name)
            baseline = baseline or key
    return cells


def _benign_first(attacks: Sequence[ConfiguredPlugin], host: Host) -> list[ConfiguredPlugin]:
    """The attacks with `none` in front, once: other victims depend on it."""
    plugin = host.get("attack", NONE)
    return [ConfiguredPlugin(plugin, plugin.configure()), *(attack for attack in attacks if attack.name != NONE)]


def _undefended_first(chains: Sequence[Chain], host: Host) -> list[Chain]:
    """The defenses with `none` in front, once: it gives the others their baseline."""
    plugin = host.get("defense", NONE)
    return [(ConfiguredPlugin(plugin, plugin.configure()),), *(chain for chain in chains if [part.name for part in chain] != [NONE])]


def _check_dataset(resolved: ResolvedGrid, attacks: Sequence[ConfiguredPlugin], prepared: PreparedDataset) -> list[_Found]:
    """Check that the model and every attack can work on this dataset; what is to be said of each attack there.

    Of an attack with several options, those that are out of reach are told; one that has only such options is refused.
    """
    from gatecrash.contracts.attack import DatasetInfo  # imports torch

    counts = remaining_counts(prepared, resolved.grid.holdout)
    info = DatasetInfo(prepared.name, prepared.classes, prepared.shape, counts)
    check_model(resolved.model, info.num_classes, info.shape)
    found, refused = [], dict[str, OutOfReach]()
    for attack in attacks:
        try:
            attack.instance.check(info)
            found.append(_Found(notes_on(attack, info.classes, attack.instance.notes(info))))
        except OutOfReach as error:
            refused.setdefault(attack.name, error)
            found.append(_Found(out_of_reach=str(error)))
    works = {attack.name for attack, each in zip(attacks, found, strict=True) if not each.out_of_reach}
    for name, refusal in refused.items():
        if name not in works:
            raise refusal
    return found


def _check_chain(chain: Chain) -> None:
    names = [part.name for part in chain]
    if len(chain) > 1 and NONE in names:
        raise UserError(f"chain [{', '.join(names)}]: 'none' is no stage of a chain")
    for index, part in enumerate(chain):
        if part.when and not any("verdict" in before.plugin.cls.gives for before in chain[:index]):
            raise UserError(
                f"chain [{', '.join(names)}]: {part.name} runs when the model is accused, but no stage before it gives a verdict; "
                "put a defense that gives one in front"
            )
    for before, after in itertools.pairwise(chain):
        if "reject" in before.plugin.cls.gives and "model" in after.plugin.cls.needs:
            raise UserError(
                f"chain [{', '.join(names)}]: {before.name} gives a rejecting classifier, which {after.name} cannot take; "
                f"put {before.name} last"
            )


def chosen_seeds(resolved: ResolvedGrid, seeds: Iterable[int] | None = None) -> list[int]:
    """The distinct seeds, by default the grid's. Raises UserError for none, and for a grid of too many cells."""
    chosen = list(dict.fromkeys(resolved.grid.seeds if seeds is None else seeds))
    if not chosen:
        raise UserError("no seed is selected")
    attacks = 1 + sum(attack.name != NONE for attack in resolved.attacks)
    defenses = 1 + sum([part.name for part in chain] != [NONE] for chain in resolved.defenses)
    check_size(attacks, defenses, len(chosen))
    return chosen


def _narrowed(plan: Plan) -> Plan:
    """Only the selected cells and what they depend on: their baselines, victims and benign victims."""
    keep = plan.selected | {plan.cells[key].baseline for key in plan.selected}
    cells = {key: cell for key, cell in plan.cells.items() if key in keep}
    used = {key for cell in cells.values() for key in (cell.victim.key, cell.victim.benign)}
    return replace(plan, cells=cells, victims={key: victim for key, victim in plan.victims.items() if key in used})


def _digest(*parts: Any) -> str:
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:40]
