"""Generators that a plugin's source seeds with a number of its own, which no run of another seed changes."""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Iterator

from gatecrash.contracts.attack import Attack
from gatecrash.contracts.defense import Defense

_SEEDING = {"manual_seed", "manual_seed_all", "default_rng", "seed", "RandomState", "Random", "SeedSequence"}
_KEYWORDS = {"random_state", "seed"}


def constant_seeds(cls: type) -> list[str]:
    """The calls in the module of `cls` that seed a generator with a constant, as `line 12: torch.manual_seed(0)`.

    A constant is a whole number, or a name of the module that stands for one. Other plugins of the module are left out. Empty where the
    source is not at hand.
    """
    module = sys.modules.get(cls.__module__)
    try:
        tree = ast.parse(inspect.getsource(module)) if module is not None else ast.Module([], [])
    except (OSError, SyntaxError):
        return []
    return [
        f"line {call.lineno}: {ast.unparse(call)}"
        for part in tree.body
        if not _is_other_plugin(part, cls, module)
        for call in ast.walk(part)
        if isinstance(call, ast.Call) and any(_is_constant(seed, module) for seed in _seeds(call))
    ]


def _is_other_plugin(part: ast.stmt, cls: type, module: object) -> bool:
    other = getattr(module, part.name, None) if isinstance(part, ast.ClassDef) else None
    return isinstance(other, type) and issubclass(other, Attack | Defense) and not issubclass(cls, other)


def _seeds(call: ast.Call) -> Iterator[ast.expr]:
    name = call.func.attr if isinstance(call.func, ast.Attribute) else call.func.id if isinstance(call.func, ast.Name) else ""
    if name in _SEEDING:
        yield from call.args[:1]
    yield from (keyword.value for keyword in call.keywords if keyword.arg in _KEYWORDS)


def _is_constant(seed: ast.expr, module: object) -> bool:
    value = seed.value if isinstance(seed, ast.Constant) else getattr(module, seed.id, None) if isinstance(seed, ast.Name) else None
    return isinstance(value, int) and not isinstance(value, bool)
