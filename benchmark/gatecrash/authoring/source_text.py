"""Python source as Markdown: signatures, attributes and docstrings, read from syntax trees."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator

Function = ast.FunctionDef

_SIGNS = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}
_EMPTY = {"dict": "{}", "list": "[]", "tuple": "()"}


def property_text(member: Function) -> str | None:
    is_property = any(ast.unparse(decorator) == "property" for decorator in member.decorator_list)
    return f"{member.name}: {ast.unparse(member.returns)}" if is_property and member.returns else None


def attribute(node: ast.AnnAssign) -> tuple[str, str]:
    """An attribute as a reader sees it, and what its type or default says of it: a measure's title, an option's description and bounds.

    `field(...)`, `Field(...)` and `Annotated[..., Measure(label, title)]` are taken apart.
    """
    annotation, value, described = node.annotation, node.value, ""
    if isinstance(annotation, ast.Subscript) and isinstance(annotation.slice, ast.Tuple) and ast.unparse(annotation.value) == "Annotated":
        annotation, mark = annotation.slice.elts
        described = prose(str(ast.literal_eval(mark.args[1]))) if isinstance(mark, ast.Call) and ast.unparse(mark.func) == "Measure" else ""
    name = f"{ast.unparse(node.target)}: {ast.unparse(annotation)}"
    if not isinstance(value, ast.Call) or ast.unparse(value.func) not in {"field", "Field"}:
        return name + (f" = {ast.unparse(value)}" if value is not None else ""), described
    given = {keyword.arg: ast.unparse(keyword.value) for keyword in value.keywords}
    factory = given.get("default_factory", "")
    default = [ast.unparse(argument) for argument in value.args] or [_EMPTY.get(factory, f"{factory}()")] * bool(factory)
    bounds = ", ".join(f"{sign} {given[key]}" for key, sign in _SIGNS.items() if key in given)
    described = prose(str(ast.literal_eval(given["description"]))) if "description" in given else ""
    return " = ".join([name, *default]), f"{described} ({bounds})" if bounds else described


def documented(body: list[ast.stmt]) -> Iterator[tuple[ast.stmt, str]]:
    """Statements, each with the string that follows it."""
    for number, node in enumerate(body):
        follower = body[number + 1] if number + 1 < len(body) else None
        value = follower.value if isinstance(follower, ast.Expr) else None
        yield node, inspect.cleandoc(value.value) if isinstance(value, ast.Constant) and isinstance(value.value, str) else ""


def assigned(node: ast.stmt) -> str:
    if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
        return node.target.id
    if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
        return node.targets[0].id
    return ""


def signature(node: Function, name: str = "") -> str:
    """`name(arguments) -> returns` in the usual spacing, without `self`; by default with the function's own name."""
    arguments = node.args
    plain = arguments.posonlyargs + arguments.args
    padding: list[ast.expr | None] = [None] * (len(plain) - len(arguments.defaults))
    parts = [_argument(argument, default) for argument, default in zip(plain, [*padding, *arguments.defaults], strict=True)]
    if plain and plain[0].arg in {"self", "cls"}:
        parts = parts[1:]
    if arguments.vararg:
        parts.append(f"*{_argument(arguments.vararg, None)}")
    elif arguments.kwonlyargs:
        parts.append("*")
    parts += [_argument(argument, default) for argument, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)]
    returns = f" -> {ast.unparse(node.returns)}" if node.returns is not None else ""
    return f"{name or node.name}({', '.join(parts)}){returns}"


def _argument(argument: ast.arg, default: ast.expr | None) -> str:
    annotation = f": {ast.unparse(argument.annotation)}" if argument.annotation is not None else ""
    return f"{argument.arg}{annotation}" + (f" = {ast.unparse(default)}" if default is not None else "")


def paragraph(node: Function) -> str:
    return (ast.get_docstring(node) or "").partition("\n\n")[0]


def text_of(node: Function | ast.ClassDef) -> str:
    return prose(ast.get_docstring(node) or "")


def prose(text: str) -> str:
    """A docstring as Markdown: lines of a paragraph are joined, and nothing in it is taken for a tag or for emphasis."""
    paragraphs = [part if part.startswith("    ") else " ".join(part.split()) for part in text.split("\n\n")]
    quoted = re.split(r"(`[^`]*`)", "\n\n".join(paragraphs))
    return "".join(part if part.startswith("`") else part.replace("<", "&lt;").replace("*", "\\*") for part in quoted)
