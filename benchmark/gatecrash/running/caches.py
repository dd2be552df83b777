"""What a run keeps in memory as long as a task that is still to come needs it."""

from __future__ import annotations

from typing import Generic, TypeVar

V = TypeVar("V")


class WhileNeeded(Generic[V]):
    """Values by key, each until the last of its users is done."""

    def __init__(self) -> None:
        self._users: dict[str, set[str]] = {}
        self._values: dict[str, V] = {}

    def need(self, key: str, user: str) -> None:
        self._users.setdefault(key, set()).add(user)

    def put(self, key: str, value: V) -> None:
        """Keep a value; one that nobody needs any more is let go at once."""
        if self._users.get(key):
            self._values[key] = value

    def get(self, key: str) -> V | None:
        """The value; None where it could not be made."""
        return self._values.get(key)

    def __getitem__(self, key: str) -> V:
        return self._values[key]

    def done(self, key: str, user: str) -> None:
        """This user needs it no more; one that never did may say so too."""
        users = self._users.get(key, set())
        users.discard(user)
        if not users:
            self._values.pop(key, None)
