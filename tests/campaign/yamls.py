"""Grids that nobody should write: a sound one with values, keys and bytes replaced."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable
from typing import Any

from campaign.case import Case

GRID: dict[str, Any] = {
    "name": "g",
    "dataset": {"digits": {"limit": "200", "limit_test": "60"}},
    "model": {"small-cnn": {"width": "8"}},
    "recipe": {"preset": "tiny", "epochs": "1", "lr": "0.1", "flip": "false"},
    "holdout": {"fraction": "0.05", "per_class": "3"},
    "seeds": ["0", "1"],
    "attacks": ["none", {"badnets": {"poison_rate": "0.1", "target": "0"}}, {"blend": {"alpha_train": ["0.2", "0.3"], "image": "~"}}],
    "defenses": ["none", {"fine-pruning": {"epochs": "1"}}, {"chain": ["activation-clustering", {"fine-pruning": {"epochs": "1"}}]}],
}
"""A sound grid; strings are YAML as it is written."""

SCALARS = (
    *("", "~", "''", '""', "true", "0", "-1", "1.5", ".nan", ".inf", "-.inf", "1e999", "1_000", "1:60:60", "0x1F", "0o17", "x", "none"),
    *("!!int ''", "!!int x", "!!float x", "!!float ''", "!!bool x", "!!null x", "!!timestamp x", "!!timestamp ''", "!!binary '='"),
    *("!!str [a]", "!!int [1]", "!!map x", "!!seq x", "!!set {a, b}", "!!set x", "!!omap [a: 1]", "!!pairs [a: 1]", "!!merge x"),
    *("!foo x", "!!python/object/apply:os.getcwd []", "!<tag:yaml.org,2002:int> q", "2020-01-01", "2020-13-45", "2020-01-01 25:61:61"),
    *("9" * 5000, "-" + "9" * 5000, "0x" + "f" * 5000, "1e" + "9" * 400, "9" * 400, "9223372036854775808", "1." + "0" * 5000),
    *('"\\0"', '"\\ud800"', '"\\uD800\\uDC00"', '"\\e[31m"', '"a\\nb"', '"a|b<i>"', "y" * 5000, "'/" + "a/" * 3000 + "'", "'/proc/1/mem'"),
    *("'/'", "'.'", "'..'", "'~'", "'\x00'", "\xff", "\xe9", "'/dev/zero'", "'/dev/tty'", "'\\\\'", "*x", "&x 1", "&x [*x]", "&x {a: *x}"),
    *("[]", "{}", "[[]]", "[{}]", "{a: 1}", "{1: 2}", "{[a]: b}", "{{a: 1}: b}", "{~: 1}", "{true: 1}", "{'': 1}", "[a, [b, {c: d}]]"),
    *("{<<: 3}", "{<<: [1]}", "{<<: {a: 1}}", "{a: 1, a: 2}", "{sweep: []}", "{sweep: 3}", "{sweep: [1, 2], x: 1}", "{chain: []}"),
    *("{chain: [none]}", "{chain: 3}", "{chain: [{chain: [anp]}]}", "{preset: []}", "{preset: fast, preset: tiny}", "? a\n: b", "- a", "|"),
    *("[" * 300 + "]" * 300, "[" * 5000 + "]" * 5000, "{a: " * 2000 + "1" + "}" * 2000, "[" * 5000, "{" * 5000, "- " * 3000, "? " * 3000),
    *("[" + "0, " * 300 + "0]", "[" + ", ".join(map(str, range(10_000))) + "]", "{sweep: [" + ", ".join(map(str, range(1000))) + "]}"),
)
BIG = "[" + ", ".join(f"{number / 1000}" for number in range(1, 1000)) + "]"
HUGE: tuple[dict[str, Any], ...] = (
    {"defenses": [{"chain": [{"fine-pruning": {"lr": BIG}}] * 5}]},
    {"attacks": [{"blend": {"alpha_train": BIG, "alpha_test": BIG}}]},
    {"seeds": list(map(str, range(10_000)))},
    {"attacks": ["badnets"] * 2000, "defenses": ["fine-pruning"] * 2000},
    {"defenses": [{"fine-pruning": {"lr": BIG, "weight_decay": BIG}}] * 50},
)
"""Grids whose product has no end; every part of them is sound."""


def case(number: int) -> Case:
    rng = random.Random(f"yaml {number}")
    grid = copy.deepcopy(GRID)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        rng.choices(CHANGES, weights=(12, 2, 1, 1))[0](rng, grid)
    text = written(grid, rng)
    if rng.random() < 0.15:
        text = _bytes_changed(rng, text)
    return Case(("run", "{home}/grid.yaml", "--dry-run", "--store", "{home}/store"), yaml=text)


def written(node: Any, rng: random.Random | None = None) -> str:
    """Flow style, but for the top: there each field has a line, and sometimes two."""
    if not isinstance(node, dict):
        return _flow(node)
    lines = [f"{key}: {_flow(value)}" for key, value in node.items()]
    if rng is not None and rng.random() < 0.05:
        lines.append(rng.choice(lines))
    return "\n".join(lines) + "\n"


def _flow(node: Any) -> str:
    if isinstance(node, dict):
        return "{" + ", ".join(f"{key}: {_flow(value)}" for key, value in node.items()) + "}"
    return "[" + ", ".join(map(_flow, node)) + "]" if isinstance(node, list) else str(node)


def _replace(rng: random.Random, grid: dict[str, Any]) -> None:
    parent, key = rng.choice(_places(grid))
    parent[key] = rng.choice(SCALARS)


def _rename(rng: random.Random, grid: dict[str, Any]) -> None:
    parent, key = rng.choice([(parent, key) for parent, key in _places(grid) if isinstance(parent, dict)])
    parent[rng.choice((*SCALARS[:40], "? [a]", "atacks", "poison_rate", "lr", "name", key + key, json.dumps(key)))] = parent.pop(key)


def _remove(rng: random.Random, grid: dict[str, Any]) -> None:
    parent, key = rng.choice(_places(grid))
    del parent[key]


def _grow(rng: random.Random, grid: dict[str, Any]) -> None:
    grid.update(copy.deepcopy(rng.choice(HUGE)))


CHANGES: tuple[Callable[[random.Random, dict[str, Any]], None], ...] = (_replace, _rename, _remove, _grow)


def _places(node: Any) -> list[tuple[Any, Any]]:
    items = list(node.items()) if isinstance(node, dict) else list(enumerate(node)) if isinstance(node, list) else []
    return [place for key, child in items for place in ((node, key), *_places(child))] if len(items) < 100 else [(node, items[0][0])]


def _bytes_changed(rng: random.Random, text: str) -> str:
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(text) + 1)
        text = text[:at] + chr(rng.randrange(256)) * rng.choice((0, 1, 1, 3)) + text[at + rng.choice((0, 1, 1, 20)) :]
    return text
