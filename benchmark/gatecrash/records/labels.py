"""What plugins with their options are: their identity, by which results are told apart, and labels, which only people read.

An identity is complete, a label says no more than is needed. Nothing is ever looked up or grouped by a text that leaves something out:
labels are made for a set of identities at a time, and no two identities of the set get the same one.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from gatecrash.records.stage import Stage

Stages = tuple[Stage, ...]
"""One plugin, or the stages of a chain."""
_ITEM = re.compile(r"(.+)\[(\d+)\]")
"""An item of a list, as `flattened` names it."""
LONGEST = 40
"""Characters of an option's value in a label, unless more are needed to tell values apart."""


def canonical(value: Any) -> str:
    """JSON that is equal for equal values only."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def identity(stages: Iterable[Stage]) -> str:
    """Name and options of each stage, files by their content where it is known. Versions do not count."""
    return canonical([(stage.name, _described(stage), *(part for part in (stage.when, stage.clean) if part)) for stage in stages])


def labels(plugins: Sequence[Stages]) -> list[str]:
    """A label for each: the names, with the options in which it differs from its namesakes. Equal where the identities are, else not."""
    identities = [identity(stages) for stages in plugins]
    known = dict(zip(identities, plugins, strict=True))
    by_name: dict[str, list[str]] = {}
    for one, stages in known.items():
        by_name.setdefault(_name(stages), []).append(one)
    label_of: dict[str, str] = {}
    for name, members in by_name.items():
        texts = differences([options_of(known[one]) for one in members])
        label_of |= {one: f"{name} ({text})" if text else name for one, text in zip(members, texts, strict=True)}
    times = Counter(label_of.values())
    return [label_of[one] if times[label_of[one]] == 1 else f"{label_of[one]} #{_digest(one)}" for one in identities]


def options_of(stages: Stages) -> dict[str, Any]:
    """All options by name: those within an option's mapping as `option.name`, those of a chain as `stage.option`."""
    if len(stages) == 1:
        return flattened(stages[0].config) | _clean(stages)
    names = [stage.name for stage in stages]
    prefixes = [name if names.count(name) == 1 else f"{name}#{names[: index + 1].count(name)}" for index, name in enumerate(names)]
    return (
        {f"{prefix}.{key}": value for prefix, stage in zip(prefixes, stages, strict=True) for key, value in flattened(stage.config).items()}
        | {f"{prefix} when": stage.when for prefix, stage in zip(prefixes, stages, strict=True) if stage.when}
        | _clean(stages)
    )


def _clean(stages: Stages) -> dict[str, Any]:
    """What clean images the stages are given, all of them the same, where it is said."""
    said: dict[str, Any] = next((stage.clean for stage in stages if stage.clean), {})
    return {f"clean.{name}": value for name, value in said.items() if value is not None}


def varying(options: Sequence[Mapping[str, Any]]) -> list[str]:
    """Names of the options that are not the same, or not there, in all."""
    names = sorted({name for one in options for name in one})
    return [name for name in names if len({canonical([name in one, one.get(name)]) for one in options}) > 1]


def option_text(value: Any) -> str:
    """An option's value, short."""
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"


def option_texts(values: Iterable[Any]) -> dict[str, str]:
    """Texts by `canonical` value, as short as they can be while no two are equal."""
    distinct = {canonical(value): value for value in values}
    forms: tuple[Callable[[Any], str], ...] = (option_text, _precise_end, str)
    for form in forms:
        texts = {key: form(value) for key, value in distinct.items()}
        if len(set(texts.values())) == len(texts):
            return texts
    return {key: key for key in distinct}


def differences(options: Sequence[Mapping[str, Any]]) -> list[str]:
    """Of each the options that are not the same in all, with their values; equal texts for equal options only."""
    short = _texts([{**_entries(one), **one} for one in options], _telling(options))
    different = len({canonical(one) for one in options})
    return short if len(set(short)) == different else _texts(options, varying(options), all_of_them=True)


def _entries(one: Mapping[str, Any]) -> dict[str, Any]:
    """What stands for a whole group of options: of `{trigger: {patch: {size: 3}}}` `{"trigger": "patch"}`, which plugin it is; of a list of
    mappings, `option[0].name`, how long it is."""
    named: dict[str, set[str]] = {}
    lengths: dict[str, int] = {}
    for option in one:
        parts = option.split(".")
        for depth, part in enumerate(parts):
            within = ".".join(parts[:depth])
            named.setdefault(within, set()).add(part if depth < len(parts) - 1 else "")
            if item := _ITEM.fullmatch(part):
                path = f"{within}.{item[1]}" if within else item[1]
                lengths[path] = max(lengths.get(path, 0), int(item[2]) + 1)
    return {outer: min(inner) for outer, inner in named.items() if outer and len(inner) == 1 and "" not in inner} | lengths


def _telling(options: Sequence[Mapping[str, Any]]) -> list[str]:
    """What varies; not what is the same wherever it is, since it goes with another plugin or a list, which is named instead."""
    entries = [_entries(one) for one in options]
    both = [{**entry, **one} for entry, one in zip(entries, options, strict=True)]
    values = {name: {canonical(one[name]) for one in both if name in one} for name in varying(both)}
    groups = {f"{outer}.{inner}." for one in entries for outer, inner in one.items() if isinstance(inner, str)}
    groups |= {f"{outer}[{index}]." for one in entries for outer, inner in one.items() if isinstance(inner, int) for index in range(inner)}
    told = [name for name, found in values.items() if len(found) > 1 or not name.startswith(tuple(groups))]
    return sorted(told, key=lambda name: (all(name not in entry for entry in entries), name))


def _texts(options: Sequence[Mapping[str, Any]], names: Sequence[str], all_of_them: bool = False) -> list[str]:
    texts = {name: option_texts(one.get(name) for one in options) for name in names}
    return [", ".join(f"{name}={texts[name][canonical(one.get(name))]}" for name in names if all_of_them or name in one) for one in options]


def _precise_end(value: Any) -> str:
    """Numbers with all their digits; of a long text its end, in which paths differ."""
    text = str(value)
    return text if len(text) <= LONGEST or isinstance(value, float) else f"…{text[1 - LONGEST :]}"


def _described(stage: Stage) -> dict[str, Any]:
    """The options; those that name files as the files' contents."""
    nested = any("." in name for name in stage.content)
    options = flattened(stage.config) if nested else stage.config
    return {**options, **{name: content for name, content in stage.content.items() if name in options}}


def flattened(config: Mapping[str, Any]) -> dict[str, Any]:
    """Options by name, those within an option's mapping as `option.name`, within a list of mappings as `option[0].name`."""
    flat: dict[str, Any] = {}
    for name, value in config.items():
        if isinstance(value, dict) and value:
            flat |= {f"{name}.{inner}": part for inner, part in flattened(value).items()}
        elif isinstance(value, list) and value and all(isinstance(part, dict) for part in value):
            flat |= flattened({f"{name}[{index}]": part for index, part in enumerate(value)})
        else:
            flat[name] = value
    return flat


def _name(stages: Stages) -> str:
    return " + ".join(stage.name for stage in stages)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]
