"""Attacks of every aim through the command line: what they are scored by, and what a board says of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gatecrash import Store, load_victim
from gatecrash.boards.recount import recount
from gatecrash.cli import main
from support import aims

Gatecrash = Callable[..., Any]
PLUGINS = ("--plugins", Path(aims.__file__))
SOURCE_SPECIFIC = {"badnets": {"goal": "one-to-one", "source": 1, "target": 0, "size": 4, "poison_rate": 0.05}}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All attacks, without a defense and fine-pruned."""
    folder = tmp_path_factory.mktemp("aims")
    grid: dict[str, Any] = {"name": "aims", "dataset": "digits", "model": "small-cnn", "recipe": {"epochs": 12, "lr": 0.03}}
    grid |= {"attacks": [SOURCE_SPECIFIC, "covered", "postcards", "disrupt", "flip"], "defenses": ["none", {"fine-pruning": {"epochs": 1}}]}
    (folder / "aims.yaml").write_text(json.dumps(grid))
    asked = ["run", folder / "aims.yaml", "--store", folder / "store", "--executor", "serial", "--quiet", *PLUGINS]
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in asked])
    assert not ended.value.code
    return folder / "store"


@pytest.fixture
def record(gatecrash: Gatecrash, store: Path) -> Callable[..., tuple[dict[str, Any], str]]:
    """The cells of an attack by defense, and the board."""

    def read(attack: str) -> tuple[dict[str, Any], str]:
        cells = json.loads(gatecrash("results", "--store", store, "--format", "json", *PLUGINS).out)
        return {cell["defense"]: cell for cell in cells if cell["attack"] == attack}, gatecrash(
            "leaderboard", "--store", store, *PLUGINS
        ).out

    return read


def row(board: str, heading: str, name: str) -> dict[str, str]:
    """The fields of a row by column, in the table of a section."""
    lines = [line.strip("| ").split("|") for line in board.split(f"## {heading}")[1].split("\n## ")[0].splitlines() if line.startswith("|")]
    columns = [text.strip() for text in lines[0]]
    (found,) = (line for line in lines[2:] if line[0].strip().startswith(name))
    return dict(zip(columns, (text.strip() for text in found), strict=True))


def test_a_source_specific_attack_without_covers_leaks_and_the_board_says_so(record: Any) -> None:
    cells, board = record("badnets")
    cell = cells["none"]
    assert cell["asr"] > 0.8
    assert cell["leak"] > 0.3
    shown = row(board, "Attacks without a defense", "badnets")
    assert shown["leak"] == f"{100 * cell['leak']:.1f}"
    assert (cell["cover_acc"], cell["acc_lost"]) == (None, None)


def test_covers_are_scored_by_the_labels_that_they_keep(record: Any) -> None:
    cells, board = record("covered")
    cell = cells["none"]
    assert cell["asr"] > 0.8
    assert cell["cover_acc"] > 0.4
    assert row(board, "Attacks without a defense", "covered")["cover ACC"] == f"{100 * cell['cover_acc']:.1f}"


def test_a_backdoor_given_by_images_is_scored_on_them_and_its_floor_too(record: Any) -> None:
    cells, _ = record("postcards")
    assert cells["none"]["asr"] > 0.8
    assert cells["none"]["asr_floor"] < 0.2
    assert (cells["none"]["ra"], cells["fine-pruning"]["ra"]) == (None, None)
    assert cells["fine-pruning"]["der"] is not None


@pytest.mark.parametrize(
    ("attack", "measure", "label"), [("disrupt", "acc_lost", "ACC lost"), ("flip", "source_to_target", "source to target")]
)
def test_an_attack_without_a_trigger_lands_by_its_own_rule(record: Any, tmp_path: Path, attack: str, measure: str, label: str) -> None:
    cells, board = record(attack)
    before, after = cells["none"], cells["fine-pruning"]
    assert before[measure] > 0.1
    assert [before[name] for name in ("asr", "asr_floor", "ra", "leak")] == [None] * 4
    assert after[measure] is not None
    assert after["der"] is None
    shown = row(board, "Attacks without a defense", attack)
    assert (shown["landed"], shown[label]) == ("1 of 1", f"{100 * before[measure]:.1f}")
    left = row(board, "Attacks without a trigger", attack)
    assert left["none"].startswith(f"{100 * before[measure]:.1f} [")


def test_what_is_stored_of_them_follows_from_its_counts(store: Path) -> None:
    results = list(Store(store).results())
    assert len(results) == 12
    assert recount(results) == {}
    for measure in ("leak", "cover_acc", "acc_lost", "source_to_target"):
        (one, *_) = (result for result in results if result.measures.value(measure) is not None)
        changed = one.model_copy(update={"measures": one.measures.model_copy(update={measure: 0.01})})
        assert f"{measure} is 0.0100, its counts say" in recount([changed])[one.key]
        without = one.model_copy(update={"measures": one.measures.model_copy(update={measure: None})})
        assert one.key in recount([without])


def test_a_stored_victim_keeps_every_form_of_backdoor(store: Path) -> None:
    (covered,) = load_victim(store, attack="covered").backdoors
    assert covered.trigger is not None
    assert covered.cover is not None
    assert covered.keeps == (2, 3, 4, 5, 6, 7, 8, 9)
    (postcards,) = load_victim(store, attack="postcards").backdoors
    assert postcards.images is not None
    assert postcards.images.shape == (40, 1, 16, 16)
    flip = load_victim(store, attack="flip")
    assert (flip.record.aim, [backdoor.is_triggered for backdoor in flip.backdoors]) == ("targeted", [False])
    assert load_victim(store, attack="disrupt").record.aim == "availability"
