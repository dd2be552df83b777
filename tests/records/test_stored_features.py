"""Features in the store: a cache of limited size."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from gatecrash.records.store import Store

FACTS = {"weights": "w", "machine": "m"}


def test_features_come_back_as_they_were_under_the_same_facts_alone(tmp_path: Path) -> None:
    store, values = Store(tmp_path).open(), torch.rand(5, 3)
    store.save_features("ab12", values, 2.5, FACTS)
    found = store.features("ab12", FACTS)
    assert found is not None
    assert found[0].equal(values)
    assert found[1] == 2.5
    assert store.features("ab12", {**FACTS, "weights": "others"}) is None
    assert store.features("cd34", FACTS) is None


def test_the_oldest_make_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each takes 400 bytes of values and a header."""
    monkeypatch.setattr("gatecrash.records.features.LIMIT", 1200)
    store = Store(tmp_path).open()
    for key in ("a1", "b2", "c3"):
        store.save_features(key, torch.rand(10, 10), 1.0, FACTS)
    assert [store.features(key, FACTS) is not None for key in ("a1", "b2", "c3")] == [False, True, True]
    store.save_features("d4", torch.rand(100, 10), 1.0, FACTS)
    assert store.features("d4", FACTS) is None
    assert store.features("c3", FACTS) is not None
