"""The inventory: what a user finds in an image, file by file, so that two views of it can be compared (loss.py does).

It is taken of the image as the next mount would see it, and as far as it can be read: every stored byte is verified. A file is an
inode here, told apart by its number, which is never given twice. What costs memory for each file are numbers in arrays, about 60
bytes; paths are made on demand from the device, which must show the same then.

Invariants: nothing is written, and no damage raises; two files with the same contents sum and no hurt part hold the same bytes
and attributes (but for one chance in 2^64).
"""

from array import array
from bisect import bisect_left, bisect_right
from dataclasses import dataclass, field
from itertools import accumulate
from typing import TypeVar

from razortools.check import inode_pass, journal_pass, superblock_pass
from razortools.check.compression_pass import INLINE_BYTES_MAX
from razortools.check.contents import sound_record, verify
from razortools.check.facts import InodeFacts, JournalFacts
from razortools.check.inode_rules import xattr_fault
from razortools.check.keylist import KeyList
from razortools.check.paths import DEPTH_MAX, Paths, join
from razortools.check.steps import finished
from razortools.check.tree import Place, kinds_mask
from razortools.engine.store.device import Device
from razortools.errors import CorruptImage, RazorError
from razortools.format.compression import unpack
from razortools.format.data import InlineData, Patch
from razortools.format.directory import DirectoryEntry
from razortools.format.inode import ROOT_INODE, FileType, OrphanReason
from razortools.format.keys import KIND_AT, Kind, Table, entry_key, object_of, offset_of
from razortools.format.xattr import Xattr, XattrFlag
from razortools.units import InodeNo

READ_KINDS = kinds_mask(Kind.INODE, Kind.XATTR, Kind.INLINE_DATA, Kind.DATA_RECORD, Kind.DIRECTORY_ENTRY, Kind.PATCH)
DANGLING_MAX = 100_000  # entries without an inode that are remembered
SUM = (1 << 64) - 1
_INODE, _XATTR, _INLINE, _RECORD = int(Kind.INODE), int(Kind.XATTR), int(Kind.INLINE_DATA), int(Kind.DATA_RECORD)
_ENTRY, _PATCH = int(Kind.DIRECTORY_ENTRY), int(Kind.PATCH)
_FILES, _PATCHES = int(Table.FILES), int(Table.PATCHES)
_IDENTITY = slice(8, 21)  # of a data record's bytes: what is stored, without the place and the time

_OWNER = slice(0, 12)  # of an inode's bytes: mode, owner, group
_TIMES = slice(32, 72)  # and its times, and the device number

Result = TypeVar("Result")


@dataclass(slots=True)
class Inventory:
    """What an image holds. The arrays go by the place of an inode in *facts*."""

    facts: InodeFacts | None  # None: no superblock, nothing is known
    broken: KeyList  # items whose contents do not verify
    contents: "array[int]" = field(default_factory=lambda: array("Q"))  # sum over data and attributes
    names: "array[int]" = field(default_factory=lambda: array("Q"))  # sum over the entries that lead to the inode
    parents: "array[int]" = field(default_factory=lambda: array("Q"))  # directory of its first entry, 0: none
    cookies: "array[int]" = field(default_factory=lambda: array("Q"))  # that entry's offset in the directory
    attributes: "array[int]" = field(default_factory=lambda: array("Q"))  # sum of owner, mode and times
    hurt: bytearray = field(default_factory=bytearray)  # 1: a part of it cannot be read
    headless: "array[int]" = field(default_factory=lambda: array("Q"))  # numbers that have contents, but no inode
    headless_contents: "array[int]" = field(default_factory=lambda: array("Q"))
    dangling: list[bytes] = field(default_factory=list)  # keys of entries whose inode is missing
    more_dangling: int = 0  # that are not remembered
    _paths: Paths | None = None
    _endless: set[int] = field(default_factory=set)  # inodes whose way up was found to lead around a cycle
    _lost: "tuple[list[bytes], list[bytes], list[Place]] | None" = None  # in order, with how far those up to each reach

    def lost_within(self, low: bytes, high: bytes) -> list[Place]:
        """Return the parts of the tree of which nobody knows what was in them, and which may hold keys from *low* to *high*."""
        assert self.facts is not None
        if self._lost is None:
            places = lost_places(self.facts)
            self._lost = [place.low for place in places], list(accumulate((place.high for place in places), max)), places
        lows, reach, places = self._lost
        # They lie side by side, unless the keys of a node are in disorder: then each child may hold anything of its parent's.
        return places[bisect_right(reach, low) : bisect_right(lows, high)]

    @property
    def numbers(self) -> "array[int]":
        """The inodes, rising."""
        return self.facts.numbers if self.facts is not None else array("Q")

    def find(self, number: int) -> int:
        """Return the place of an inode, -1 if there is none."""
        return self.facts.find(number) if self.facts is not None else -1

    def is_deleted(self, place: int) -> bool:
        """Return whether the inode waits for its deletion: no user sees it any more."""
        assert self.facts is not None
        return self.facts.orphans.get(self.facts.numbers[place]) == OrphanReason.UNLINKED

    def is_directory(self, place: int) -> bool:
        """Return whether the inode is a directory."""
        assert self.facts is not None
        return self.facts.types[place] == FileType.DIRECTORY

    @property
    def paths(self) -> Paths:
        """The paths as back links tell them."""
        assert self.facts is not None
        if self._paths is None:
            self._paths = Paths(self.facts.tree)
        return self._paths

    def path(self, number: int) -> str:
        """Return the path of an inode: by its first name and those above it; where a name is missing, by back links."""
        names: list[str] = []
        at = number
        visited: set[int] = set()
        while at != ROOT_INODE and len(names) < DEPTH_MAX and at not in self._endless:
            if at in visited:
                self._endless |= visited
                break
            visited.add(at)
            place = self.find(at)
            if place < 0 or not self.parents[place]:
                return join(self.paths.of(at), *reversed(names))
            names.append(self.name_at(entry_key(InodeNo(self.parents[place]), self.cookies[place])))
            at = self.parents[place]
        return join("/", *reversed(names)) if at == ROOT_INODE else self.paths.of(number)

    def path_at(self, key: bytes) -> str:
        """Return the path that the directory entry *key* stands for."""
        return join(self.path(object_of(key)), self.name_at(key))

    def name_at(self, key: bytes) -> str:
        """Return the name of the directory entry *key*."""
        assert self.facts is not None
        value = self.facts.tree.get(key)
        if value is None or len(value) != DirectoryEntry.FIXED_BYTES:
            return "<name>"
        return self.paths.name(DirectoryEntry.decode(value).name_id)


def take_inventory(device: Device, threads: int = 2) -> Inventory:
    """Return the inventory of the image on *device*, which is not written. Raises nothing for what is damaged."""
    facts = _facts_of(device)
    if facts is None:
        return Inventory(None, KeyList())
    broken = KeyList()
    try:
        for batch in verify(facts, None, threads, decompress=True):
            for wrong in batch.broken:
                if not wrong.is_readable:
                    broken.add(wrong.key)
    except Exception:  # as in the runner: damage can take any shape; what was not verified counts as it stands in the tree
        pass
    broken.sort()
    taking = _Taking(facts, broken)
    taking.read()
    taking.mark_lost()
    return taking.inventory


def _facts_of(device: Device) -> InodeFacts | None:
    """Return the inodes of the view that the next mount will have, or None if there is nothing to go by."""
    try:
        superblocks = finished(superblock_pass.check(device))
        if superblocks is None:
            return None
        try:
            journal = finished(journal_pass.check(superblocks))
        except Exception:  # the journal's damage must not hide the files
            journal = JournalFacts(superblocks.image, superblocks.image, 0)
        return finished(inode_pass.check(journal))
    except Exception:  # as in the runner: what stops a pass is damage
        return None


class _Taking:
    """The inventory while the items go by."""

    def __init__(self, facts: InodeFacts, broken: KeyList) -> None:
        count = len(facts.numbers)
        empty = bytes(8 * count)
        self.facts = facts
        self.broken = broken
        contents, names, parents, cookies, attributes = (array("Q", empty) for _ in range(5))
        self.inventory = Inventory(facts, broken, contents, names, parents, cookies, attributes, bytearray(count))
        self._object = b""  # whose items are going by
        self._place = -1
        self._with_items = -1  # how many headless ones have more than patches, once the patches go by

    def read(self) -> None:
        """Go through all items that belong to files."""
        for _, (keys, values) in self.facts.tree.leaves(READ_KINDS):
            for key, value in zip(keys, values, strict=True):
                if key[0] == _PATCHES and key[KIND_AT] == _PATCH:
                    self._patch(key, value)
                if key[0] != _FILES:
                    continue
                if key[1:9] != self._object:
                    self._object = key[1:9]
                    self._place = self.facts.find(object_of(key))
                kind = key[KIND_AT]
                if kind == _INODE and self._place >= 0:
                    self.inventory.attributes[self._place] = hash((value[_OWNER], value[_TIMES])) & SUM
                elif kind == _ENTRY:
                    self._entry(key, value)
                elif kind in (_RECORD, _INLINE, _XATTR):
                    self._contents(key, value)

    def _entry(self, key: bytes, value: bytes) -> None:
        if len(value) != DirectoryEntry.FIXED_BYTES:
            return
        inventory = self.inventory
        place = self.facts.find(int.from_bytes(value[:8], "little"))
        if place < 0:
            if len(inventory.dangling) < DANGLING_MAX:
                inventory.dangling.append(key)
            else:
                inventory.more_dangling += 1
            return
        inventory.names[place] = (inventory.names[place] + hash(key)) & SUM
        if not inventory.parents[place]:
            inventory.parents[place] = object_of(key)
            inventory.cookies[place] = offset_of(key)

    def _contents(self, key: bytes, value: bytes) -> None:
        identity = identity_of(self.facts, self.broken, key, value)
        inventory, place = self.inventory, self._place
        if place < 0:
            if key[KIND_AT] != _XATTR:
                self._headless(object_of(key), identity, key)
        elif identity is None:
            inventory.hurt[place] = 1
        else:
            inventory.contents[place] = (inventory.contents[place] + hash((key[KIND_AT:], identity))) & SUM

    def _patch(self, key: bytes, value: bytes) -> None:
        """Take in a patch: all items of the files went by before."""
        identity = patch_identity(value)
        inventory, place = self.inventory, self.facts.find(object_of(key))
        if place < 0:
            number = object_of(key)
            if self._with_items < 0:
                self._with_items = len(inventory.headless)  # they rise up to here
            known = bisect_left(inventory.headless, number, 0, self._with_items)
            if known == self._with_items or inventory.headless[known] != number:
                self._headless(number, identity, key)
        elif identity is None:
            inventory.hurt[place] = 1
        else:
            inventory.contents[place] = (inventory.contents[place] + hash((key[KIND_AT:], identity))) & SUM

    def _headless(self, number: int, identity: bytes | None, key: bytes) -> None:
        inventory = self.inventory
        if not inventory.headless or inventory.headless[-1] != number:
            inventory.headless.append(number)
            inventory.headless_contents.append(0)
        if identity is not None:
            more = hash((key[KIND_AT:], identity))
            inventory.headless_contents[-1] = (inventory.headless_contents[-1] + more) & SUM

    def mark_lost(self) -> None:
        """Files of which a part may have been in a lost node are hurt."""
        numbers = self.facts.numbers
        for place in lost_places(self.facts):
            first = bisect_left(numbers, object_of(place.low)) if place.low[0] <= _FILES else len(numbers)
            if place.low[0] < _FILES:
                first = 0
            last = bisect_right(numbers, object_of(place.high)) if place.high[0] == _FILES else len(numbers)
            for at in range(first, last):
                self.inventory.hurt[at] = 1


def lost_places(facts: InodeFacts) -> list[Place]:
    """Return the parts of the tree of which nobody knows what was in them, in the order of their keys."""
    return sorted([*facts.tree.lost, *facts.tree.shared], key=lambda place: place.low)


def identity_of(facts: InodeFacts, broken: KeyList, key: bytes, value: bytes) -> bytes | None:
    """Return what tells the contents of an item apart from others, wherever they are stored; None if they cannot be read."""
    kind = key[KIND_AT]
    if kind == _INLINE:
        return value if _inline_is_sound(value) else None
    if kind == _XATTR:
        if not _xattr_is_sound(key, value, facts.tree.image.superblock.hash_seed):
            return None
        if not value[1] & XattrFlag.OUT_OF_LINE:
            return value
    if sound_record(facts.tree.image, key, value) is None or key in broken:
        return None
    if kind == _RECORD:
        return value[_IDENTITY]
    start = 2 + value[0]
    return value[:start] + value[start + _IDENTITY.start : start + _IDENTITY.stop]


def patch_identity(value: bytes) -> bytes | None:
    """Return the bytes that a patch lays over its file, None if it cannot be read."""
    try:
        return Patch.decode(value).data
    except CorruptImage:
        return None


def _xattr_is_sound(key: bytes, value: bytes, hash_seed: bytes) -> bool:
    """Return whether an attribute can be asked for by its name."""
    try:
        return not xattr_fault(Xattr.decode(value), offset_of(key), hash_seed)
    except (RazorError, IndexError):
        return False


def _inline_is_sound(value: bytes) -> bool:
    try:
        unpack_inline(value)
    except (RazorError, IndexError):
        return False
    return True


def unpack_inline(value: bytes) -> bytes:
    """Return the contents of a small file. Raises CorruptImage."""
    inline = InlineData.decode(value)
    if inline.raw_bytes > INLINE_BYTES_MAX:
        raise CorruptImage(f"inline data of {inline.raw_bytes} bytes")
    return unpack(inline.stored, inline.algorithm, inline.raw_bytes)
