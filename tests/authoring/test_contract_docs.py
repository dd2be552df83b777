"""docs/reference/contracts.md is what the docstrings say; no hook and no public name is without one, and no hook without a test."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

import gatecrash
from gatecrash.authoring.contract_docs import INTERNAL, hooks, page, public_names
from gatecrash.host import hookspecs
from support.paths import ROOT

PACKAGE = ROOT / "benchmark" / "gatecrash"
HOOKS = [hook.name for hook in hooks()]


def sections() -> dict[str, str]:
    """The text below each heading, up to the next one of any level."""
    return {part.partition("\n")[0]: part.partition("\n")[2] for part in re.split(r"^##+ ", page(), flags=re.MULTILINE)[1:]}


def test_the_page_is_up_to_date() -> None:
    written = (ROOT / "docs" / "reference" / "contracts.md").read_text(encoding="utf-8")
    assert written == page(), "run `make docs` and commit docs/reference/contracts.md"


def test_the_hooks_are_those_that_the_host_knows() -> None:
    assert [name for name, value in vars(hookspecs).items() if hasattr(value, "gatecrash_spec")] == HOOKS


@pytest.mark.parametrize("name", HOOKS)
def test_every_hook_has_its_signature_and_a_paragraph(name: str) -> None:
    section = sections()[name]
    specification = getattr(hookspecs, name)
    assert f"`{name}{inspect.signature(specification)}`".replace("'", "") in section
    assert " ".join(inspect.getdoc(specification).split()) in section  # type: ignore[union-attr]


@pytest.mark.parametrize("name", HOOKS)
def test_every_hook_has_a_test_that_implements_it(name: str) -> None:
    tests = [path for path in (ROOT / "tests").rglob("test_*.py") if path != Path(__file__)]
    assert any(re.search(rf"hookimpl\n\s*def {name}\(", path.read_text(encoding="utf-8")) for path in tests)


@pytest.mark.parametrize("name", public_names())
def test_every_public_name_has_its_signature_and_its_docstring(name: str) -> None:
    section = sections()[name]
    signature, _, rest = section.strip().partition("\n\n")
    assert signature.startswith("`")
    assert name in signature
    assert rest.strip(), f"gatecrash.{name} has no docstring"


def test_all_public_names_are_there_and_none_twice() -> None:
    assert sorted(public_names()) == sorted(gatecrash.__all__)
    assert not [line for line in page().splitlines() if re.match(r"#+ .*\w\.\w", line)], "headings are subjects, not module paths"


def test_every_type_that_a_hook_or_a_context_hands_over_is_there() -> None:
    assert {"Train", "OnBatch", "Loss", "Streams", "Plan", "Cell", "Victim", "Result", "Summary"} <= set(public_names())
    ours = {
        name for path in PACKAGE.rglob("*.py") for name in re.findall(r"^class ([A-Z]\w*)", path.read_text(encoding="utf-8"), re.MULTILINE)
    }
    handed_over = re.sub(r"^## In a notebook$.*?(?=^## )", "", page(), flags=re.MULTILINE | re.DOTALL)
    shown = set(re.findall(r"\w+", " ".join(re.findall(r"`([^`]*)`", handed_over))))
    # base classes, and the marks of `File` and `TriggerRef`
    assert shown & ours - set(public_names()) == {"GatecrashError", "Record", "Nested", "Content", "NamesTrigger"}


def test_members_with_their_docstrings_options_with_their_bounds() -> None:
    section = sections()["Need"]
    assert "- `RETRAIN = 'retrain'`: May train a model from scratch: `recipe` and `new_model`." in section
    assert "- `epochs: int = 100`: passes over the training set (>= 1, <= 10000)\n" in sections()["Recipe"]
    assert "- `acc: Number = None`: clean accuracy\n" in sections()["Measures"]
    assert "- `tables: Mapping[str, Sequence[Mapping[str, Any]]] = {}`" in sections()["Outcome"]
    assert (
        "`, made with `Stamp(shape: tuple[int, int, int], alpha: float, pattern: Tensor | None = None, mask: Tensor | None = None)`"
        in (sections()["Stamp"])
    )


def test_a_type_that_is_called_shows_how() -> None:
    assert "- `train(data: Poisoned | ImageSet, *, network: Network | None = None, " in sections()["Train"]
    assert "- `streams(name: str) -> torch.Generator`" in sections()["Streams"]


def test_what_authors_do_not_need_is_left_out() -> None:
    assert "_classifier" not in page()
    assert "`forward(" not in page()
    for cls, member in (name.split(".") for name in INTERNAL):
        assert member in {*vars(getattr(gatecrash, cls)), *getattr(getattr(gatecrash, cls), "model_fields", ())}
        assert f"- `{member}" not in sections()[cls]
    assert "`config() ->" in sections()["Portable"]
    assert "`config() ->" not in sections()["Network"], "an override without a docstring says nothing new"
