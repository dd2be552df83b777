"""docs/reference/contracts.md: every hook and every public name of `gatecrash`, from their docstrings.

Read from the sources and not from imported objects, because only the sources have docstrings of attributes and defaults as written.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from gatecrash.authoring.source_text import Function, assigned, attribute, documented, paragraph, property_text, prose, signature, text_of

PACKAGE = Path(__file__).parents[1]

HOOKS = "Hooks"
SUBJECTS = {
    HOOKS: ("host.hookspecs",),
    "Attacks": ("contracts.attack", "contracts.poison_attack", "contracts.poisoning", "contracts.backdoor"),
    "Triggers and stamps": (
        "contracts.trigger",
        "contracts.trigger_maker",
        "contracts.trigger_ref",
        "contracts.stamp",
        "contracts.image_draws",
    ),
    "Defenses": ("contracts.defense", "contracts.evidence", "contracts.outcome", "contracts.detector"),
    "Training": ("contracts.train", "contracts.recipe", "contracts.randomness"),
    "Images and datasets": ("contracts.data", "contracts.dataset", "contracts.picture", "datasets.sampling"),
    "Models and classifiers": (
        "contracts.model",
        "contracts.classifier",
        "contracts.point",
        "contracts.pairs",
        "contracts.normalisation",
        "contracts.portable",
    ),
    "Options and references": ("contracts.config", "contracts.class_label", "contracts.dataset_ref", "contracts.reference"),
    "Neurons and pruning": ("engine.neurons", "engine.pruning"),
    "Plans and results": (
        "records.plan",
        "records.result",
        "records.kept",
        "records.measures",
        "records.provenance",
        "records.stage",
        "records.summary",
    ),
    "In a notebook": ("running.run", "notebook", "records.victim", "planning.grid", "running.options", "running.display", "records.store"),
    "Errors": ("errors",),
}
"""Headings of the page, each with the modules whose public names stand under it."""

INTERNAL = frozenset(
    {
        "Attack.check_aim",
        "Measures.detection_scores",
        "Measures.floor_scores",
        "Measures.harm",
        "Measures.harm_interval",
        "Measures.harm_scores",
        "Measures.input_scores",
        "Measures.limits",
        "Measures.scores",
        "Measures.value",
        "Outcome.check",
        "Poisoned.check",
        "Result.from_text",
        "Result.log",
        "Result.schema_version",
        "Result.to_text",
        "TrajectoryStep.scores",
        "TrajectoryStep.value",
    }
)
"""Public members that the harness uses and plugin authors do not need."""


def page() -> str:
    """Markdown on all hooks and public names."""
    lines = [
        "# Contracts and hooks",
        "",
        "What a plugin is called with, and everything that `import gatecrash` offers. `make docs` makes this page from the docstrings.",
        "A tutorial: [Write a plugin](../plugins.md). What ships: [Plugins](plugins.md).",
        "",
        "Contents: " + " · ".join(f"[{title}](#{title.lower().replace(' ', '-')})" for title in SUBJECTS),
    ]
    for title, modules in SUBJECTS.items():
        lines += ["", f"## {title}"]
        if title == HOOKS:
            lines += ["", "Functions of these names in a plugin's module. An implementation may leave out arguments that it does not use."]
            for hook in hooks():
                lines += ["", f"### {hook.name}", "", f"`{signature(hook)}`", "", text_of(hook)]
        for module in modules:
            for name in _homes()[module]:
                lines += ["", *_entry(_tree(module), name)]
    return "\n".join(lines) + "\n"


def hooks() -> list[Function]:
    """The hook specifications, in their order."""
    marked = [node for node in _tree("host.hookspecs").body if isinstance(node, Function)]
    return [node for node in marked if any(ast.unparse(decorator) == "hookspec" for decorator in node.decorator_list)]


def public_names() -> list[str]:
    """The names on the page, in its order."""
    return [name for modules in SUBJECTS.values() for module in modules for name in _homes()[module]]


@cache
def _homes() -> dict[str, tuple[str, ...]]:
    """The public names by module, as `gatecrash/__init__.pyi` lists them."""
    homes: dict[str, tuple[str, ...]] = {}
    for node in ast.parse((PACKAGE / "__init__.pyi").read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom) and node.module:
            homes[node.module] = (*homes.get(node.module, ()), *(alias.name for alias in node.names))
    return homes


@cache
def _tree(module: str) -> ast.Module:
    return ast.parse((PACKAGE / f"{module.replace('.', '/')}.py").read_text(encoding="utf-8"))


@cache
def classes() -> dict[str, ast.ClassDef]:
    """The public classes by name."""
    nodes = (node for module in _homes() for node in _tree(module).body)
    return {node.name: node for node in nodes if isinstance(node, ast.ClassDef) and node.name in public_names()}


def _entry(tree: ast.Module, name: str) -> Iterator[str]:
    """A name's heading, signature, docstring and members."""
    yield f"### {name}"
    yield ""
    for node, doc in documented(tree.body):
        if isinstance(node, ast.ClassDef) and node.name == name:
            yield f"`class {_class_line(node)}`"
            yield ""
            yield text_of(node)
            members = [f"- {member}" for member in _members(node)]
            if members:
                yield ""
                yield from members
        elif isinstance(node, Function) and node.name == name:
            yield f"`{signature(node)}`"
            yield ""
            yield text_of(node)
        elif assigned(node) == name:
            yield f"`{ast.unparse(node)}`"
            if doc:
                yield ""
                yield prose(doc)


def _class_line(node: ast.ClassDef) -> str:
    """Name, bases, and the arguments of its own constructor."""
    bases = [ast.unparse(base) for base in node.bases]
    line = f"{node.name}({', '.join(bases)})" if bases else node.name
    made = _method(node, "__init__")
    if made is not None:
        line += f"`, made with `{signature(made, node.name).removesuffix(' -> None')}"
    return line


def _method(node: ast.ClassDef, name: str) -> Function | None:
    return next((member for member in node.body if isinstance(member, Function) and member.name == name), None)


def _members(node: ast.ClassDef) -> Iterator[str]:
    """What an author may use of a class: attributes, properties and methods, each with the first paragraph of its docstring."""
    is_enum = any("Enum" in ast.unparse(base) for base in node.bases)
    for member, doc in documented(node.body):
        name = member.name if isinstance(member, Function) else assigned(member)
        hidden = name.startswith("_") and name != "__call__"
        if not name or hidden or f"{node.name}.{name}" in INTERNAL or _overrides(node, member):
            continue
        if isinstance(member, Function):
            called_as = node.name.lower() if name == "__call__" else name
            text, shown = prose(paragraph(member)), property_text(member) or signature(member, called_as)
        elif isinstance(member, ast.AnnAssign):
            shown, described = attribute(member)
            text = described or prose(doc.partition("\n\n")[0])
        elif is_enum:
            text, shown = prose(doc.partition("\n\n")[0]), ast.unparse(member)
        else:
            continue
        yield f"`{shown}`: {text}" if text else f"`{shown}`"


def _overrides(node: ast.ClassDef, member: ast.stmt) -> bool:
    """Whether a method without a docstring has one in a public base class (or is `nn.Module.forward`): it says nothing new."""
    if not isinstance(member, Function) or ast.get_docstring(member):
        return False
    bases = [classes()[base] for base in map(ast.unparse, node.bases) if base in classes()]
    return member.name == "forward" or any(_method(base, member.name) or _overrides(base, member) for base in bases)
