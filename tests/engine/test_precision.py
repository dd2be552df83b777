"""`precision: auto` is decided by a measurement, once per host."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from gatecrash.engine import precision
from gatecrash.engine.precision import auto_precision, bfloat16_speedup

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _another_host(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.setenv("GATECRASH_CACHE", str(tmp_path))
    monkeypatch.setattr(precision, "supports_bfloat16", lambda device: True)
    precision._of_host.cache_clear()
    yield
    precision._of_host.cache_clear()


@pytest.mark.parametrize(("speedup", "expected"), [(0.75, "float32"), (1.2, "float32"), (1.3, "bfloat16"), (2.1, "bfloat16")])
def test_bfloat16_must_win_by_a_quarter(monkeypatch: pytest.MonkeyPatch, speedup: float, expected: str) -> None:
    monkeypatch.setattr(precision, "bfloat16_speedup", lambda device: speedup)
    assert auto_precision("cpu") == expected


def test_what_a_host_decided_once_holds_for_its_later_processes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for speedup, expected in ((2.0, "bfloat16"), (0.5, "bfloat16")):
        monkeypatch.setattr(precision, "bfloat16_speedup", lambda device, value=speedup: value)
        precision._of_host.cache_clear()  # as in a new process
        assert auto_precision("cpu") == expected
    (file,) = (tmp_path / "precision").glob("*.json")
    assert json.loads(file.read_text())["bfloat16_speedup"] == 2.0
    file.write_text("damaged")
    precision._of_host.cache_clear()
    assert auto_precision("cpu") == "float32"


def test_where_nothing_can_be_kept_every_process_measures(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("GATECRASH_CACHE", str(tmp_path / "file"))
    monkeypatch.setattr(precision, "bfloat16_speedup", lambda device: 2.0)
    assert auto_precision("cpu") == "bfloat16"


def test_a_processor_without_bfloat16_is_not_measured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(precision, "supports_bfloat16", lambda device: False)
    assert auto_precision("cpu") == "float32"
    assert not list(tmp_path.iterdir())


def test_the_median_of_several_turns_decides_and_threads_stay() -> None:
    """Float32 takes 3 s and bfloat16 1 s, except in one turn that something else disturbed."""
    ticks = [0.0, 0.0] * 2 + [0, 3, 0, 1] * 3 + [0, 3, 0, 90] + [0, 3, 0, 1] * 3
    torch.set_num_threads(2)
    assert bfloat16_speedup(CPU, iter(ticks).__next__) == 3.0
    assert torch.get_num_threads() == 2
