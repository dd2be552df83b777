"""What a run keeps as long as it is needed."""

from __future__ import annotations

import pytest

from gatecrash.running.caches import WhileNeeded


def test_a_value_is_kept_until_its_last_user_is_done() -> None:
    kept: WhileNeeded[str] = WhileNeeded()
    for user in ("one", "two"):
        kept.need("a", user)
    kept.put("a", "features")
    kept.done("a", "one")
    kept.done("a", "a stranger")
    kept.done("b", "one")
    assert kept["a"] == "features"
    kept.done("a", "two")
    with pytest.raises(KeyError):
        kept["a"]
    kept.put("a", "too late")
    with pytest.raises(KeyError):
        kept["a"]
