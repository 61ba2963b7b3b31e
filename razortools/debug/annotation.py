"""Annotation: the bytes of a structure, each range named by its field from the format's declaration, pointers followed.

Invariants: spans come in rising order and do not overlap; what no declaration names is a span, too, so that every byte is told.
Nothing is raised for bytes that make no sense: they are shown, and what is wrong with them is said.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace

from razortools.debug.ownership import paths_of
from razortools.debug.rawtree import BLOCK_MASK
from razortools.debug.session import Session, reason_of
from razortools.debug.values import show_key, shown_field, shown_runs
from razortools.debug.verifying import read_stored
from razortools.engine.store.journal_reader import LoggedTransaction
from razortools.errors import RazorError
from razortools.format.admin import ADMIN_ENTRY_BYTES, ADMIN_SECTOR_BYTES, ADMIN_SECTOR_ENTRIES, AdminEntry, AdminSector
from razortools.format.data import DataRecord
from razortools.format.directory import BackLink, DirectoryEntry
from razortools.format.items import ITEMS
from razortools.format.journal import ENTRY_HEAD_BYTES, JournalCommit, JournalEntry, Operation
from razortools.format.keys import KEY_BYTES, KIND_AT
from razortools.format.node import (
    NODE_HEADER_BYTES,
    NODE_MAGIC,
    VALUE_END_BYTES,
    ChildPointer,
    NodeHeader,
    decode_header,
    decode_items,
    node_checksum,
)
from razortools.format.record import Record
from razortools.format.spacemap import NEVER_WRITTEN, SpaceMapEntry
from razortools.format.superblock import SUPERBLOCK_BYTES, Superblock
from razortools.units import NameId


@dataclass(frozen=True, slots=True)
class Span:
    """A range of bytes. *at* counts from the start of what is shown; *follow*: what the value leads to."""

    at: int
    length: int
    name: str
    value: str = ""
    follow: str = ""


def superblock_spans(session: Session, raw: bytes) -> Iterator[Span]:
    """Yield the spans of a superblock."""
    yield from record_spans(session, Superblock, raw[:SUPERBLOCK_BYTES], 0, "")
    if len(raw) > SUPERBLOCK_BYTES:
        yield Span(SUPERBLOCK_BYTES, len(raw) - SUPERBLOCK_BYTES, "behind the superblock")


def node_spans(session: Session, raw: bytes) -> Iterator[Span]:
    """Yield the spans of a tree node: header, keys, ends of the values, values field by field."""
    try:
        header = decode_header(raw)
        keys, values = decode_items(raw, header)
    except RazorError as broken:
        yield Span(0, len(raw), "no node", reason_of(broken))
        return
    yield from record_spans(session, NodeHeader, raw[:NODE_HEADER_BYTES], 0, "")
    at = NODE_HEADER_BYTES
    for number, key in enumerate(keys):
        yield Span(at, KEY_BYTES, f"key {number}", show_key(key))
        at += KEY_BYTES
    for number in range(len(keys)):
        yield Span(at, VALUE_END_BYTES, f"end {number}", str(int.from_bytes(raw[at : at + VALUE_END_BYTES], "little")))
        at += VALUE_END_BYTES
    for number, (key, value) in enumerate(zip(keys, values, strict=True)):
        structure = ChildPointer if header.level else ITEMS.get(key[KIND_AT])
        yield from _value_spans(session, structure, value, at, f"{number}: ")
        at += len(value)
    if at < len(raw):
        yield Span(at, len(raw) - at, "unused")


def _value_spans(session: Session, structure: type[Record] | None, value: bytes, at: int, prefix: str) -> Iterator[Span]:
    if structure is None:
        yield Span(at, len(value), f"{prefix}value of unknown kind")
    elif value:
        yield from record_spans(session, structure, value, at, f"{prefix}{structure.__name__}.")


def map_spans(raw: bytes, level: int, index: int, group_blocks: int) -> Iterator[Span]:
    """Yield the spans of a page of the space map: bits, or entries of the pages below."""
    if level == 0:
        step = 64  # bytes that a line tells of
        for at in range(0, len(raw), step):
            first = index * group_blocks + at * 8
            used = int.from_bytes(raw[at : at + step], "little").bit_count()
            yield Span(at, min(step, len(raw) - at), f"blocks {first} to {first + step * 8 - 1}", f"{used} in use")
        return
    size = SpaceMapEntry.FIXED_BYTES
    for number in range(len(raw) // size):
        entry = SpaceMapEntry.decode(raw[number * size : (number + 1) * size])
        told = (
            "never written" if entry.free_count == NEVER_WRITTEN else f"crc32c={entry.crc32c:#010x} free_count={entry.free_count}"
        )
        yield Span(number * size, size, f"entry {number}", told)


def journal_spans(session: Session, transaction: LoggedTransaction) -> Iterator[Span]:
    """Yield the spans of a transaction, counted from where it starts in the ring: heads, and values field by field."""
    at = 0
    for entry in transaction.entries:
        prefix = f"{entry.head.sequence}: "
        yield from _entry_spans(session, entry.head, at, prefix)
        at += ENTRY_HEAD_BYTES
        structure = ITEMS.get(entry.head.key[KIND_AT])
        for word, value in (("undo ", entry.undo), ("redo ", entry.redo)):
            if value:
                yield from _value_spans(session, structure, value, at, prefix + word)
                at += len(value)
    head = JournalEntry(
        transaction.number, transaction.last_sequence, 0, Operation.COMMIT, 2, 0, 0, JournalCommit.FIXED_BYTES, bytes(18)
    )
    yield from _entry_spans(session, head, at, "commit: ")
    at += ENTRY_HEAD_BYTES
    yield from record_spans(session, JournalCommit, transaction.commit.encode(), at, "commit: JournalCommit.")
    at += JournalCommit.FIXED_BYTES
    if at < transaction.commit.total_bytes:
        yield Span(at, transaction.commit.total_bytes - at, "zeros to the end of the block")


def _entry_spans(session: Session, head: JournalEntry, at: int, prefix: str) -> Iterator[Span]:
    """Yield the spans of the head of an entry; its checksum was judged by whoever found it."""
    for span in record_spans(session, JournalEntry, head.encode(), at, f"{prefix}JournalEntry."):
        yield replace(span, value="good, it covers head and values") if span.name.endswith(".crc32c") else span


def record_spans(session: Session, structure: type[Record], raw: bytes, at: int, prefix: str) -> Iterator[Span]:
    """Yield the spans of one record, which is decoded even if its checksum is wrong; embedded records field by field."""
    skip = structure.skipped_bytes()
    try:
        values = structure.STRUCT.unpack_from(raw, skip)
        if structure.TAIL:
            values += (bytes(raw[skip + structure.FIXED_BYTES :]),)
        record = structure._BUILD(values)
    except (struct.error, RazorError) as broken:
        yield Span(at, len(raw), f"{prefix}?", f"no {structure.__name__}: {broken}")
        return
    for field in structure.FIELDS:
        length = field.size_bytes or len(raw) - field.offset
        if length <= 0:
            continue
        held = raw[field.offset : field.offset + length]
        embedded: type[Record] | None = getattr(field.subcon, "record_class", None)
        if field.offset < skip:
            yield Span(at + field.offset, length, prefix + field.name, _head_value(structure, field.name, raw, held))
        elif field.name == "admin_history":
            yield from _history_spans(session, held, at + field.offset, f"{prefix}{field.name}")
        elif embedded is not None:
            yield from record_spans(session, embedded, held, at + field.offset, f"{prefix}{field.name}.")
        else:
            value = shown_field(structure, field.name, getattr(record, field.name))
            yield Span(at + field.offset, length, prefix + field.name, value, _follow(session, record, field.name))


def _history_spans(session: Session, raw: bytes, at: int, prefix: str) -> Iterator[Span]:
    """Yield the spans of the admin history: sector by sector, an entry each."""
    size = ADMIN_ENTRY_BYTES
    for start in range(0, len(raw), ADMIN_SECTOR_BYTES):
        sector, name = raw[start : start + ADMIN_SECTOR_BYTES], f"{prefix}[{start // ADMIN_SECTOR_BYTES}]."
        _, *rest = record_spans(session, AdminSector, sector, at + start, name)
        for number in range(ADMIN_SECTOR_ENTRIES):
            value = shown_field(Superblock, "admin_last", AdminEntry.decode(sector[number * size : (number + 1) * size]))
            yield Span(at + start + number * size, size, f"{name}entries[{number}]", value)
        yield from rest


def _head_value(structure: type[Record], name: str, raw: bytes, held: bytes) -> str:
    """Return what magic and checksum say, the checksum judged in place."""
    if name == "magic":
        return repr(held)[2:-1] if held == structure.MAGIC else f"{held!r}: WRONG, {structure.MAGIC!r} expected"
    if structure is NodeHeader:
        return f"{int.from_bytes(held, 'little'):#010x}"  # it covers the whole node
    try:
        structure.verify(raw)
    except RazorError as broken:
        return f"{int.from_bytes(held, 'little'):#010x}: WRONG, {reason_of(broken)}"
    return f"{int.from_bytes(held, 'little'):#010x}: good"


def _follow(session: Session, record: Record, name: str) -> str:
    """Return what lies where a field points to, or an empty string."""
    try:
        if isinstance(record, ChildPointer) and name in ("address", "mirror"):
            return _follow_node(session, record, getattr(record, name))
        if isinstance(record, DataRecord) and name == "address":
            return _follow_data(session, record)
        if isinstance(record, DirectoryEntry | BackLink) and name in ("inode", "parent"):
            return ", ".join(path.decode("utf-8", "replace") for path in paths_of(session, getattr(record, name)))
        if isinstance(record, DirectoryEntry | BackLink) and name == "name_id" and session.has_volume:
            return repr(session.volume.names.text(NameId(record.name_id)).decode("utf-8", "replace"))
    except RazorError as broken:
        return reason_of(broken)
    return ""


def _follow_node(session: Session, pointer: ChildPointer, address: int) -> str:
    if not address:
        return "no second copy"
    superblock = session.superblock()
    raw = session.device.read((address & BLOCK_MASK) * superblock.block_bytes, superblock.node_bytes)
    if raw[:4] != NODE_MAGIC:
        return "WRONG: no node lies there"
    found = node_checksum(raw)
    state = "good" if found == pointer.crc32c else f"WRONG: checksum {found:#010x}, expected {pointer.crc32c:#010x}"
    return f"node of level {decode_header(raw).level}, {state}"


def _follow_data(session: Session, record: DataRecord) -> str:
    read_stored(session, record)
    return f"blocks {shown_runs(record, session.superblock().block_bytes)}, good"
