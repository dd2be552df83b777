"""Variants of one method are told apart: in titles, and by what `--only` is given."""

from __future__ import annotations

import pytest

from gatecrash.cli.options import parse_only
from gatecrash.errors import UserError
from gatecrash.host.loading import load_plugins
from gatecrash.planning.planned import plan_grid
from gatecrash.planning.selection import split_names
from support.small_runs import small

HOST = load_plugins(installed=False)
SWEEP = small(
    attacks=["none", {"badnets": {"poison_rate": [0.05, 0.1]}}],
    defenses=["none", {"fine-pruning": {"epochs": [1, 2], "threshold": 0.8}}, {"chain": ["activation-clustering", "fine-pruning"]}],
)


def chosen(*only: str) -> set[str]:
    plan = plan_grid(SWEEP, HOST, only=parse_only(only)).plan
    return {plan.cells[key].title.removesuffix(" (seed 0)") for key in plan.selected}


def test_titles_name_the_options_that_were_swept() -> None:
    titles = [cell.title for cell in plan_grid(SWEEP, HOST).plan.cells.values()]
    assert len(set(titles)) == len(titles) == 12
    assert "badnets (poison_rate=0.05) × fine-pruning (epochs=2) (seed 0)" in titles


@pytest.mark.parametrize(
    "text", ["fine-pruning(epochs=2)", "fine-pruning (epochs=2)", "fine-pruning(threshold=0.8, epochs=2)", "fine-pruning( epochs = 2.0 )"]
)
def test_a_variant_is_chosen_by_its_label_or_by_options(text: str) -> None:
    assert chosen("attack=badnets(poison_rate=0.1)", f"defense={text}") == {"badnets (poison_rate=0.1) × fine-pruning (epochs=2)"}


def test_a_name_means_all_its_variants_and_the_chains_that_it_is_in() -> None:
    assert len(chosen("attack=badnets", "defense=fine-pruning")) == 6
    assert len(chosen("attack=badnets(poison_rate=0.1),none", "defense=none")) == 2


@pytest.mark.parametrize("text", ["fine-pruning(epochs=3)", "fine-pruning(epoch=2)", "fine-pruning(", "fine-prunin(epochs=2)"])
def test_what_fits_nothing_is_refused_with_what_there_is(text: str) -> None:
    with pytest.raises(UserError, match=r"the grid has no such defense; it has .*fine-pruning \(epochs=2\)"):
        chosen(f"defense={text}")


def test_commas_within_brackets_divide_nothing() -> None:
    assert split_names("a(x=1, y=[1, 2]), b ,c") == ["a(x=1, y=[1, 2])", "b", "c"]
