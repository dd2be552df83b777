"""plugins/CONTRACTS.md is what the docstrings say; no hook and no public name is without one, and no hook without a test."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

import gatecrash
from gatecrash.authoring.contract_docs import hooks, page, public_names
from gatecrash.host import hookspecs
from support.paths import ROOT

HOOKS = [hook.name for hook in hooks()]


def sections() -> dict[str, str]:
    return {part.partition("\n")[0]: part.partition("\n")[2] for part in re.split(r"^### ", page(), flags=re.MULTILINE)[1:]}


def test_the_page_is_up_to_date() -> None:
    written = (ROOT / "plugins" / "CONTRACTS.md").read_text(encoding="utf-8")
    assert written == page(), "run `make docs` and commit plugins/CONTRACTS.md"


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


def test_all_that_authors_import_is_there_and_members_with_their_docstrings() -> None:
    assert sorted(public_names()) == sorted(gatecrash.__all__)
    section = sections()["Need"]
    assert "- `RETRAIN = 'retrain'`: May train a model from scratch: `recipe` and `new_model`." in section
    assert (
        "- `clean: ImageSet`: The clean hold-out: never part of the victim's training data, and not the test set." in sections()["Evidence"]
    )
    assert (
        "`, made with `Stamp(shape: tuple[int, int, int], alpha: float, pattern: Tensor | None=None, mask: Tensor | None=None)`"
        in (sections()["Stamp"])
    )
    assert "_classifier" not in page()
