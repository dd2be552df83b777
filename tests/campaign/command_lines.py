"""Command lines that nobody should type: every command with sound and hostile values for its arguments and options."""

from __future__ import annotations

import random
from typing import Any

import click

from campaign.case import Case
from campaign.yamls import GRID, written
from gatecrash.cli import COMMANDS, group

TEXTS = (
    *("", " ", "x", "none", "badnets", "fine-pruning", "digits", "small", "quickstart", "lean", "-1", "0", "1", "3", "nan", "inf", "-inf"),
    *("1e999", "9" * 5000, "9" * 400, "٣", "1_000", "0x10", "é" * 300, "\udcff\udcfe", "a\nb", "\x1b[31m", "y" * 5000, "{a: 1}", "[", "*x"),
    *("%s%n", "{}", "{0}", "../..", "a=b", "=", "==", ",", "0,0", "0,,1", "-5,3", "1.5", "auto", "cpu", "cuda", "cuda:99", "mps", "meta"),
)
PATHS = (
    *("", ".", "..", "grid.yaml", "{home}", "{home}/none", "{home}/folder", "{home}/grid.yaml/x", "{home}/plugin.py", "{home}/broken.py"),
    *("{store}", "{boards}", "{home}/" + "a" * 300, "/" + "a/" * 3000, "{home}/\udcff", "{home}/a\nb", "{home}/locked.yaml", "~", "x.json"),
    *(
        "{store}/store.json",
        "{home}/loop",
        "{home}/loop/x.py",
        "{home}/bytes.yaml",
        "{home}/folder/x.yaml",
        "a.b.c",
        "/proc/1/mem",
        "/nope",
    ),
)
"""Relative ones, and those below folders of the test: what is written lands there."""
OVERRIDES = (
    *("seeds=2020-13-45", "seeds=[0,", "seeds=nan", "seeds=" + "9" * 5000, "seeds=!!int ''", "seeds=!!timestamp x", "seeds=[1, 1]"),
    *("recipe.epochs=.nan", "recipe.lr=.inf", "recipe.epochs=0", "recipe=", "recipe.preset=[]", "recipe.preset.x=1", "seeds.0=1"),
    *("dataset=[a, b]", "dataset.digits.limit=!!float x", "dataset.imagefolder.root=" + "a/" * 3000, "dataset.imagefolder.root='\\0'"),
    *("dataset=imagefolder", "dataset.imagefolder.root={home}", "attacks=[" * 3000, "attacks=" + "[" * 3000, "a" + ".a" * 3000 + "=1"),
    *("name=!!binary x", "name=\x00", "model={a: 1, a: 2}", "attacks=&x [*x]", "attacks=[{blend: {image: /proc/1/mem}}]", "=1", ".=1"),
    *(
        "holdout.fraction=1e-400",
        "holdout.size=" + "9" * 400,
        "seeds=[" + ", ".join(map(str, range(10_000))) + "]",
        "x",
        "..x=2",
        "\udcff=1",
    ),
)
SPECIAL = {
    "overrides": OVERRIDES,
    "options": OVERRIDES,
    "only": ("attack=badnets", "attack=", "defense=x", "a=b=c", "model=x", "=", "attack=,"),
}
ALWAYS = {
    "run": ("--dry-run",),  # what runs is not what is tried here
    "publish": ("--boards", "{boards}"),
    "leaderboard": ("--boards", "{boards}"),
}


def case(number: int) -> Case:
    rng = random.Random(f"command line {number}")
    name = rng.choice(list(COMMANDS))
    words, command = [name], group.get_command(click.Context(group), name)
    if isinstance(command, click.Group):
        inner = rng.choice(sorted(command.commands))
        words, command = [name, inner], command.commands[inner]
    assert command is not None
    for parameter in command.params:
        words += _given(rng, parameter)
    words += ALWAYS.get(name, ())
    if rng.random() < 0.05:
        words.insert(rng.randrange(len(words) + 1), rng.choice(TEXTS))
    return Case(tuple(words), yaml=written(GRID))


def _given(rng: random.Random, parameter: Any) -> list[str]:
    if isinstance(parameter, click.Argument):
        return [_sound(rng, parameter) if rng.random() < 0.6 else _hostile(rng, parameter)]
    likely = 0.9 if parameter.required or parameter.name in {"store", "boards_path"} else 0.25
    if rng.random() > likely or parameter.name in {"dry_run", "help"}:
        return []
    words: list[str] = []
    for _ in range(rng.choice((1, 1, 2)) if parameter.multiple else 1):
        words.append(rng.choice(parameter.opts))
        if not parameter.is_flag:
            words.append(_sound(rng, parameter) if rng.random() < 0.5 else _hostile(rng, parameter))
    return words


def _sound(rng: random.Random, parameter: Any) -> str:
    if isinstance(parameter.type, click.Choice):
        return str(rng.choice(list(parameter.type.choices)))
    named = {
        "grid": ("{home}/grid.yaml", "small"),
        "store": ("{store}",),
        "boards_path": ("{boards}",),
        "board": ("small",),
        "what": ("small",),
        "overrides": ("recipe.epochs=2", "seeds=[0]"),
        "seeds": ("0", "0,1"),
        "plugin_paths": ("{home}/plugin.py", "{home}/folder"),
        "plugin": ("digits", "{home}/plugin.py", "badnets"),
        "output": ("out.png", "out.html", "out"),
    }
    return rng.choice(named.get(parameter.name, ("1", "badnets", "fine-pruning", "none")))


def _hostile(rng: random.Random, parameter: Any) -> str:
    if parameter.name in SPECIAL and rng.random() < 0.8:
        return rng.choice(SPECIAL[parameter.name])
    is_path = isinstance(parameter.type, click.Path) or parameter.name in {"grid", "what", "plugin", "board"}
    return rng.choice(PATHS if is_path and rng.random() < 0.8 else TEXTS)
