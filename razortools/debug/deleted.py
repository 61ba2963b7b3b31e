"""Deleted files that can be had again: their items stand in tree nodes that were given up and not overwritten yet.

The device is scanned for leaves, which describe themselves. A file is put together as it was at the last checkpoint at which it
had a name: an item counts in the newest leaf up to then that holds it, and not at all if a later one of that time does not hold
it any more. A file is whole if the blocks of its records add up to what its inode counts.
Invariants: nothing is written; what is handed on as contents verified against the checksum in its item.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

from razortools.debug.session import Session
from razortools.debug.verifying import read_stored
from razortools.engine import directories
from razortools.errors import RazorError
from razortools.format.compression import unpack
from razortools.format.data import DataRecord, InlineData
from razortools.format.directory import BackLink
from razortools.format.inode import Inode
from razortools.format.keys import KIND_AT, Kind, Table, inode_key, name_key, object_of, offset_of
from razortools.format.name import Name
from razortools.format.node import NODE_MAGIC, decode_header, decode_items, node_checksum
from razortools.format.xattr import Xattr
from razortools.printable import printable_name
from razortools.units import MIB, InodeNo, NameId

PIECE_BYTES = 4 * MIB
_KEPT = frozenset(map(int, (Kind.INODE, Kind.BACK_LINK, Kind.XATTR, Kind.INLINE_DATA, Kind.DATA_RECORD)))


@dataclass(frozen=True, slots=True)
class _Leaf:
    """A leaf that lies somewhere on the device. *keys*: those of it that are about deleted files."""

    generation: int
    low: bytes
    high: bytes
    keys: frozenset[bytes]


@dataclass(slots=True)
class Deleted:
    """A deleted file as far as its items were found."""

    ino: int
    inode: Inode
    generation: int  # the checkpoint that wrote it last, while it had a name
    path: bytes  # where it was, as far as that can be told
    inline: bytes | None = None
    records: dict[int, DataRecord] = field(default_factory=dict)
    attributes: dict[bytes, bytes] = field(default_factory=dict)
    outside: list[DataRecord] = field(default_factory=list)  # where its large attributes lie
    lost_attributes: list[bytes] = field(default_factory=list)  # names of those that do not verify any more
    lost_bytes: int = 0  # of records that do not verify any more
    found_blocks: int = 0  # of all records that were found, those of large attributes included

    @property
    def is_whole(self) -> bool:
        """Whether everything that its inode counts was found and verifies."""
        if self.lost_bytes or self.lost_attributes or self.found_blocks != self.inode.stored_blocks:
            return False
        return bool(self.records) or self.inline is not None or self.inode.size == 0

    @property
    def state(self) -> str:
        """How much of it can be had, for people."""
        if self.is_whole:
            return "whole"
        missing = self.inode.stored_blocks - self.found_blocks
        parts = [f"{self.lost_bytes} bytes overwritten"] if self.lost_bytes else []
        parts += [f"{missing} blocks not found"] if missing > 0 else []
        parts += [f"attribute {printable_name(name)} overwritten" for name in self.lost_attributes]
        return ", ".join(parts) or "its contents were not found"


_Versions = dict[bytes, dict[int, bytes]]  # key: generation: value
_DEPTH_MAX = 4096  # no path of a host is deeper, and a circle of back links must end


@dataclass(slots=True)
class _Past:
    """What is known of names: those that were found, and the back links of what is deleted, directories among them."""

    names: dict[int, bytes]
    links: dict[int, list[tuple[int, bytes]]]  # inode: (generation, value)

    def name(self, session: Session, link: BackLink) -> bytes | None:
        """Return the name that *link* gives; None: it was not found."""
        held = session.volume.store.get(name_key(NameId(link.name_id))) or self.names.get(link.name_id)
        return None if held is None else Name.decode(held).text

    def path(self, session: Session, directory: int, generation: int) -> bytes:
        """Return where a directory was at checkpoint *generation*, without a slash at the end; ? for what cannot be told."""
        below = b""
        for _ in range(_DEPTH_MAX):
            if session.volume.store.get(inode_key(InodeNo(directory))) is not None:
                above = directories.paths(session.volume, InodeNo(directory))
                return (above[0].rstrip(b"/") if above else b"?") + below
            known = [one for one in self.links.get(directory, []) if one[0] <= generation]
            if not known:
                break
            link = BackLink.decode(max(known)[1])
            name = self.name(session, link)
            if name is None:
                break
            directory, below = link.parent, b"/" + name + below
        return b"?" + below


def find_deleted(session: Session) -> list[Deleted]:
    """Return the regular files and symlinks that are deleted and were found, the latest first."""
    leaves: list[_Leaf] = []
    versions: _Versions = {}
    names: dict[int, bytes] = {}
    living: dict[int, bool] = {}
    for generation, low, high, keys, values in _leaves(session):
        ours = []
        for key, value in zip(keys, values, strict=True):
            if key[0] == Table.NAMES:
                names[object_of(key)] = value
            elif key[0] == Table.FILES and key[KIND_AT] in _KEPT and not _lives(session, living, object_of(key)):
                ours.append(key)
                versions.setdefault(key, {})[generation] = value
        leaves.append(_Leaf(generation, low, high, frozenset(ours)))
    past = _Past(names, {})
    for key, values_then in versions.items():
        if key[KIND_AT] == Kind.BACK_LINK:
            past.links.setdefault(object_of(key), []).extend(values_then.items())
    found = [_assemble(session, key, versions, leaves, past) for key in versions if key[KIND_AT] == Kind.INODE]
    return sorted((one for one in found if one is not None), key=lambda one: (-one.generation, one.ino))


def _lives(session: Session, known: dict[int, bool], ino: int) -> bool:
    if ino not in known:
        known[ino] = session.volume.store.get(inode_key(InodeNo(ino))) is not None
    return known[ino]


def _leaves(session: Session) -> Iterator[tuple[int, bytes, bytes, list[bytes], list[bytes]]]:
    """Yield (generation, low, high, keys, values) of every leaf of this filesystem that verifies and lies where it says."""
    superblock = session.superblock()
    size, device = superblock.block_bytes, session.device
    tag = int.from_bytes(superblock.uuid[:8], "little")
    end = superblock.block_count * size
    for start in range(0, end, PIECE_BYTES):
        length = min(PIECE_BYTES, end - start)
        for number, head in enumerate(device.read_strided(start, length, size, len(NODE_MAGIC))):
            offset = start + number * size
            if head != NODE_MAGIC or offset + superblock.node_bytes > end:
                continue
            raw = device.read(offset, superblock.node_bytes)
            try:
                header = decode_header(raw)
                if header.tag != tag or header.level or node_checksum(raw) != int.from_bytes(raw[4:8], "little"):
                    continue
                if offset // size in (header.address, header.mirror):
                    yield header.generation, header.low, header.high, *decode_items(raw, header)
            except RazorError:
                continue


def _assemble(session: Session, key: bytes, versions: _Versions, leaves: list[_Leaf], past: _Past) -> Deleted | None:
    """Return the file whose inode stands at *key*, as it was when it last had a name."""
    inodes = {generation: Inode.decode(value) for generation, value in versions[key].items() if len(value) == Inode.FIXED_BYTES}
    named = [generation for generation, inode in inodes.items() if inode.link_count]
    if not named or not (inodes[max(named)].is_regular or inodes[max(named)].is_symlink):
        return None
    generation = max(named)
    found = Deleted(object_of(key), inodes[generation], generation, b"")
    about = [leaf for leaf in leaves if leaf.low[:9] <= key[:9] <= leaf.high[:9] and leaf.generation <= generation]
    for other in sorted(one for one in versions if one[:9] == key[:9] and one != key):
        written = max((one for one in versions[other] if one <= generation), default=None)
        if written is None:
            continue
        if any(leaf.generation > written and leaf.low <= other < leaf.high and other not in leaf.keys for leaf in about):
            continue  # it was gone before the file was
        try:
            _take(session, found, other, versions[other][written], past)
        except RazorError:
            continue
    return found


def _take(session: Session, found: Deleted, key: bytes, value: bytes, past: _Past) -> None:
    """Add one item to a file."""
    kind = key[KIND_AT]
    if kind == Kind.DATA_RECORD:
        record = DataRecord.decode(value)
        found.found_blocks += record.block_count(session.superblock().block_bytes)
        try:
            read_stored(session, record)
        except RazorError:
            found.lost_bytes += record.raw_bytes
            return
        found.records[offset_of(key)] = record
    elif kind == Kind.INLINE_DATA:
        item = InlineData.decode(value)
        found.inline = unpack(item.stored, item.algorithm, item.raw_bytes)
    elif kind == Kind.XATTR:
        _take_attribute(session, found, Xattr.decode(value))
    elif kind == Kind.BACK_LINK:
        link = BackLink.decode(value)
        name = past.name(session, link)
        if name is not None:
            found.path = past.path(session, link.parent, found.generation) + b"/" + name


def _take_attribute(session: Session, found: Deleted, attribute: Xattr) -> None:
    outside = attribute.out_of_line
    if outside is None:
        found.attributes[attribute.name] = attribute.value
        return
    found.found_blocks += outside.block_count(session.superblock().block_bytes)
    try:
        found.attributes[attribute.name] = read_stored(session, outside)
    except RazorError:
        found.lost_attributes.append(attribute.name)
    else:
        found.outside.append(outside)


def contents(session: Session, found: Deleted) -> Iterator[tuple[int, bytes]]:
    """Yield (offset, bytes) of what can be read of a deleted file. Raises CorruptImage if it was overwritten meanwhile."""
    if found.inline is not None and not found.records:
        yield 0, found.inline[: found.inode.size]
    for number in sorted(found.records):
        at = number * found.inode.record_bytes
        if at < found.inode.size:
            yield at, read_stored(session, found.records[number])[: found.inode.size - at]
