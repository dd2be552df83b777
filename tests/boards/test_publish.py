"""A published board is its JSON: mixtures are refused, Markdown that differs is noticed, and every cell can be run again."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml

from gatecrash.boards.published import refuse_dirty, refuse_mixtures
from gatecrash.boards.spec import grid_of
from gatecrash.boards.verify import compare
from gatecrash.errors import UserError
from gatecrash.host.loading import load_plugins
from gatecrash.planning.grid import parse_grid
from gatecrash.planning.resolve import resolve
from gatecrash.records.result import Result
from gatecrash.records.stage import Stage

Gatecrash = Callable[..., Any]
SERIAL = ("--executor", "serial", "--quiet")


def a_result(**fields: Any) -> Result:
    asked: dict[str, Any] = {
        "key": "ab" * 20,
        "victim_key": "cd" * 20,
        "grid": "mine",
        "dataset": Stage(name="digits"),
        "dataset_fingerprint": "f" * 64,
        "holdout": {"fraction": 0.05},
        "model": Stage(name="small-cnn"),
        "recipe": {"epochs": 1},
        "attack": Stage(name="badnets"),
        "defense": [Stage(name="none")],
        "seed": 0,
        "status": "ok",
        "weights": "w",
        "measures": {"acc": 0.9, "asr": 0.5, "acc_interval": [0.85, 0.94], "asr_interval": [0.4, 0.6], "seconds_victim": 3.0},
        "provenance": {"device": "cpu", "cpu": "a", "threads": 1, "packages": {"torch": "2"}, "dirty": False},
    }
    return Result(**(asked | fields))


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"recipe": {"epochs": 2}}, "mix recipes"),
        ({"dataset_fingerprint": "e" * 64}, "mix dataset fingerprints"),
        ({"model": Stage(name="lean")}, "mix models"),
        ({"holdout": {"fraction": 0.1}}, "mix hold-outs"),
        ({"attack": Stage(name="badnets", version=2)}, "mix versions 1 and 2 of the attack badnets"),
        ({"defense": [Stage(name="none", version=2)]}, "mix versions 1 and 2 of the defense none"),
        ({"provenance": {"engine_version": 2}}, "mix versions 1 and 2 of the engine"),
        ({"weights": "other"}, "2 different trainings of the victim badnets"),
    ],
)
def test_what_cannot_be_compared_is_refused(fields: dict[str, Any], said: str) -> None:
    first = a_result(provenance={"engine_version": 1})
    refuse_mixtures([first, a_result(seed=1, provenance={"engine_version": 1}, victim_key="ef" * 20, weights="w1")])
    with pytest.raises(UserError, match=said):
        refuse_mixtures([first, a_result(**fields)])


def test_results_of_uncommitted_code_are_refused() -> None:
    refuse_dirty([a_result()])
    with pytest.raises(UserError, match=r"1 of 2 cells .* uncommitted changes"):
        refuse_dirty([a_result(), a_result(provenance={"dirty": True})])


def test_the_grid_of_results_asks_for_the_same_options() -> None:
    """Also lists (which a grid would read as sweeps) and chains."""
    host = load_plugins(installed=False)
    fine_pruning = host.get("defense", "fine-pruning").configure({"epochs": 3}).config.model_dump(mode="json")
    chain = [Stage(name="activation-clustering"), Stage(name="fine-pruning", config=fine_pruning)]
    attack = Stage(name="badnets", config={"poison_rate": 0.1})
    grid = grid_of([a_result(attack=attack, defense=chain), a_result(seed=4, defense=[Stage(name="anp", config={"options": [1, 2]})])])
    assert grid["seeds"] == [0, 4]
    assert grid["attacks"] == [{"badnets": {"poison_rate": 0.1}}, "badnets"]
    assert grid["defenses"] == [
        {"chain": ["activation-clustering", {"fine-pruning": fine_pruning}]},
        {"anp": {"options": {"sweep": [[1, 2]]}}},
    ]
    resolved = resolve(parse_grid(grid_of([a_result(attack=attack, defense=chain)])), host)
    assert resolved.attacks[0].options == {"poison_rate": 0.1}
    assert resolved.defenses[0][1].options == {"epochs": 3}


def measured(stored: Result, **changes: Any) -> Result:
    weights = changes.pop("weights", stored.weights)
    return stored.model_copy(update={"measures": stored.measures.model_copy(update=changes), "weights": weights})


def test_the_same_machine_must_give_every_digit() -> None:
    stored = a_result()
    assert compare(stored, measured(stored, seconds_victim=99.0)).outcome == "equal"
    found = compare(stored, measured(stored, acc=0.9 + 1e-12))
    assert (found.outcome, found.good) == ("differs", False)
    assert "on the same kind of machine: acc 0.9000 -> 0.9000" in found.detail


@pytest.mark.parametrize(
    "elsewhere", [{"device": "NVIDIA H200"}, {"cpu": "b"}, {"cpu_kind": "AVX2"}, {"packages": {"torch": "3"}}, {"threads": 2}]
)
def test_another_machine_must_stay_within_the_interval(elsewhere: dict[str, Any]) -> None:
    stored = a_result()
    fresh = stored.model_copy(update={"provenance": stored.provenance.model_copy(update=elsewhere)})
    assert compare(stored, measured(fresh, acc=0.86)).outcome == "within"
    assert compare(stored, measured(fresh, acc=0.84)).outcome == "differs"
    assert compare(stored, measured(fresh, asr=None)).outcome == "differs"
    # over seeds the ASR was 0.5, 0.9, 0.1: 0.75 is nothing unusual
    siblings = [a_result(seed=seed, measures={"asr": asr}) for seed, asr in enumerate((0.5, 0.9, 0.1))]
    assert compare(stored, measured(fresh, asr=0.75)).outcome == "differs"
    assert compare(stored, measured(fresh, asr=0.75), siblings).outcome == "within"


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(grid, store) of a small grid with two seeds, run once."""
    from gatecrash.running.run import run
    from support.grids import SMALL_GRID

    folder = tmp_path_factory.mktemp("ran")
    grid = folder / "small.yaml"
    grid.write_text(yaml.safe_dump(SMALL_GRID | {"seeds": [0, 1], "recipe": {"preset": "tiny", "epochs": 6, "batch_size": 16}}))
    assert run(grid, folder / "store").exit_code == 0
    return grid, folder / "store"


def publish(gatecrash: Gatecrash, ran: tuple[Path, Path], boards: Path, *more: str) -> Any:
    grid, store = ran
    return gatecrash("publish", grid, "--board", "small", "--store", store, "--boards", boards, "--allow-dirty", *more)


def test_publish_then_check_then_verify(gatecrash: Gatecrash, ran: tuple[Path, Path], tmp_path: Path) -> None:
    called = publish(gatecrash, ran, tmp_path)
    assert called.code == 0, called.err
    assert "8 cells published, 8 in the board" in called.out
    files = sorted((tmp_path / "results/small").iterdir())
    assert len(files) == 8
    assert files[0].name.startswith("badnets.fine-pruning.0.")
    stored = json.loads(files[0].read_text())
    assert (stored["access"], stored["gives"]) == ("model + clean data", ["classifier"])
    assert (len(stored["trajectory"]), stored["log"]) == (32, None)
    text = (tmp_path / "small.md").read_text()
    for said in ("attack \\ defense", "Model + clean data", "gatecrash verify small", "dataset fingerprint", "fine-pruning 1"):
        assert said in text
    drawn = find_spec("matplotlib") is not None
    for kind in ("heatmap", "triggers"):
        assert (f"](figures/small-{kind}.png)" in text) == (tmp_path / f"figures/small-{kind}.png").is_file() == drawn
    assert "[small](small.md)" in (tmp_path / "README.md").read_text()
    assert parse_grid(yaml.safe_load((tmp_path / "small.yaml").read_text())).seeds == [0, 1]
    assert gatecrash("leaderboard", "--check", "--boards", tmp_path).code == 0

    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert publish(gatecrash, ran, tmp_path).code == 0
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before

    checked = gatecrash("verify", "small", "--boards", tmp_path, "--sample", "2")
    assert checked.code == 0, checked.out
    assert [line.split()[0] for line in checked.out.splitlines()] == ["equal", "equal"]


def test_verify_notices_a_number_that_is_not_so(gatecrash: Gatecrash, ran: tuple[Path, Path], tmp_path: Path) -> None:
    publish(gatecrash, ran, tmp_path)
    file = next((tmp_path / "results/small").glob("none.none.0.*"))
    honest = Result.from_text(file.read_text())
    file.write_text(honest.model_copy(update={"measures": honest.measures.model_copy(update={"acc": 0.999})}).to_text())
    checked = gatecrash("verify", file)
    assert checked.code == 1
    assert checked.out.startswith("differs   none × none (seed 0): on the same kind of machine: acc 0.9990 -> ")
    file.write_text(file.read_text().replace("0.999", "0.998"))
    assert "is no sound result (content does not match its digest)" in gatecrash("verify", file).err
    file.write_text(honest.model_copy(update={"dataset_fingerprint": "e" * 64}).to_text())
    checked = gatecrash("verify", file)
    assert (checked.code, "is not the one that was measured (eeeeeeeeeeee)" in checked.err) == (2, True)


def test_check_fails_where_markdown_and_results_differ(gatecrash: Gatecrash, ran: tuple[Path, Path], tmp_path: Path) -> None:
    publish(gatecrash, ran, tmp_path)
    (tmp_path / "small.md").write_text((tmp_path / "small.md").read_text().replace("badnets", "goodnets"))
    (tmp_path / "README.md").unlink()
    checked = gatecrash("leaderboard", "--check", "--boards", tmp_path)
    assert checked.code == 1
    assert [line.split(" ", 1)[0] for line in checked.out.splitlines()] == ["small.md", "README.md"]
    shown = gatecrash("leaderboard", "--board", "small", "--boards", tmp_path)
    assert shown.out == (tmp_path / "small.md").read_text()
    assert gatecrash("leaderboard", "--check", "--boards", tmp_path).code == 0


def test_cells_of_an_older_plugin_are_marked_and_fail_the_check(
    gatecrash: Gatecrash, ran: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(gatecrash, ran, tmp_path)
    plugin = load_plugins(installed=False).get("defense", "fine-pruning")
    monkeypatch.setattr(plugin.cls, "version", 7)
    checked = gatecrash("leaderboard", "--check", "--boards", tmp_path)
    assert checked.code == 1
    assert "small: 4 cells are outdated (defense fine-pruning 1 -> 7); run and publish again" in checked.out
    board = gatecrash("leaderboard", "--board", "small", "--boards", tmp_path).out
    assert next(line.count("†") for line in board.splitlines() if line.startswith("| badnets")) == 1
    checked = gatecrash("verify", next((tmp_path / "results/small").glob("badnets.fine-pruning.0.*")))
    assert (checked.code, checked.out.split(":")[0]) == (1, "outdated  badnets × fine-pruning (seed 0)")


def test_an_incomplete_grid_is_published_only_on_request(gatecrash: Gatecrash, ran: tuple[Path, Path], tmp_path: Path) -> None:
    refused = publish(gatecrash, ran, tmp_path, "--seeds", "0,5")
    assert refused.code == 2
    assert refused.err.startswith("error: 4 of 8 cells have no scores (none × none (seed 5): missing)")
    assert list(tmp_path.iterdir()) == []
    assert publish(gatecrash, ran, tmp_path, "--seeds", "0,5", "--partial").code == 0
    assert publish(gatecrash, ran, tmp_path, "--seeds", "1").out.startswith("small: 4 cells published, 8 in the board")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["leaderboard", "--board", "smal", "--boards", "."], "no board 'smal' in .; "),
        (["leaderboard", "--board", "../x", "--boards", "."], "no board '../x'"),
        (["leaderboard", "--check", "--store", "x"], "--check is about published boards"),
        (["verify", "nothing.json"], "nothing.json is no sound result (No such file or directory)"),
        (["publish", "quickstart", "--board", "x", "--boards", ".", "--store", "nowhere"], "no store at nowhere"),
    ],
)
def test_wrong_requests_are_one_line(
    gatecrash: Gatecrash, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    called = gatecrash(*arguments)
    assert (called.code, called.out) == (2, "")
    assert called.err.startswith(f"error: {said}"), called.err
    assert list(tmp_path.iterdir()) == []
