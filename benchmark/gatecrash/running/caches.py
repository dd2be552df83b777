"""What a run keeps in memory between tasks: the last few of what can be made again, and what is dear for as long as it is needed."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

V = TypeVar("V")


class Recent(Generic[V]):
    """The last few values by key."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._values: OrderedDict[str, V] = OrderedDict()

    def get(self, key: str, make: Callable[[], V | None]) -> V | None:
        if key in self._values:
            self._values.move_to_end(key)
            return self._values[key]
        value = make()
        if value is not None:
            self.put(key, value)
        return value

    def put(self, key: str, value: V) -> None:
        self._values[key] = value
        while len(self._values) > self._size:
            self._values.popitem(last=False)


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

    def __getitem__(self, key: str) -> V:
        return self._values[key]

    def done(self, key: str, user: str) -> None:
        """This user needs it no more; one that never did may say so too."""
        users = self._users.get(key, set())
        users.discard(user)
        if not users:
            self._values.pop(key, None)
