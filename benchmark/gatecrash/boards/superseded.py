"""Which results count where a store has older ones beside them: one table holds one version of each thing, the newest.

A result is newer if its cell is in a later run of the store, or else by its date. What is compared is what keys are made of: versions, the
code of plugin files, the content of files that options name, and the weights of the victim.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from gatecrash.records.labels import canonical, identity
from gatecrash.records.result import Result
from gatecrash.records.stage import PLUGIN_FILE, Stage


def newest(results: Iterable[Result], run_of: Mapping[str, int] | None = None) -> tuple[list[Result], dict[str, str]]:
    """The results that count, and by key why each of the others does not. `run_of` numbers the last run of a cell, by key.

    Of results that are equally new the later in `results` counts.
    """
    ranks = run_of or {}
    known = _with_known_content(list(results))
    kept = sorted(known, key=lambda result: (ranks.get(result.key, -1), result.provenance.date or ""))
    older: dict[str, str] = {}
    for rule in _RULES:
        last = {rule.group(result): rule.version(result) for result in kept if rule.version(result) is not None}
        older |= {result.key: rule.text(result) for result in kept if rule.version(result) not in {None, last.get(rule.group(result))}}
        kept = [result for result in kept if result.key not in older]
    return [result for result in known if result.key not in older], older


def table_position(result: Result) -> tuple[str, str, int]:
    """A result's attack, defense (with their options) and seed; versions do not count."""
    return identity([result.attack]), identity(result.defense), result.seed


def _with_known_content(results: Collection[Result]) -> list[Result]:
    """Older versions did not record what files held: results of one victim have one attack, and so the content that another one tells."""
    known = {result.victim_key: result.attack.content for result in results if result.attack.content}
    return [_with_attack_content(result, known.get(result.victim_key)) for result in results]


def _with_attack_content(result: Result, content: Mapping[str, str] | None) -> Result:
    if not content or result.attack.content:
        return result
    return result.model_copy(update={"attack": result.attack.model_copy(update={"content": content})})


def _harness(result: Result) -> Hashable:
    """Versions of what all cells of a table share; before they were recorded there was only the first."""
    source = result.provenance
    return result.model.version, canonical(result.model.content), source.engine_version or 1, source.evaluation_version or 1


def _harness_text(result: Result) -> str:
    source = result.provenance
    return (
        f"model {result.model.name} {result.model.version}, engine version {source.engine_version or 1}, "
        f"evaluation version {source.evaluation_version or 1}"
    )


def written(stages: Iterable[Stage]) -> str:
    """Names and options as they were written: files by their paths."""
    return canonical([(stage.name, stage.config) for stage in stages])


def _version(stages: Iterable[Stage]) -> str:
    return canonical([(stage.version, stage.content) for stage in stages])


def _version_text(kind: str, stages: Sequence[Stage]) -> str:
    names = " + ".join(f"{stage.name} {stage.version}" for stage in stages)
    held = {name for stage in stages for name in stage.content}
    files = sorted({"the plugin's file" if name == PLUGIN_FILE else f"the file of {name}" for name in held})
    return f"{kind} {names}" + (f" ({' or '.join(files)} has changed since)" if files else "")


@dataclass(frozen=True)
class _Rule:
    """Results of one group count only if they are of the newest one's version; one without a version (None) always does."""

    group: Callable[[Result], Hashable]
    version: Callable[[Result], Hashable]
    text: Callable[[Result], str]
    """What an older result was measured with."""


_RULES = (
    _Rule(lambda _: "all", _harness, _harness_text),
    _Rule(
        lambda result: written([result.attack]),
        lambda result: _version([result.attack]),
        lambda result: _version_text("attack", [result.attack]),
    ),
    _Rule(
        lambda result: written(result.defense),
        lambda result: _version(result.defense),
        lambda result: _version_text("defense", result.defense),
    ),
    _Rule(
        lambda result: table_position(result)[::2],
        lambda result: result.victim_key,
        lambda result: f"another victim of {result.attack.name} (seed {result.seed})",
    ),
    _Rule(
        lambda result: result.victim_key,
        lambda result: result.weights,
        lambda result: f"another training of {result.attack.name} (seed {result.seed})",
    ),
    _Rule(
        table_position,
        lambda result: result.key,
        lambda result: f"an older measurement of {result.attack.name} × {result.defense_name} (seed {result.seed})",
    ),
)
