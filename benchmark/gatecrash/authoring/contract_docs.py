"""plugins/CONTRACTS.md: every hook, and every name that a plugin author imports, from their docstrings.

Read from the sources and not from imported objects: an attribute's docstring, and a default as it was written, are only there.
"""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

Function = ast.FunctionDef
PACKAGE = Path(__file__).parents[1]


Home = dict[str, tuple[str, ...]]


def page() -> str:
    """Markdown on all hooks and public names."""
    lines = [
        "# Contracts and hooks",
        "",
        "What a plugin is called with and what it may import. This page is made by `make docs` from the docstrings; edit those. "
        "A walk through an attack and a defense: [CONTRIBUTING.md](../CONTRIBUTING.md). What ships: [README.md](README.md).",
        "",
        "## Hooks",
        "",
        "Functions of these names, marked with `@gatecrash.hookimpl`, in a plugin's module. An implementation takes those of the arguments "
        "that it wants.",
    ]
    for hook in hooks():
        lines += ["", f"### {hook.name}", "", f"`{_signature(hook)}`", "", _text(hook)]
    for module, names in _homes().items():
        tree = _tree(module)
        lines += ["", f"## {module}", "", _prose((ast.get_docstring(tree) or "").partition("\n\n")[0])]
        for name in names:
            lines += ["", *_entry(tree, name)]
    return "\n".join(lines) + "\n"


def hooks() -> list[Function]:
    """The hook specifications, in their order."""
    marked = [node for node in _tree("host.hookspecs").body if isinstance(node, Function)]
    return [node for node in marked if any(ast.unparse(decorator) == "hookspec" for decorator in node.decorator_list)]


def public_names() -> list[str]:
    return [name for names in _homes().values() for name in names]


@cache
def _homes() -> Home:
    """The public names by module, as `gatecrash/__init__.pyi` lists them."""
    homes: Home = {}
    for node in ast.parse((PACKAGE / "__init__.pyi").read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom) and node.module:
            homes[node.module] = (*homes.get(node.module, ()), *(alias.name for alias in node.names))
    return homes


@cache
def _tree(module: str) -> ast.Module:
    return ast.parse((PACKAGE / f"{module.replace('.', '/')}.py").read_text(encoding="utf-8"))


def _entry(tree: ast.Module, name: str) -> Iterator[str]:
    """A name's heading, signature, docstring and members."""
    yield f"### {name}"
    yield ""
    for node, doc in _documented(tree.body):
        if isinstance(node, ast.ClassDef) and node.name == name:
            yield f"`class {_class_line(node)}`"
            yield ""
            yield _text(node)
            members = [f"- {member}" for member in _members(node)]
            if members:
                yield ""
                yield from members
        elif isinstance(node, Function) and node.name == name:
            yield f"`{_signature(node)}`"
            yield ""
            yield _text(node)
        elif _assigned(node) == name:
            yield f"`{ast.unparse(node)}`"
            if doc:
                yield ""
                yield _prose(doc)


def _class_line(node: ast.ClassDef) -> str:
    """Name, bases and the arguments of its own constructor."""
    bases = [ast.unparse(base) for base in node.bases]
    line = f"{node.name}({', '.join(bases)})" if bases else node.name
    for member in node.body:
        if isinstance(member, Function) and member.name == "__init__":
            line += f"`, made with `{_signature(member).replace('__init__', node.name, 1).removesuffix(' -> None')}"
    return line


def _members(node: ast.ClassDef) -> Iterator[str]:
    """What an author may use of a class: attributes, properties and methods, each with the first paragraph of its docstring."""
    is_enum = any("Enum" in ast.unparse(base) for base in node.bases)
    for member, doc in _documented(node.body):
        name = member.name if isinstance(member, Function) else _assigned(member)
        if not name or name.startswith("_"):
            continue
        if isinstance(member, Function):
            text = _prose(_paragraph(member))
            is_property = any(ast.unparse(decorator) == "property" for decorator in member.decorator_list)
            shown = f"{name}: {ast.unparse(member.returns)}" if is_property and member.returns else _signature(member)
        elif isinstance(member, ast.AnnAssign) or is_enum:
            text, shown = _prose(doc.partition("\n\n")[0]), ast.unparse(member)
        else:
            continue
        yield f"`{shown}`: {text}" if text else f"`{shown}`"


def _documented(body: list[ast.stmt]) -> Iterator[tuple[ast.stmt, str]]:
    """Statements, each with the string that follows it."""
    for number, node in enumerate(body):
        follower = body[number + 1] if number + 1 < len(body) else None
        value = follower.value if isinstance(follower, ast.Expr) else None
        yield node, inspect.cleandoc(value.value) if isinstance(value, ast.Constant) and isinstance(value.value, str) else ""


def _assigned(node: ast.stmt) -> str:
    if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
        return node.target.id
    if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
        return node.targets[0].id
    return ""


def _signature(node: Function) -> str:
    arguments = node.args
    if arguments.args and arguments.args[0].arg in {"self", "cls"}:
        arguments = ast.arguments(
            arguments.posonlyargs,
            arguments.args[1:],
            arguments.vararg,
            arguments.kwonlyargs,
            arguments.kw_defaults,
            arguments.kwarg,
            arguments.defaults,
        )
    returns = f" -> {ast.unparse(node.returns)}" if node.returns is not None else ""
    return f"{node.name}({ast.unparse(arguments)}){returns}"


def _paragraph(node: Function) -> str:
    return (ast.get_docstring(node) or "").partition("\n\n")[0]


def _text(node: Function | ast.ClassDef) -> str:
    return _prose(ast.get_docstring(node) or "")


def _prose(text: str) -> str:
    """A docstring as Markdown: lines of a paragraph are joined, and what looks like a tag is none."""
    paragraphs = [part if part.startswith("    ") else " ".join(part.split()) for part in text.split("\n\n")]
    quoted = re.split(r"(`[^`]*`)", "\n\n".join(paragraphs))
    return "".join(part if part.startswith("`") else part.replace("<", "&lt;").replace("*", "\\*") for part in quoted)
