"""Stand-ins for names: of the same length, equal where the names are equal, and filed in the same order as these are.

Names are filed under a keyed hash, and the keys of the tree are sorted by it. So the stand-ins are chosen such that their hashes,
under another key, sort as those of the names do: each node of the copy then holds the same items in the same order, whatever is
wrong with the tree. For each shape of names there is a pool of candidates, sorted by hash; walking up the names in the order of
their hashes, each takes the first candidate of its shape behind the one before.

Invariants: the map of the hashes rises; what was filed right is filed right, and what was not is not; a stand-in is no name that
the image has. Memory: about 200 bytes a name.
"""

import hashlib
import math
from array import array
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import count

from razortools.errors import UsageError
from razortools.format.keys import HASH_MAX, HASH_MIN, KIND_AT, PROBE_WINDOW, Kind, Table, offset_of
from razortools.format.name import hash_name

_LETTERS = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
_WIDE = bytes(byte for byte in range(0x21, 0x100) if byte not in b"./\x7f")
_TO_LETTERS = bytes(_LETTERS[byte % len(_LETTERS)] for byte in range(256))
_KEPT = b"/\0"  # bytes that no name may have: where one has them all the same, the stand-in has them too
_NAMESPACES = (b"user.", b"system.", b"security.", b"trusted.")
_HASHED = (int(Kind.DIRECTORY_ENTRY), int(Kind.XATTR))
_COUNTER_BITS = 24  # a pool has fewer candidates; the rest of 63 bits is the beginning of the hash
_ENUMERATED = 3  # so few free bytes are counted through; longer ones are drawn
_SLACKS = (2, 6, 18)  # the first leaves half of the hashes unused; more where short names leave little choice
_CANDIDATES_MIN = 64
_DIGEST_BYTES = 64
_STEP = 1 << 20  # between the hashes of what has no name

Shape = tuple[bytes, int, tuple[tuple[int, int], ...]]  # what it begins with, its length, (place, byte) that must stay


@dataclass(slots=True)
class StandIns:
    """The names of an image and what stands for them. *seed*: key of the image's hashes; *new_seed*: of the copy's."""

    key: bytes  # the secret from which everything follows
    seed: bytes
    new_seed: bytes
    _names: dict[bytes, bytes] = field(default_factory=dict)  # name -> stand-in
    _hashes: list[int] = field(default_factory=list)  # of the names, in order
    _new_hashes: list[int] = field(default_factory=list)
    _strays: dict[int, int] = field(default_factory=dict)  # hash that belongs to no name -> what stands for it
    _filed: list[tuple[int, bytes, Shape]] = field(default_factory=list)  # names in the order of their hashes, until settle()

    def learn(self, names: Iterable[bytes], attribute_names: Iterable[bytes]) -> None:
        """Take the names of the image. Must come before anything else."""
        shapes = {name: _shape(name, b"") for name in names}
        shapes |= {name: _shape(name, _namespace(name)) for name in attribute_names}
        fixed = {name for name, shape in shapes.items() if not _free_bytes(shape) or name in (b".", b"..")}
        self._names = {name: name if name in fixed else b"" for name in shapes}
        self._filed = sorted((hash_name(name, self.seed), name, shapes[name]) for name in shapes if name not in fixed)
        self._hashes = [hashed for hashed, _, _ in self._filed]

    def note(self, key: bytes) -> None:
        """Take a key of the image. All must be noted before settle()."""
        if is_hashed(key):
            offset = offset_of(key)
            if HASH_MIN <= offset < HASH_MAX and self._window(offset) is None:
                self._strays[offset] = 0

    def settle(self) -> None:
        """Choose the stand-ins. Raises UsageError if there are so many short names that none is left for them."""
        points: list[tuple[int, bytes, Shape | None]] = [*self._filed, *((offset, b"", None) for offset in self._strays)]
        points.sort(key=lambda point: point[0])
        for slack in _SLACKS:
            if self._choose(points, slack):
                self._filed = []
                return
        raise UsageError("there are so many names of one or two bytes that nothing else can stand for them")

    def name(self, name: bytes) -> bytes:
        """Return what stands for *name*, which was learned."""
        return self._names[name]

    def path(self, path: bytes) -> bytes:
        """Return what stands for a path that razorfsck tells; the parts that it made up itself stay."""
        parts, found = path.split(b"/"), list[bytes]()
        while parts:  # a damaged name may have slashes in it
            count = next((n for n in range(len(parts), 1, -1) if b"/".join(parts[:n]) in self._names), 1)
            part = b"/".join(parts[:count])
            found.append(self._names.get(part, part))
            del parts[:count]
        return b"/".join(found)

    def knows(self, key: bytes) -> bool:
        """Return whether *key* is one of the image's; razorfsck also tells of keys that are missing."""
        offset = offset_of(key)
        return not is_hashed(key) or offset in self._strays or self._window(offset) is not None

    def hashed(self, key: bytes) -> bytes:
        """Return *key* as it is in the copy."""
        if not is_hashed(key):
            return key
        offset = offset_of(key)
        if not HASH_MIN <= offset < HASH_MAX:
            return key
        window = self._window(offset)
        new = self._strays[offset] if window is None else self._new_hashes[window] + offset - self._hashes[window]
        return key[: KIND_AT + 1] + new.to_bytes(8, "big")

    def letters(self, content: bytes) -> bytes:
        """Return as many letters as *content* has bytes: the same for the same bytes, and telling nothing of them."""
        if not content:
            return b""
        parts = (self.digest(content + number.to_bytes(4, "little")) for number in count())
        pattern = b"".join(next(parts) for _ in range(min(-(-len(content) // _DIGEST_BYTES), 8)))
        return (pattern * (len(content) // len(pattern) + 1))[: len(content)].translate(_TO_LETTERS)

    def digest(self, content: bytes) -> bytes:
        """Return 64 bytes that follow from *content* and the secret."""
        return hashlib.blake2b(content, key=self.key, digest_size=_DIGEST_BYTES).digest()

    def _window(self, offset: int) -> int | None:
        """Return the number of the name that is filed here, or in the places right behind, if hashes are equal."""
        place = bisect_right(self._hashes, offset) - 1
        return place if place >= 0 and offset - self._hashes[place] < PROBE_WINDOW else None

    def _choose(self, points: list[tuple[int, bytes, Shape | None]], slack: int) -> bool:
        """Choose with pools so large; return whether there was enough."""
        counts = Counter(shape for _, _, shape in points if shape is not None)
        roots = sum(math.sqrt(number) for number in counts.values())
        # Of all ways to share candidates out to the pools this needs the fewest of them for the same slack.
        pools = {shape: _Pool(shape, int(slack * math.sqrt(n) * roots), slack, self) for shape, n in counts.items()}
        last = HASH_MIN
        self._new_hashes = []
        for offset, name, shape in points:
            if shape is None:
                last += PROBE_WINDOW + 1 + int.from_bytes(self.digest(offset.to_bytes(8, "big"))[:8], "little") % _STEP
                self._strays[offset] = last
                continue
            found = pools[shape].first_from(last + PROBE_WINDOW, self._names)
            if found is None:
                return False
            last, self._names[name] = found
            self._new_hashes.append(last)
        return last + PROBE_WINDOW < HASH_MAX


class _Pool:
    """Candidates of one shape, sorted by hash. Only numbers are kept; the text is made from the number again."""

    def __init__(self, shape: Shape, wanted: int, slack: int, owner: StandIns) -> None:
        self._prefix, self._length, kept = shape
        self._kept = dict(kept)
        self._owner = owner
        free = _free_bytes(shape)
        self._alphabet = _WIDE if free < _ENUMERATED and slack > _SLACKS[0] else _LETTERS
        self._free = free
        limit = len(self._alphabet) ** free if free <= _ENUMERATED else 1 << _COUNTER_BITS
        numbers = range(min(max(wanted, _CANDIDATES_MIN), limit, 1 << _COUNTER_BITS))
        self._sorted = array("Q", sorted(self._hash(number) >> _COUNTER_BITS << _COUNTER_BITS | number for number in numbers))

    def first_from(self, lowest: int, taken: dict[bytes, bytes]) -> tuple[int, bytes] | None:
        """Return (hash, text) of the first candidate whose hash is *lowest* or higher and that is no name of the image."""
        at = bisect_left(self._sorted, lowest >> _COUNTER_BITS << _COUNTER_BITS)
        for place in range(at, len(self._sorted)):
            number = self._sorted[place] & (1 << _COUNTER_BITS) - 1
            hashed, text = self._hash(number), self._text(number)
            if hashed >= lowest and text not in taken:
                return hashed, text
        return None

    def _hash(self, number: int) -> int:
        return hash_name(self._text(number), self._owner.new_seed)

    def _text(self, number: int) -> bytes:
        if self._free <= _ENUMERATED:
            size = len(self._alphabet)
            free = bytes(self._alphabet[number // size**place % size] for place in range(self._free))
        else:
            digest = self._owner.digest(number.to_bytes(4, "little") + self._length.to_bytes(2, "little"))
            free = (digest * (self._free // _DIGEST_BYTES + 1))[: self._free].translate(_TO_LETTERS)
        if not self._kept:
            return self._prefix + free
        rest = iter(free)
        places = range(len(self._prefix), self._length)
        return self._prefix + bytes(self._kept[place] if place in self._kept else next(rest) for place in places)


def is_hashed(key: bytes) -> bool:
    """Return whether the offset of *key* is the hash of a name."""
    return key[0] == Table.FILES and key[KIND_AT] in _HASHED


def _shape(name: bytes, prefix: bytes) -> Shape:
    kept = tuple((place, byte) for place, byte in enumerate(name) if byte in _KEPT and place >= len(prefix))
    return prefix, len(name), kept


def _free_bytes(shape: Shape) -> int:
    prefix, length, kept = shape
    return length - len(prefix) - len(kept)


def _namespace(name: bytes) -> bytes:
    return next((one for one in _NAMESPACES if name.startswith(one)), b"")
