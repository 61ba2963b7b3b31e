"""Power cuts: what a disk may hold after one. Pure.

The model. A disk writes sectors of 512 bytes; each is old or new, never a mixture. What the last flush covered is there. Of
what was written since, every sector holds one of the versions that were written to it, or what it held before, each sector for
itself. Writes that are lost, torn or reordered are all choices of this kind, so the states after a power cut at any moment
between two flushes are among the choices that are open right before the second one.
"""

import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from math import prod

SECTOR_BYTES = 512
WRITE_SUBSETS_MAX = 6  # up to so many writes are tried in every subset

Choice = dict[int, int]  # sector -> number of its version; a sector that is not named keeps what is stable


@dataclass(frozen=True, slots=True)
class Write:
    """What one write put over what it found; both cover the same whole sectors."""

    offset: int  # in bytes, of the first sector
    before: bytes
    after: bytes

    @property
    def sectors(self) -> range:
        """Numbers of the sectors that it touched."""
        first = self.offset // SECTOR_BYTES
        return range(first, first + len(self.after) // SECTOR_BYTES)


class Unflushed:
    """The versions of every sector since the last flush. Version 0 is what is stable."""

    def __init__(self, writes: Iterable[Write] = ()) -> None:
        """Gather *writes* in their order."""
        self.versions: dict[int, list[bytes]] = {}
        self.writes: list[Choice] = []  # what each write did, by the numbers of the versions
        for write in writes:
            self._add(write)
        self._drop_what_never_changed()

    def _add(self, write: Write) -> None:
        did: Choice = {}
        for at, sector in enumerate(write.sectors):
            piece = write.after[at * SECTOR_BYTES : (at + 1) * SECTOR_BYTES]
            known = self.versions.get(sector)
            if known is None:
                known = self.versions[sector] = [write.before[at * SECTOR_BYTES : (at + 1) * SECTOR_BYTES]]
            if piece not in known:
                known.append(piece)
            did[sector] = known.index(piece)
        self.writes.append(did)

    def _drop_what_never_changed(self) -> None:
        still = {sector for sector, versions in self.versions.items() if len(versions) == 1}
        for sector in still:
            del self.versions[sector]
        if still:
            changed = ({sector: number for sector, number in did.items() if sector not in still} for did in self.writes)
            self.writes = [did for did in changed if did]

    @property
    def choice_count(self) -> int:
        """How many states there are."""
        return prod(len(versions) for versions in self.versions.values())

    def everything(self) -> Choice:
        """Return the choice in which all writes arrived."""
        return self.arrived(self.writes)

    @staticmethod
    def arrived(writes: Iterable[Choice]) -> Choice:
        """Return the choice in which *writes* arrived, in this order."""
        arrived: Choice = {}
        for did in writes:
            arrived.update(did)
        return arrived

    def choices(self, limit: int, chance: random.Random) -> Iterator[Choice]:
        """Yield all choices, or the *limit* most telling ones if there are more. Each once."""
        everyone = self._all() if self.choice_count <= limit else self._telling(chance, 8 * limit)
        seen: set[frozenset[tuple[int, int]]] = set()
        for choice in everyone:
            real = {sector: number for sector, number in choice.items() if number}
            mark = frozenset(real.items())
            if mark not in seen:
                seen.add(mark)
                yield real
                if len(seen) == limit:
                    return

    def _all(self) -> Iterator[Choice]:
        sectors = list(self.versions)
        numbers = [0] * len(sectors)
        while True:
            yield dict(zip(sectors, numbers, strict=True))
            for at, sector in enumerate(sectors):
                numbers[at] += 1
                if numbers[at] < len(self.versions[sector]):
                    break
                numbers[at] = 0
            else:
                return

    def _telling(self, chance: random.Random, tries: int) -> Iterator[Choice]:
        """Yield what is likeliest to hurt first, then *tries* choices at random."""
        yield {}
        yield self.everything()
        yield from self._prefixes()
        yield from self._single_writes()
        yield from self._single_sectors()
        for _ in range(tries):
            yield self.sample(chance)

    def _prefixes(self) -> Iterator[Choice]:
        """Yield every point of the write log: all writes before it arrived, and the one under way in part."""
        for count, did in enumerate(self.writes):
            before = self.arrived(self.writes[:count])
            yield before
            sectors = list(did)
            for torn in range(1, len(sectors)):
                yield before | {sector: did[sector] for sector in sectors[:torn]}

    def _single_writes(self) -> Iterator[Choice]:
        """Yield choices in which one write alone is lost, or alone arrived; of few writes, every subset."""
        count = len(self.writes)
        if count <= WRITE_SUBSETS_MAX:
            for mask in range(1 << count):
                yield self.arrived(did for at, did in enumerate(self.writes) if mask >> at & 1)
            return
        for lost in range(count):
            yield self.arrived(self.writes[:lost] + self.writes[lost + 1 :])
            yield dict(self.writes[lost])

    def _single_sectors(self) -> Iterator[Choice]:
        everything = self.everything()
        for sector in everything:
            yield everything | {sector: 0}
            yield {sector: everything[sector]}

    def sample(self, chance: random.Random) -> Choice:
        """Return a choice at random. Extremes are likelier than the middle, whole writes as likely as torn ones."""
        likely = chance.choice((0.0, 0.05, 0.5, 0.95, 1.0))
        if chance.random() < 0.5:
            writes = [did for did in self.writes if chance.random() < likely]
            if chance.random() < 0.3:
                chance.shuffle(writes)
            return self.arrived(writes)
        return {
            sector: chance.randrange(1, len(versions)) for sector, versions in self.versions.items() if chance.random() < likely
        }

    def contents(self, choice: Choice) -> list[tuple[int, bytes]]:
        """Return (offset in bytes, sector) of everything that *choice* changes on the stable disk."""
        return [(sector * SECTOR_BYTES, self.versions[sector][number]) for sector, number in choice.items()]


def whole_sectors(offset: int, length: int) -> tuple[int, int]:
    """Return (offset, length) of the whole sectors around a range of bytes."""
    start = offset // SECTOR_BYTES * SECTOR_BYTES
    end = -(-(offset + length) // SECTOR_BYTES) * SECTOR_BYTES
    return start, end - start
