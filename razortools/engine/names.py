"""The string table: names of directory entries, each stored once and counted.

Invariants: a name's count is the number of directory entries that carry its id; a string that nobody counts does not exist. Ids
are handed out in order, so names made together lie together. A bounded table of recent names finds duplicates: a name that was
not used lately may be stored a second time under another id, which costs a few bytes and nothing else.
"""

from typing import TYPE_CHECKING

from razortools.engine.recent import RecentTable
from razortools.errors import CorruptImage
from razortools.format.keys import Table, name_key, object_of
from razortools.format.name import Name, hash_name
from razortools.units import NameId

if TYPE_CHECKING:
    from razortools.engine.volume import Volume

NAMES_KEPT = 1 << 16  # about 16 MiB of hashes and texts when full
REFERENCES_MAX = (1 << 32) - 1  # what the field holds; the next user of the name gets a string of its own
NO_ID = NameId(-1)

_COUNT_BYTES = Name.FIXED_BYTES  # the text follows
_count_bytes = Name.STRUCT.pack


class NameTable:
    """Owner of the volume's strings. All changes belong to the running operation."""

    def __init__(self, volume: "Volume", capacity: int = NAMES_KEPT) -> None:
        self._volume = volume
        self._known: RecentTable[bytes, tuple[int, NameId]] = RecentTable(capacity)  # name -> hash, id or NO_ID
        self._strings: RecentTable[NameId, tuple[int, bytes]] = RecentTable(capacity)  # id -> count, name

    def hash(self, name: bytes) -> int:
        """Return the hash under which *name* is filed in directories."""
        return self.known(name)[0]

    def known(self, name: bytes) -> tuple[int, NameId]:
        """Return (hash, id) of *name*; NO_ID if it has none, or none that was used lately."""
        return self._known.young.get(name) or self._known.get(name) or self._learn(name)

    def text(self, name_id: NameId) -> bytes:
        """Return the name with this id. Raises CorruptImage if there is none."""
        return self._string(name_id)[1]

    def matches(self, name_id: NameId, name: bytes) -> bool:
        """Tell whether *name_id* is the id of *name*."""
        known = self._known.young.get(name) or self._known.get(name)
        if known is not None and known[1] == name_id:
            return True
        if self.text(name_id) != name:
            return False
        self._known.put(name, (self.hash(name) if known is None else known[0], name_id))
        return True

    def intern(self, name: bytes) -> NameId:
        """Return an id for *name* and count one more use of it. Part of the running operation."""
        name_hash, name_id = self.known(name)
        if name_id != NO_ID:
            count, text = self._string(name_id)
            if count < REFERENCES_MAX:
                self._write(name_id, count + 1, text)
                return name_id
        counters = self._volume.counters
        name_id = NameId(counters.next_name_id)
        self._write(name_id, 1, name)
        counters.next_name_id += 1
        counters.name_count += 1
        self._known.put(name, (name_hash, name_id))
        return name_id

    def release(self, name_id: NameId) -> None:
        """Count one use less; with the last one the string goes. Part of the running operation."""
        count, text = self._string(name_id)
        if count > 1:
            self._write(name_id, count - 1, text)
            return
        self._volume.store.delete(name_key(name_id))
        self._volume.counters.name_count -= 1
        self._strings.drop(name_id)
        self._forget_id(text, name_id)

    def forget_key(self, key: bytes) -> None:
        """Drop what is kept of the item *key*: its change was taken back."""
        if key[0] == Table.NAMES:
            self._forget(NameId(object_of(key)))

    def forget_all(self) -> None:
        """Drop everything that is kept."""
        self._known.clear()
        self._strings.clear()

    def _learn(self, name: bytes) -> tuple[int, NameId]:
        known = (hash_name(name, self._volume.store.superblock.hash_seed), NO_ID)
        self._known.put(name, known)
        return known

    def _string(self, name_id: NameId) -> tuple[int, bytes]:
        """Return (count, name) of a string."""
        return self._strings.young.get(name_id) or self._strings.get(name_id) or self._load(name_id)

    def _load(self, name_id: NameId) -> tuple[int, bytes]:
        value = self._volume.store.get(name_key(name_id))
        if value is None:
            raise CorruptImage(f"string {name_id} is missing from the string table; unmount and run razorfsck")
        if len(value) < _COUNT_BYTES:
            Name.decode(value)  # says what is wrong
        string = (int.from_bytes(value[:_COUNT_BYTES], "little"), value[_COUNT_BYTES:])
        self._strings.put(name_id, string)
        return string

    def _write(self, name_id: NameId, count: int, text: bytes) -> None:
        self._volume.store.put(name_key(name_id), _count_bytes(count) + text)
        self._strings.put(name_id, (count, text))

    def _forget(self, name_id: NameId) -> None:
        string = self._strings.drop(name_id)
        if string is None:
            # Some name may still be known under this id, which may be handed out again: better to know no name.
            self._known.clear()
            return
        self._forget_id(string[1], name_id)

    def _forget_id(self, name: bytes, name_id: NameId) -> None:
        """Note that *name* has not this id any more."""
        known = self._known.young.get(name) or self._known.get(name)
        if known is not None and known[1] == name_id:
            self._known.put(name, (known[0], NO_ID))
