"""Bounded tables of what was used recently.

A table has two halves. What is used moves into the young half; when that is full it becomes the old one, and what still stood in
the old one is forgotten. So a hit costs one look into a dict, and nothing that was among the last `capacity / 2` different keys
used is ever forgotten: a value that an operation holds in its hands stays the table's value while the operation runs.

Who asks for every request may look into `young` first, and call `get` only if nothing is there: a hit moves nothing, and a call
of a Python function costs more than the look.
"""

from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class RecentTable(Generic[K, V]):
    """Up to *capacity* values by key, the ones used last. None cannot be a value: it means absent."""

    __slots__ = ("_half", "_old", "young")

    def __init__(self, capacity: int) -> None:
        self._half = max(1, capacity // 2)
        self.young: dict[K, V] = {}
        self._old: dict[K, V] = {}

    def __len__(self) -> int:
        return len(self.young) + sum(key not in self.young for key in self._old)

    def get(self, key: K) -> V | None:
        """Return the value of *key*, or None."""
        value = self.young.get(key)
        if value is None:
            value = self._old.get(key)
            if value is not None:
                self.put(key, value)
        return value

    def peek(self, key: K) -> V | None:
        """Return the value of *key*, or None; nothing moves, so nothing is forgotten for it."""
        value = self.young.get(key)
        return self._old.get(key) if value is None else value

    def put(self, key: K, value: V) -> None:
        """Keep *value* for *key*."""
        young = self.young
        young[key] = value
        if len(young) >= self._half:
            self._old = young
            self.young = {}

    def drop(self, key: K) -> V | None:
        """Forget *key*; return the value it had, or None."""
        old = self._old.pop(key, None)
        return self.young.pop(key, old)

    def clear(self) -> None:
        """Forget everything."""
        self.young = {}
        self._old = {}
