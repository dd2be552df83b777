"""A classifier that cheats gets no score: each known cheat ends its cell, gains nothing, or is named as open in docs/trust.md."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from campaign.cheats.library import CHEATS, FILE_NAME, HARMLESS, OPEN, SOURCE, cheating_grid
from gatecrash import ContractError
from gatecrash.evaluation import exam
from gatecrash.evaluation.detector_exam import evaluate_detector
from gatecrash.evaluation.exam import evaluate
from gatecrash.evaluation.inputs import InputScores
from gatecrash.evaluation.scores import Scores
from gatecrash.host.loading import load_plugins
from gatecrash.host.plugin_file import PluginFile
from gatecrash.planning.grid import parse_grid
from gatecrash.records.summary import Summary
from gatecrash.running.options import RunOptions
from gatecrash.running.run import ray, run, serial
from gatecrash.running.witness.asking import RemoteWitness
from gatecrash.running.witness.process import of_this_process
from support.paths import ROOT
from support.written_answers import backdoor, photos


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("plugins") / FILE_NAME
    path.write_text(SOURCE)
    return path


@pytest.fixture(scope="module")
def cheats(file: Path) -> ModuleType:
    import sys

    cls = load_plugins([file], shipped=False, installed=False).get("defense", "cheat").cls
    return sys.modules[cls.__module__]


@pytest.fixture(autouse=True)
def _forgotten(cheats: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What one cheat remembers helps no other."""
    yield
    cheats.SEEN.clear()
    cheats.ANSWERS.clear()
    cheats.LEFT.clear()
    cheats.FILE.unlink(missing_ok=True)
    if hasattr(exam, "count_honestly"):
        exam.count_true = exam.count_honestly  # type: ignore[attr-defined]
        del exam.count_honestly


TEST, PLANTED = photos(150), backdoor()


def scored(cheats: ModuleType, how: str) -> Scores:
    witness = RemoteWitness(of_this_process().ask, [PluginFile(Path(FILE_NAME), SOURCE.encode())], threads=1)
    if how == "global_state":
        cheats.LEFT["here"] = True
    return evaluate(cheats.Cheat(cheats.Planted(), how), TEST, [PLANTED], device="cpu", batch_size=32, witness=witness)


def test_an_honest_classifier_is_scored(cheats: ModuleType) -> None:
    assert scored(cheats, "honest").asr == 1.0


@pytest.mark.parametrize("how", CHEATS)
def test_a_cheat_gets_no_score(cheats: ModuleType, how: str) -> None:
    with pytest.raises(ContractError, match=r"in a new process"):
        scored(cheats, how)


def suspected(cheats: ModuleType, how: str) -> InputScores:
    """The scores of a detector that cheats, before a classifier that does not."""
    witness = RemoteWitness(of_this_process().ask, [PluginFile(Path(FILE_NAME), SOURCE.encode())], threads=1)
    if how == "global_state":
        cheats.LEFT["here"] = True
    victim, detector = cheats.Planted(), cheats.Suspecting(cheats.Cheat(cheats.Planted(), how))
    return evaluate_detector(victim, detector, victim, TEST, [PLANTED], device="cpu", batch_size=32, witness=witness)[1]


def test_an_honest_detector_is_scored(cheats: ModuleType) -> None:
    assert suspected(cheats, "honest").triggered.auroc == 1.0


@pytest.mark.parametrize("how", CHEATS)
def test_a_detector_that_cheats_gets_no_score(cheats: ModuleType, how: str) -> None:
    with pytest.raises(ContractError, match=r"(detector|Suspecting) .*in a new process"):
        suspected(cheats, how)


@pytest.mark.parametrize("how", HARMLESS)
def test_a_cheat_gains_nothing(cheats: ModuleType, how: str) -> None:
    assert scored(cheats, how) == scored(cheats, "honest")


def test_without_a_new_process_memory_was_a_cheat_that_worked(cheats: ModuleType) -> None:
    remembering = cheats.Cheat(cheats.Planted(), "remember_answers")
    cheated = evaluate(remembering, TEST, [PLANTED], device="cpu", batch_size=32)  # scored, which is why there is a witness
    assert cheated.loss_clean != scored(cheats, "honest").loss_clean


@pytest.mark.parametrize("how", OPEN)
def test_what_is_not_stopped_is_written_down(how: str) -> None:
    assert f"`{how}`" in (ROOT / "docs" / "trust.md").read_text(encoding="utf-8")


def test_a_cheat_is_open_only_as_long_as_it_works(cheats: ModuleType) -> None:
    assert (scored(cheats, "judge").asr, scored(cheats, "judge").acc) == (1.0, 1.0)


def cells(summary: Summary) -> dict[str, Any]:
    """The attacked victim's, by their way of cheating: without a backdoor there are no twins to remember."""
    attacked = [result for result in summary.results.values() if result.attack.name != "none"]
    return {result.defense[0].config.get("how", "none"): result for result in attacked}


def assert_caught(summary: Summary, hows: list[str], harmless: list[str]) -> None:
    found = cells(summary)
    for how in hows:
        assert (how, found[how].status) == (how, "failed")
        assert "in a new process" in found[how].error
    for how in harmless:
        assert (found[how].status, found[how].measures.acc) == ("ok", found["none"].measures.acc), found[how].error
        assert found[how].measures.scores == found["none"].measures.scores


@pytest.mark.slow
def test_under_serial(file: Path, tmp_path: Path) -> None:
    hows = [*CHEATS]
    summary = run(parse_grid(cheating_grid(["honest", *HARMLESS, *hows])), tmp_path, serial, plugins=[file])
    assert_caught(summary, hows, ["honest", *HARMLESS])


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.timeout(900)
@pytest.mark.parametrize("isolate", [False, True])
def test_under_ray(local_ray: None, file: Path, tmp_path: Path, isolate: bool) -> None:
    hows = ["remember_twins", "remember_answers", "frames"]  # each has two processes of its own, which takes its time
    grid = parse_grid(cheating_grid(["honest", "global_state", *hows]))
    summary = run(grid, tmp_path, ray, plugins=[file], options=RunOptions(isolate=isolate))
    # The defense ran in another process: its global variable is not there, and the answer is an honest one.
    assert_caught(summary, hows, ["honest", "global_state"])


def test_images_of_one_pile_have_no_twin_in_their_batch() -> None:
    many = [backdoor("all-to-all", None, column=column, name=str(column)) for column in (1, 2, 3)]
    for size in (1, 7, 64, 10_000):
        pile = exam.Pile(TEST, many, torch.device("cpu"), clean=True)
        batches = pile.batches(size)
        assert torch.cat(batches).equal(torch.arange(4 * len(TEST)))
        for rows in [*batches, pile.sample(64)]:
            pixels = pile.images[rows].clone()
            pixels[:, :, 0, 1:] = 0  # without its mark an image is its clean twin
            assert len(pixels.flatten(1).unique(dim=0)) == len(rows)
