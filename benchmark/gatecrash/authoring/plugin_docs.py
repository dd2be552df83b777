"""Documentation of plugins, made from the plugins: option tables for `gatecrash show`, and docs/reference/plugins.md.

`python -m gatecrash.authoring.plugin_docs FOLDER BOARDS` writes plugins.md and contracts.md (see `contract_docs`) into the folder. Costs
are taken from the published board `digits` where there is one. `make docs` does it for the repository.
"""

from __future__ import annotations

import json
import statistics
import sys
import types
import typing
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gatecrash.contracts.config import Nested

if TYPE_CHECKING:
    from pydantic import BaseModel

    from gatecrash.host.host import Host, Plugin
    from gatecrash.host.kinds import PluginKind
    from gatecrash.records.result import Result

    Costs = Mapping[tuple[PluginKind, str], str]


_BOUNDS = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}


_BOARD = "digits"


_TITLES = {"attack": "Attacks", "defense": "Defenses", "trigger": "Triggers", "dataset": "Datasets", "model": "Models"}


@dataclass(frozen=True)
class Option:
    """One field of a plugin's Config, as a person reads it."""

    name: str
    type: str
    default: str
    """JSON, or "required"."""
    limits: tuple[tuple[str, Any], ...]
    """(sign, value), such as (">=", 0)."""
    description: str
    is_number: bool
    """Whether it is an int or float (or one of them, or none), which should have limits."""

    @property
    def bounds(self) -> str:
        return ", ".join(f"{sign} {value}" for sign, value in self.limits)


def options_of(config: type[BaseModel]) -> list[Option]:
    """The options of a Config, in the order of definition."""
    return [
        Option(
            name=name,
            type=_type_name(info.annotation),
            default="required" if info.is_required() else json.dumps(info.get_default(call_default_factory=True), default=_default),
            limits=tuple(_limits(info.metadata)),
            description=info.description or "",
            is_number=_is_number(info.annotation),
        )
        for name, info in config.model_fields.items()
    ]


def _default(value: Any) -> Any:
    return value.name if isinstance(value, Nested) else str(value)


def needs_of(plugin: Plugin) -> str:
    """What an attack controls or a defense must be given, as one sentence; empty for other kinds."""
    cls = plugin.cls
    if plugin.kind == "attack":
        benign = "; needs the benign victim" if cls.needs_benign else ""
        return f"Controls: {cls.controls}; {'clean' if cls.clean_label else 'dirty'} label{benign}"
    if plugin.kind == "defense":
        return f"Needs: {', '.join(sorted(cls.needs)) or 'nothing'}.  Gives: {', '.join(sorted(cls.gives)) or 'nothing'}."
    return ""


def costs_on_board(boards: Path) -> Costs:
    """What the attacks and defenses on the published digits board cost, one sentence each; nothing where there is no such board."""
    from gatecrash.boards.published import Boards

    published = Boards(boards)
    return costs_of(published.results(_BOARD)) if _BOARD in published.names() else {}


def costs_of(results: Iterable[Result]) -> Costs:
    """Median seconds of each attack's victims (poisoned, trained) and of each defense's cells; chains cost what their stages do."""
    victims: dict[str, dict[str, float]] = defaultdict(dict)
    cells: dict[str, list[float]] = defaultdict(list)
    for result in results:
        measures = result.measures
        if measures.seconds_victim is not None:
            victims[result.attack.name][result.victim_key] = measures.seconds_victim
        if measures.seconds_defense is not None and len(result.defense) == 1:
            cells[result.defense[0].name].append(measures.seconds_defense)
    where = f"Cost on the [{_BOARD}](../../leaderboards/{_BOARD}.md)"
    costs: dict[tuple[PluginKind, str], str] = {}
    for name, seconds in victims.items():
        costs["attack", name] = f"{where}: {_seconds(seconds.values())} per victim, training included (median of {len(seconds)})."
    for name, times in cells.items():
        costs["defense", name] = f"{where}: {_seconds(times)} per cell (median of {len(times)})."
    return costs


def _seconds(values: Iterable[float]) -> str:
    return f"{statistics.median(values):.2g} s"


def measured_in(folder: Path) -> frozenset[str]:
    """Names of the plugins that have a page NAME.md in this folder."""
    return frozenset(path.stem for path in folder.glob("*.md"))


def page(host: Host, costs: Costs | None = None, measured: frozenset[str] = frozenset()) -> str:
    """Markdown about every plugin of the host: summary, paper, needs, cost, options with defaults and bounds.

    Plugins in `measured` have a page docs/measured/NAME.md, beside published figures.
    """
    from gatecrash.host.kinds import KINDS

    lines = [
        "# Plugins",
        "",
        "Everything that ships, one file each. `make docs` makes this page from the plugins. `gatecrash show NAME` prints the same with",
        "the full description. How to write one: [Write a plugin](../plugins.md). What a plugin is called with:",
        "[Contracts and hooks](contracts.md).",
    ]
    for kind in KINDS:
        plugins = host.all(kind)
        lines += ["", f"## {_TITLES[kind]}", "", "| name | what it is |", "| --- | --- |"]
        lines += [f"| [{plugin.name}](#{_anchor(plugin)}) | {_cell(plugin.cls.summary)} |" for plugin in plugins]
        for plugin in plugins:
            lines += ["", *_section(plugin, (costs or {}).get((kind, plugin.name), ""), plugin.name in measured)]
    return "\n".join(lines) + "\n"


def _section(plugin: Plugin, cost: str, measured: bool) -> Iterator[str]:
    cls = plugin.cls
    yield f"### {plugin.kind} {plugin.name}"
    yield ""
    yield f"{cls.summary[:1].upper()}{cls.summary[1:]}."
    facts = [needs_of(plugin).replace("  ", " ")]
    if getattr(cls, "reference", None):
        facts.append(f"Paper: {cls.reference.paper}, {cls.reference.year}, <{cls.reference.url}>")
    if measured:
        facts.append(f"Measured beside published figures: [{plugin.name}](../measured/{plugin.name}.md)")
    for fact in filter(None, [*facts, cost]):
        yield ""
        yield fact if fact.endswith((".", ">")) else f"{fact}."
    options = options_of(cls.Config)
    yield ""
    if not options:
        yield "No options."
        return
    yield "| option | type | default | bounds | what it does |"
    yield "| --- | --- | --- | --- | --- |"
    for option in options:
        default = option.default.replace("|", "\\|")
        cells = (f"`{option.name}`", _cell(option.type), f"`{default}`", _cell(option.bounds), _cell(option.description))
        yield f"| {' | '.join(cells)} |"


def _anchor(plugin: Plugin) -> str:
    return f"{plugin.kind}-{plugin.name}"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;").replace(">", "&gt;")


def _limits(metadata: list[Any]) -> Iterator[tuple[str, Any]]:
    for mark in metadata:
        for attribute, sign in _BOUNDS.items():
            value = getattr(mark, attribute, None)
            if value is not None:
                yield sign, value


def _is_number(annotation: Any) -> bool:
    if typing.get_origin(annotation) in {typing.Union, types.UnionType}:
        return any(_is_number(part) for part in typing.get_args(annotation))
    return annotation in {int, float}


def _type_name(annotation: Any) -> str:
    origin = typing.get_origin(annotation)
    if origin is typing.Literal:
        return " | ".join(map(str, typing.get_args(annotation)))
    if origin is typing.Annotated:
        return _type_name(typing.get_args(annotation)[0])
    if origin in {typing.Union, types.UnionType}:
        return " | ".join("none" if part is type(None) else _type_name(part) for part in typing.get_args(annotation))
    if origin is not None:
        inner = ", ".join("..." if part is ... else _type_name(part) for part in typing.get_args(annotation))
        return f"{origin.__name__}[{inner}]"
    return getattr(annotation, "__name__", str(annotation))


def main(folder: Path, boards: Path) -> None:
    """Write the pages plugins.md (what ships) and contracts.md into `folder`."""
    from gatecrash.authoring import contract_docs
    from gatecrash.host.loading import load_plugins
    from gatecrash.records.files import write_named

    measured = measured_in(boards.parent / "docs" / "measured")
    write_named(folder / "plugins.md", page(load_plugins(installed=False), costs_on_board(boards), measured))
    write_named(folder / "contracts.md", contract_docs.page())


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
