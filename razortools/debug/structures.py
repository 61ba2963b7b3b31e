"""What keeps the filesystem together: super, journal."""

import argparse
import uuid
from typing import Any

from razortools.debug.answers import Answer, Lines, Pairs, Several, Table
from razortools.debug.fields import told_fields
from razortools.debug.names import show_name, show_time
from razortools.debug.session import Command, Session, Words
from razortools.engine import directories
from razortools.engine.store import superblocks
from razortools.engine.store.journal import JournalReader, JournalScan, LoggedEntry, LoggedTransaction, journal_seed
from razortools.errors import RazorError
from razortools.format.compression import Algorithm
from razortools.format.geometry import geometry_of
from razortools.format.items import decode_item
from razortools.format.journal import Operation
from razortools.format.keys import Key, Kind
from razortools.format.keys import Table as KeyTable
from razortools.format.record import Record
from razortools.format.superblock import SLOT_COUNT, Compat, Incompat, ReadOnlyCompat, State
from razortools.units import InodeNo, format_size

_SIZES = frozenset(("block_bytes", "node_bytes", "record_bytes"))


def show_super(session: Session, options: argparse.Namespace) -> Answer:
    """super: every field of the superblock that is the truth, and what lies in each place where a copy belongs."""
    newest = session.superblock()
    copies = superblocks.find_copies(session.device)
    rows = [
        (
            f"slot {'AB'[number]}" if number < SLOT_COUNT else f"backup {number - SLOT_COUNT + 1}",
            copy.offset,
            copy.superblock.generation if copy.superblock else "",
            "valid" if copy.superblock else copy.reason,
        )
        for number, copy in enumerate(copies)
    ]
    told = told_fields(type(newest))
    meaning = [(field.name, _shown_field(field.name, getattr(newest, field.name)), field.meaning) for field in told]
    data = {
        "superblock": fields_of(newest),
        "copies": [dict(zip(("place", "offset", "generation", "state"), row, strict=True)) for row in rows],
    }
    return Several(
        [
            Table(("field", "value", "meaning"), meaning, None),
            Lines([""]),
            Table(("copy", "at byte", "generation", "state"), rows, None, right=(1, 2)),
        ],
        data,
    )


def show_journal(session: Session, options: argparse.Namespace) -> Answer:
    """journal: the transactions that the last checkpoint does not contain; -v every entry with its value before and after."""
    superblock = session.superblock()
    reader = JournalReader(session.device, geometry_of(superblock), journal_seed(superblock.uuid))
    scan = reader.scan(superblock.journal_tail, superblock.journal_sequence)
    used = scan.head - superblock.journal_tail
    data = {
        "start_block": superblock.journal_start,
        "ring_bytes": reader.ring_bytes,
        "used_bytes": used,
        "tail": superblock.journal_tail,
        "head": scan.head,
        "flushed_sequence": scan.flushed_sequence,
        "next_sequence": scan.next_sequence,
        "stopped": scan.stopped,
        "damage": scan.damage,
        "transactions": [_transaction(session, one) for one in scan.transactions],
    }
    head: list[tuple[str, object]] = [
        ("place", f"{superblock.journal_blocks} blocks from block {superblock.journal_start}"),
        ("used", f"{format_size(used)} of {format_size(reader.ring_bytes)} ({100 * used / reader.ring_bytes:.1f} %)"),
        ("transactions", len(scan.transactions)),
        ("next entry", scan.next_sequence),
        ("known to be flushed", f"up to entry {scan.flushed_sequence}"),
        ("the walk ended", scan.stopped),
    ]
    if scan.damage:
        head.append(("DAMAGE", scan.damage))
    return Several([Pairs(head, None), *_transactions(session, scan, verbose=options.verbose)], data)


def fields_of(record: Record) -> dict[str, Any]:
    """Return the fields of a record for JSON: bytes in hexadecimal, embedded records as objects."""
    return {field.name: _plain(getattr(record, field.name)) for field in told_fields(type(record))}


def _plain(value: object) -> Any:
    if isinstance(value, Record):
        return fields_of(value)
    return value.hex() if isinstance(value, bytes) else value


def _shown_field(name: str, value: Any) -> str:
    """Return a field of the superblock for people."""
    if name == "uuid":
        return str(uuid.UUID(bytes=value))
    if name == "label":
        return show_name(value.rstrip(b"\0")) or "(none)"
    if isinstance(value, Record):
        return " ".join(f"{part}={_plain(getattr(value, part))}" for part in fields_of(value))
    if isinstance(value, bytes):
        return value.hex()
    if name.endswith("_ns"):
        return show_time(value) if value else "never"
    if name in _SIZES:
        return f"{value} ({format_size(value)})"
    if name in _BITS:
        return " ".join(bit.name.lower() for bit in _BITS[name] if bit & value and bit.name) or "none"
    if name == "compression" and value in list(Algorithm):
        return f"{value} ({Algorithm(value).name.lower()})"
    if name == "state" and value in list(State):
        return f"{value} ({State(value).name.lower()})"
    return str(value)


_BITS: dict[str, Any] = {"compat": Compat, "read_only_compat": ReadOnlyCompat, "incompat": Incompat}


def _transactions(session: Session, scan: JournalScan, *, verbose: bool) -> list[Answer]:
    """Return the transactions for people."""
    parts: list[Answer] = []
    for transaction in scan.transactions:
        when = show_time(transaction.commit.committed_at_ns)
        size = format_size(transaction.commit.total_bytes)
        title = f"transaction {transaction.number}: {len(transaction.entries)} entries, {size}, committed {when}"
        parts += [Lines(["", title]), _entries(session, transaction, verbose=verbose)]
    return parts


def _entries(session: Session, transaction: LoggedTransaction, *, verbose: bool) -> Answer:
    """Return the entries of one transaction: a row each, with *verbose* the values before and after too."""
    if not verbose:
        rows = [
            (
                entry.head.sequence,
                _operation(entry),
                entry.head.inode,
                _path(session, entry.head.inode),
                show_key(entry.head.key),
                "" if entry.undo is None else len(entry.undo),
                "" if entry.redo is None else len(entry.redo),
            )
            for entry in transaction.entries
        ]
        columns = ("entry", "operation", "inode", "path", "key", "undo", "redo")
        return Table(columns, rows, None, right=(0, 2, 5, 6))
    lines = []
    for entry in transaction.entries:
        path = _path(session, entry.head.inode)
        lines.append(f"  {entry.head.sequence} {_operation(entry)} inode {entry.head.inode} {path}")
        lines.append(f"    {show_key(entry.head.key)}")
        lines.append(f"    before: {_shown_value(entry.head.key, entry.undo)}")
        lines.append(f"    after:  {_shown_value(entry.head.key, entry.redo)}")
    return Lines(lines)


def _transaction(session: Session, transaction: LoggedTransaction) -> dict[str, Any]:
    """Return one transaction for JSON."""
    return {
        "number": transaction.number,
        "position": transaction.position,
        "total_bytes": transaction.commit.total_bytes,
        "committed_at_ns": transaction.commit.committed_at_ns,
        "entries": [
            {
                "sequence": entry.head.sequence,
                "operation": _operation(entry),
                "inode": entry.head.inode,
                "path": _path(session, entry.head.inode),
                "key": fields_of(Key.decode(entry.head.key)),
                "undo": _value_data(entry.head.key, entry.undo),
                "redo": _value_data(entry.head.key, entry.redo),
            }
            for entry in transaction.entries
        ],
    }


def show_key(key: bytes) -> str:
    """Return a key for people: ``files 12 DATA_RECORD 3``."""
    parts = Key.decode(key)
    table = KeyTable(parts.table).name.lower() if parts.table in list(KeyTable) else f"table {parts.table}"
    kind = Kind(parts.kind).name if parts.kind in list(Kind) else f"kind {parts.kind:#04x}"
    return f"{table} {parts.object} {kind} {parts.offset}"


def _operation(entry: LoggedEntry) -> str:
    number = entry.head.operation
    return Operation(number).name.lower() if number in list(Operation) else f"operation {number}"


def _path(session: Session, inode: int) -> str:
    """Return a path that leads to *inode* now, or nothing: it may be gone since."""
    try:
        return next(map(show_name, directories.paths(session.volume, InodeNo(inode))), "")
    except RazorError:
        return ""


def _value_data(key: bytes, value: bytes | None) -> Any:
    """Return an item's value for JSON: its record's fields, or the bytes in hexadecimal if they do not decode."""
    if value is None:
        return None
    try:
        return {"record": type(item := decode_item(key, value)).__name__} | fields_of(item)
    except RazorError:
        return {"bytes": value.hex()}


def _shown_value(key: bytes, value: bytes | None) -> str:
    """Return an item's value for people."""
    if value is None:
        return "(absent)"
    data = _value_data(key, value)
    return " ".join(f"{name}={part}" for name, part in data.items())


_SUPER = Words("super")
_JOURNAL = Words("journal")
_JOURNAL.add_argument("-v", dest="verbose", action="store_true", help="every entry with its value before and after")

COMMANDS = (
    Command("super", "show the superblock and all its copies", _SUPER, show_super, ("super",)),
    Command("journal", "show what the last checkpoint does not contain", _JOURNAL, show_journal, ("journal -v",)),
)
