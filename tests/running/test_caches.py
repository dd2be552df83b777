"""What a run keeps between tasks, and what it lets go."""

from __future__ import annotations

import pytest

from gatecrash.running.caches import Recent, WhileNeeded


def test_the_least_recently_used_goes_first() -> None:
    kept: Recent[str] = Recent(2)
    made = []

    def make(key: str) -> str:
        made.append(key)
        return key.upper()

    for key in ("a", "b", "a", "c", "a", "b"):
        assert kept.get(key, lambda key=key: make(key)) == key.upper()  # type: ignore[misc]
    assert made == ["a", "b", "c", "b"]
    assert kept.get("x", lambda: None) is None


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
