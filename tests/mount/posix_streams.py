"""What POSIX wants of a stream over a directory that changes, as a judge of what readers are given.

An entry that is there from when a reader begins (by opening or rewinding) until it has reached the end is given once; one that
was gone when it began is not given; any other may be. Who goes back to a position reads on from there.

Source: POSIX.1-2017, readdir(), seekdir(), rewinddir().
"""

from collections.abc import Iterator
from dataclasses import dataclass

NEVER = 1 << 60


@dataclass(frozen=True)
class Entry:
    """What a directory says of a name: the position behind it, and what it leads to."""

    cookie: int
    leads_to: int


@dataclass
class Life:
    """When an entry was there: surely from *made* to *going*, perhaps from *making* to *gone*."""

    making: int
    made: int = NEVER
    going: int = NEVER
    gone: int = NEVER


class History:
    """All entries that a directory has ever had. Time is the number of the step."""

    def __init__(self) -> None:
        self.now = 0
        self.lives: dict[Entry, Life] = {}
        self._under_way: list[tuple[Life, str]] = []

    def make(self, entry: Entry) -> None:
        """The entry comes, from now on until the change is known."""
        self.lives[entry] = Life(self.now)
        self._under_way.append((self.lives[entry], "made"))

    def remove(self, entry: Entry) -> None:
        """The entry goes, from now on until the change is known."""
        self.lives[entry].going = self.now
        self._under_way.append((self.lives[entry], "gone"))

    def know(self) -> None:
        """Who made the changes so far has been answered."""
        for life, end in self._under_way:
            setattr(life, end, self.now)
        self._under_way.clear()


class Judge:
    """Watches what one reader is given. Raises AssertionError if it is not what POSIX wants."""

    def __init__(self, history: History) -> None:
        self._history = history
        self.begin()

    def begin(self) -> None:
        """The reader opens the directory, or rewinds."""
        self._begun = self._history.now
        self._told: list[int] = []
        self._go(0)

    def go_on_from(self, position: int) -> None:
        """The reader goes on where another one was, as servers do for clients that tell positions."""
        self._go(position)

    def go_back(self, which: int) -> int | None:
        """The reader goes to a position that it has been told since it began; return it, None if there is none."""
        if not self._told:
            return None
        return self._go(self._told[which % len(self._told)])

    def _go(self, position: int) -> int:
        self._start = self._last = position
        self._given: list[Entry] = []
        return position

    def give(self, entry: Entry) -> None:
        """The reader is given an entry."""
        assert self._history.lives[entry].gone >= self._begun, f"{entry} was gone when its reader began"
        assert entry.cookie not in [one.cookie for one in self._given], f"{entry} was given twice"
        self._last = entry.cookie
        self._given.append(entry)
        self._told.append(entry.cookie)

    def end(self) -> None:
        """The reader is told that this was all."""
        missing = set(self._there_all_the_time()) - set(self._given)
        assert not missing, f"{missing} were not given, from {self._start} to the end"
        self._go(self._last)

    def _there_all_the_time(self) -> Iterator[Entry]:
        for entry, life in self._history.lives.items():
            if life.made <= self._begun and life.going > self._history.now and entry.cookie > self._start:
                yield entry
