"""Keys are promises: the grids of the published boards, planned today, have the keys under which their results were stored."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from gatecrash.boards.outdated import outdated
from gatecrash.boards.published import Boards
from gatecrash.contracts.config import file_hash, key_fields
from gatecrash.contracts.recipe import Recipe, recipe_from
from gatecrash.datasets.holdout import HoldoutConfig
from gatecrash.datasets.preparation import prepare_dataset
from gatecrash.errors import UserError
from gatecrash.host.loading import load_plugins
from gatecrash.planning.grid import load_grid, parse_grid
from gatecrash.planning.plan import make_plan
from gatecrash.planning.planned import plan_grid
from gatecrash.planning.resolve import resolve
from support.grids import SMALL_GRID
from support.paths import ROOT

BOARDS = ROOT / "leaderboards"
HOST = load_plugins(installed=False)


@pytest.mark.parametrize("board", ["digits", "report-b", "report-c"])
def test_a_published_board_is_found_in_its_grid(board: str) -> None:
    """But for the cells of plugins that have another version since; the board marks these."""
    stored = Boards(BOARDS).results(board)
    plan = plan_grid(load_grid(str(BOARDS / f"{board}.yaml")), HOST).plan
    assert {result.key for result in stored} - plan.cells.keys() == outdated(stored, HOST).keys()
    assert {result.victim_key for result in stored} == plan.victims.keys()


def test_a_key_depends_on_what_is_asked_not_on_how_it_is_spelt() -> None:
    """Defaults that are written down, of the recipe and of plugins, change no key."""
    plain = plan_grid(parse_grid({**SMALL_GRID, "recipe": "standard"}), HOST).plan
    spelt = plan_grid(parse_grid({**SMALL_GRID, "recipe": plain.recipe, "holdout": plain.holdout}), HOST).plan
    assert plain.cells.keys() == spelt.cells.keys()


class LaterHoldout(HoldoutConfig):
    extra: int = 0


class LaterRecipe(Recipe):
    extra: int = 0


def test_a_field_that_a_later_version_adds_changes_a_key_only_where_it_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    resolved = resolve(parse_grid(SMALL_GRID), HOST)
    prepared = prepare_dataset(resolved.dataset.instance)

    def keys(recipe: dict[str, int], holdout: dict[str, int]) -> set[str]:
        monkeypatch.setattr(
            "gatecrash.planning.fitting.recipe_from", lambda given, images: LaterRecipe(**recipe_from(given, images).model_dump(), **recipe)
        )
        later = LaterHoldout(**resolved.grid.holdout.model_dump(), **holdout)
        grid = resolved.grid.model_copy(update={"holdout": later})
        return set(make_plan(replace(resolved, grid=grid), prepared, HOST).victims)

    before = set(make_plan(resolved, prepared, HOST).victims)
    assert keys({}, {}) == before
    assert not keys({"extra": 1}, {}) & before
    assert not keys({}, {"extra": 1}) & before


def test_a_grid_may_have_as_many_cells_as_the_limit_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gatecrash.planning.resolve.MAX_CELLS", 4)
    assert len(plan_grid(parse_grid(SMALL_GRID), HOST).plan.cells) == 4
    with pytest.raises(UserError, match=r"a grid of 8 cells \(2 attacks x 2 defenses x 2 seeds\); use at most 4"):
        plan_grid(parse_grid({**SMALL_GRID, "seeds": [0, 1]}), HOST)


@pytest.mark.parametrize("extra", [[], ["none"]], ids=["without none", "with none"])
def test_the_size_of_a_grid_counts_none_once(monkeypatch: pytest.MonkeyPatch, extra: list[str]) -> None:
    """3 attacks and 4 defenses, `none` among them whether it is written or not."""
    attacks, defenses = [*extra, "badnets", "blend"], [*extra, "anp", "fine-pruning", {"chain": ["anp", "fine-pruning"]}]
    grid = parse_grid({**SMALL_GRID, "attacks": attacks, "defenses": defenses, "seeds": [0]})
    monkeypatch.setattr("gatecrash.planning.resolve.MAX_CELLS", 12)
    assert len(plan_grid(grid, HOST).plan.cells) == 12
    with pytest.raises(UserError, match=r"a grid of 24 cells \(3 attacks x 4 defenses x 2 seeds\); use at most 12"):
        plan_grid(grid, HOST, seeds=[0, 1])


CHAINS: list[tuple[list[Any], str | None]] = [
    (["goodnet", "fine-pruning"], "goodnet gives a rejecting classifier, which fine-pruning cannot take; put goodnet last"),
    (["fine-pruning", "goodnet"], None),
    (["activation-clustering", "fine-pruning"], None),
]


@pytest.mark.parametrize(("links", "said"), CHAINS)
def test_a_chain_is_refused_only_where_a_stage_cannot_take_what_it_is_given(links: list[Any], said: str | None) -> None:
    grid = parse_grid({**SMALL_GRID, "defenses": [{"chain": links}]})
    if said is None:
        assert any(len(cell.defense) == 2 for cell in plan_grid(grid, HOST).plan.cells.values())
        return
    with pytest.raises(UserError) as error:
        plan_grid(grid, HOST)
    assert said in str(error.value)


def test_a_trigger_image_that_is_read_another_way_than_before_has_another_key(tmp_path: Path) -> None:
    """Transparency and EXIF orientation did not count once: under the old key lie results of another trigger."""
    pixels = np.full((4, 4, 4), 200, np.uint8)
    opaque, clear, turned = (tmp_path / name for name in ("opaque.png", "clear.png", "turned.jpg"))
    Image.fromarray(pixels[..., :3]).save(opaque)
    pixels[0, 0, 3] = 0
    Image.fromarray(pixels).save(clear)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels[..., :3]).save(turned, exif=exif)
    options = HOST.get("attack", "badnets").cls.Config
    keys = [key_fields(options(pattern="given", image=path))["image"] for path in (opaque, clear, turned)]
    assert keys[0] == f"sha256:{file_hash(opaque)}"
    assert keys[1:] == [f"sha256:{file_hash(path)}, as seen" for path in (clear, turned)]
