"""Which cells were measured with other versions of plugins or of the harness than those installed here."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from gatecrash.contracts.config import VERSION
from gatecrash.errors import UserError
from gatecrash.host.host import Host
from gatecrash.host.kinds import PluginKind
from gatecrash.host.traits import defense_traits
from gatecrash.records.result import Result
from gatecrash.records.stage import PLUGIN_FILE, Stage
from gatecrash.versions import ENGINE_VERSION, EVALUATION_VERSION, ROBUSTNESS_VERSION


def outdated(results: Iterable[Result], host: Host) -> dict[str, str]:
    """Reasons by cell key, for the cells that this checkout would measure with other versions.

    The version of a plugin that is not installed here is unknown: its cells do not count as outdated for it.
    """
    reasons = {result.key: _reason(result, host) for result in results}
    return {key: reason for key, reason in reasons.items() if reason}


def _reason(result: Result, host: Host) -> str:
    stages: list[tuple[PluginKind, Stage]] = [
        ("model", result.model),
        ("attack", result.attack),
        *(("defense", stage) for stage in result.defense),
    ]
    changes = []
    for kind, stage in stages:
        plugin = host.plugins.get((kind, stage.name))
        if plugin is None:
            continue
        if plugin.cls.version != stage.version:
            changes.append(f"{kind} {stage.name} {stage.version} -> {plugin.cls.version}")
        elif stage.content.get(PLUGIN_FILE) not in {None, plugin.content}:
            changes.append(f"{kind} {stage.name}: its file has changed")
        changes += _nested_changes(stage, host)
    source = result.provenance
    for name, stored, current in (
        ("engine version", source.engine_version, ENGINE_VERSION),
        ("evaluation version", source.evaluation_version, EVALUATION_VERSION),
    ):
        if stored not in {None, current}:
            changes.append(f"{name} {stored} -> {current}")
    for option, version in {"robustness": ROBUSTNESS_VERSION}.items():
        stored = result.evaluation.get(option, {}).get("version")
        if stored not in {None, version}:
            changes.append(f"{option} of the evaluation {stored} -> {version}")
    return ", ".join(changes)


def _nested_changes(stage: Stage, host: Host) -> Iterator[str]:
    """Of the triggers that the options name."""
    for path, version in stage.content.items():
        name = path.removesuffix(VERSION).rpartition(".")[2]
        plugin = host.plugins.get(("trigger", name)) if path.endswith(VERSION) else None
        if plugin is not None and str(plugin.cls.version) != version:
            yield f"trigger {name} {version} -> {plugin.cls.version}"


def with_traits(results: Iterable[Result], host: Host) -> list[Result]:
    """The results; `access` and `gives` of the defense are filled in where an older version did not record them."""
    return [_with_traits(result, host) for result in results]


def _with_traits(result: Result, host: Host) -> Result:
    if result.gives is not None:
        return result
    try:
        return result.model_copy(update=defense_traits(host, result.defense))
    except UserError:  # a defense that is not installed here
        return result
