"""`import gatecrash` in a notebook: run a grid, read its results as a table, take a victim out of the store."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from gatecrash import RunOptions, Summary, UserError, load_cell, load_victim, results, run
from gatecrash.boards.published import Boards
from gatecrash.datasets.preparation import prepare_dataset
from gatecrash.host.loading import load_plugins
from gatecrash.planning.grid import parse_grid
from gatecrash.records.store import Store
from support.grids import SMALL_GRID
from support.paths import ROOT

Cli = Callable[..., Any]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small grid, run once."""
    folder = tmp_path_factory.mktemp("notebook")
    grid = folder / "small.yaml"
    grid.write_text(yaml.safe_dump({**SMALL_GRID, "seeds": [0, 1]}))
    summary = run(grid, store=folder / "store")
    assert isinstance(summary, Summary)
    assert (summary.exit_code, summary.computed_cells) == (0, 8)
    return folder / "store"


def test_results_are_the_rows_of_the_command(gatecrash: Cli, store: Path) -> None:
    table = results(store)
    records = json.loads(gatecrash("results", "--store", store, "--format", "json").out)
    assert list(table.columns) == list(records[0])
    assert list(table["key"]) == [record["key"] for record in records]
    assert table["acc"].tolist() == [record["acc"] for record in records]
    assert table[table.attack == "none"]["asr"].isna().all()
    mean = table[table.defense == "none"].groupby("attack")["acc"].mean()
    assert set(mean.index) == {"badnets", "none"}
    by_recipe = table.groupby(["grid", "recipe", "holdout", "attack_config", "victim_key"])["acc"].count()
    assert by_recipe.sum() == len(table)
    assert [json.loads(text) for text in table["recipe"]] == [record["recipe"] for record in records]


def test_results_of_one_grid_and_of_a_store_object(store: Path) -> None:
    assert len(results(Store(store), grid="small")) == 8
    half = store.parent / "half.yaml"
    half.write_text(yaml.safe_dump({**SMALL_GRID, "name": "half", "seeds": [1]}))
    assert set(results(store, grid=half).seed) == {1}
    with pytest.raises(UserError, match="no results of a grid 'smal'; did you mean 'small'"):
        results(store, grid="smal")
    with pytest.raises(UserError, match="no store at"):
        results(store / "nowhere")


def test_results_of_a_published_board() -> None:
    boards = Boards(ROOT / "leaderboards")
    name = boards.names()[0]
    table = results(boards.folder(name))
    assert sorted(table["key"]) == sorted(result.key for result in boards.results(name))


def test_a_folder_of_boards_is_not_read_as_a_store(tmp_path: Path) -> None:
    (tmp_path / "results" / "mine").mkdir(parents=True)
    file = tmp_path / "results" / "mine" / "a.json"
    file.write_text("{}")
    with pytest.raises(UserError, match="is a folder of published boards, not a store"):
        results(tmp_path)
    assert file.exists()


def test_a_victim_is_loaded_with_its_classifier_its_backdoors_and_its_record(store: Path) -> None:
    victim = load_victim(store, attack="badnets", seed=0)
    dataset = load_plugins().get("dataset", "digits").configure(SMALL_GRID["dataset"]["digits"])
    test = prepare_dataset(dataset).splits().test
    assert not victim.classifier.training
    assert next(victim.classifier.parameters()).device.type == "cpu"
    (backdoor,) = victim.backdoors
    eligible = backdoor.goal.eligible(test.labels)
    with torch.no_grad():
        hit = victim.classifier(backdoor.trigger(test.images)).argmax(1) == backdoor.goal.labels(test.labels)
    table = results(store)
    cell = table[(table.attack == "badnets") & (table.defense == "none") & (table.seed == 0)].iloc[0]
    assert float(hit[eligible].float().mean()) == pytest.approx(cell.asr)
    assert victim.record.poison_share == cell.poison_share


def test_a_victim_is_named_by_its_own_key_or_by_a_cells(store: Path) -> None:
    victim = load_victim(store, attack="none", seed=1)
    assert victim.backdoors == ()
    assert load_victim(store, victim.key).key == victim.key
    table = results(store)
    for key in table[(table.attack == "none") & (table.seed == 1)].key:
        assert load_victim(store, key, grid="small").key == victim.key


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"attack": "badnets"}, r"2 victims fit; name one by attack, seed and grid, or by its key: badnets \(seed 0, grid small\): "),
        ({"attack": "blend"}, r"no victim fits; there are: badnets \(seed 0, grid small\): \w+; badnets \(seed 1"),
        ({"attack": "badnets", "seed": 0, "grid": "big"}, "no results of a grid 'big'"),
        ({"key": "0" * 40}, "has no victim 0000"),
    ],
)
def test_a_victim_that_is_not_there_is_one_line(store: Path, asked: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        load_victim(store, **asked)


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with what a filter, a repair and a chain of the two produced."""
    pruning = {"fine-pruning": {"epochs": 1}}
    defenses = ["none", pruning, "activation-clustering", {"chain": ["activation-clustering", pruning]}]
    grid = parse_grid({**SMALL_GRID, "attacks": ["badnets"], "defenses": defenses})
    folder = tmp_path_factory.mktemp("kept")
    assert run(grid, folder, options=RunOptions(keep_models=True)).exit_code == 0
    return folder


def test_a_cell_is_loaded_with_the_rows_that_its_defense_suspects(kept: Path) -> None:
    cell = load_cell(kept, attack="badnets", defense="activation-clustering")
    victim = Store(kept).victim(cell.result.victim_key)
    assert victim is not None
    assert cell.suspects is not None
    assert cell.suspicion is not None
    assert (cell.suspects.dtype, cell.suspicion.dtype) == (torch.bool, torch.float64)
    assert len(cell.suspects) == len(cell.suspicion) == victim.record.train_size
    poisoned = victim.poison["rows"]
    assert float(cell.suspects[poisoned].double().mean()) == cell.result.measures.detection_tpr


@pytest.mark.parametrize("defense", ["none", "fine-pruning", "activation-clustering + fine-pruning"])
def test_a_kept_classifier_scores_as_it_did(kept: Path, defense: str) -> None:
    cell = load_cell(kept, attack="badnets", defense=defense)
    dataset = load_plugins().get("dataset", "digits").configure(SMALL_GRID["dataset"]["digits"])
    test = prepare_dataset(dataset).splits().test
    assert cell.classifier is not None
    assert not cell.classifier.training
    with torch.no_grad():
        right = cell.classifier(test.images).argmax(1) == test.labels
    assert float(right.double().mean()) == pytest.approx(cell.result.measures.acc)
    assert (cell.suspects is None) == ("clustering" not in defense)


def test_without_keep_models_a_defended_network_is_not_kept(store: Path) -> None:
    cell = load_cell(store, attack="badnets", defense="fine-pruning", seed=1)
    assert (cell.classifier, cell.suspects, cell.suspicion, cell.result.kept) == (None, None, None, None)
    assert load_cell(store, cell.result.key).result == cell.result
    assert load_cell(store, attack="badnets", defense="none", seed=1).classifier is not None


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (
            {"attack": "badnets", "seed": 0},
            r"2 cells fit; name one by attack, defense, seed and grid, or by its key: badnets × fine-pruning",
        ),
        ({"defense": "anp"}, r"no cell fits; there are: badnets × fine-pruning \(seed 0, grid small\): \w+; "),
        ({"key": "0" * 40}, "has no cell 0000"),
    ],
)
def test_a_cell_that_is_not_there_is_one_line(store: Path, asked: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        load_cell(store, **asked)


def test_importing_the_package_costs_no_torch() -> None:
    code = "import sys, gatecrash; sys.exit('torch' in sys.modules or 'pandas' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
