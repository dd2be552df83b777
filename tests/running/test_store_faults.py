"""A store that fails under a running grid: one line, exit code 2, and nothing finished is lost."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gatecrash.records import store as store_module
from gatecrash.records.files import write
from gatecrash.records.store import Store
from gatecrash.running.display import Display
from gatecrash.running.progress import QuietDisplay


@pytest.fixture
def full_after(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """The disk is full once so many results have been written."""

    def fill(results: int) -> None:
        written: list[Path] = []

        def scarce(path: Path, content: bytes) -> None:
            if len(written) >= results:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            write(path, content)
            if path.parent.parent.name == "results":
                written.append(path)

        monkeypatch.setattr(store_module, "write", scarce)

    return fill


def test_a_full_disk_stops_the_grid_and_a_rerun_finishes_it(
    gatecrash: Callable[..., Any], small_grid: Any, tmp_path: Path, full_after: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    full_after(2)
    called = gatecrash("run", small_grid(), "--store", tmp_path / "s", "-q")
    assert called.code == 2
    assert called.err == (
        f"error: cannot write into store {tmp_path / 's'}: No space left on device; what is finished is kept: run again\n"
    )
    assert len(list(Store(tmp_path / "s").results())) == 2
    monkeypatch.undo()
    assert gatecrash("run", small_grid(), "--store", tmp_path / "s", "-q", "--executor", "serial").code == 0
    assert len(list(Store(tmp_path / "s").results())) == 4


@pytest.mark.parametrize(("removed", "lost"), [(".", 4), ("results", 4)])
def test_a_store_that_is_removed_after_its_last_result_ends_the_run_too(
    gatecrash: Callable[..., Any], small_grid: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, removed: str, lost: int
) -> None:
    ended = Display.cell_ended
    told: list[Any] = []

    def remove_at_the_end(self: Display, result: Any) -> None:
        told.append(ended(self, result))
        if len(told) == 4:
            shutil.rmtree(tmp_path / "s" / removed)

    monkeypatch.setattr(QuietDisplay, "cell_ended", remove_at_the_end)
    called = gatecrash("run", small_grid(), "--store", tmp_path / "s", "-q")
    assert called.code == 2
    assert called.err == f"error: store {tmp_path / 's'} was removed while it was in use ({lost} results are gone); run again\n"


def test_a_store_that_is_removed_ends_the_run(
    gatecrash: Callable[..., Any], small_grid: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = Store.save_result

    def saved_then_removed(self: Store, *arguments: Any) -> Any:
        result = save(self, *arguments)
        shutil.rmtree(self.root)
        return result

    monkeypatch.setattr(Store, "save_result", saved_then_removed)
    called = gatecrash("run", small_grid(), "--store", tmp_path / "s", "-q")
    assert called.code == 2
    assert called.err == f"error: store {tmp_path / 's'} was removed while it was in use; run again\n"
