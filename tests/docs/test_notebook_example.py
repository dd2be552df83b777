"""docs/getting-started.md: the notebook's example works as shown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gatecrash import LoadedVictim, Summary
from support.documents import code_blocks


def test_the_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    (example,) = code_blocks("docs/getting-started.md", "python")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(example, names)
    assert isinstance(names["summary"], Summary)
    assert names["summary"].exit_code == 0
    assert len(names["table"]) == len(names["summary"].results) == 4
    assert isinstance(names["victim"], LoadedVictim)
    printed = capsys.readouterr().out
    assert "fine-pruning" in printed
    assert "tensor([" in printed
    assert (tmp_path / "my-store" / "store.json").is_file()
