"""What was looked up lately: the kernel asks for a name right before it makes, moves or removes it, and then we need it again.

For the start of a name's probe window (the key of an entry with just its hash): the name that was looked for, and the entry that
was found there, or that the name is absent and that its entry would go there. Entries that stand further on in their window, for
which it takes names of equal hash, are not kept. Invariant: what is kept is true of the tree. Whoever sets or removes an entry
drops what is kept of its key in the same step, and nothing else can change the answer: a name that is kept as absent can only be
made at its own key, for that is free; a name that is kept as found can only go from there.
"""

KEPT_MAX = 512  # a LOOKUP and its request are next to each other, but for what other programs ask in between


class LookedUp:
    """Answers by key, the newest at the most; emptied when full."""

    __slots__ = ("_kept", "drop", "get")

    def __init__(self) -> None:
        self._kept: dict[bytes, tuple[bytes, bytes | None]] = {}  # key -> name, value of its entry or None
        self.get = self._kept.get  # without a function of our own around it: this runs several times a request
        self.drop = self._kept.pop  # call with the key and None

    def keep(self, key: bytes, name: bytes, value: bytes | None) -> None:
        """Note that *name*, whose window starts at *key*, has its entry *value* there; None: is absent, and *key* is free."""
        if len(self._kept) >= KEPT_MAX:
            self._kept.clear()
        self._kept[key] = (name, value)

    def clear(self) -> None:
        """Forget everything."""
        self._kept.clear()
