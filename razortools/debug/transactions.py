"""journal: the transactions that the last checkpoint does not contain, with every value before and after."""

import argparse
from collections.abc import Iterator
from typing import Any

from razortools.debug.answers import Answer, Lines, Pairs, Several, Table
from razortools.debug.arguments import count, seconds
from razortools.debug.session import Command, Session, Words
from razortools.debug.shown import show_time
from razortools.debug.values import changed_fields, fields_of, item_data, show_key, shown_item
from razortools.engine import directories
from razortools.engine.store.journal_reader import JournalReader, JournalScan, LoggedEntry, LoggedTransaction, journal_seed
from razortools.errors import RazorError
from razortools.format.geometry import geometry_of
from razortools.format.journal import Operation
from razortools.format.keys import Key
from razortools.printable import printable_name
from razortools.steps import finished
from razortools.units import InodeNo, format_size


def show_journal(session: Session, options: argparse.Namespace) -> Answer:
    """journal: what waits in the ring, entry by entry; with -v the values before and after."""
    superblock = session.superblock()
    scan = scan_journal(session)
    used = scan.head - superblock.journal_tail
    ring_bytes = geometry_of(superblock).journal_bytes
    chosen = [(one, entries) for one in scan.transactions if (entries := list(_chosen(session, one, options)))]
    data = {
        "start_block": superblock.journal_start,
        "ring_bytes": ring_bytes,
        "used_bytes": used,
        "tail": superblock.journal_tail,
        "head": scan.head,
        "flushed_sequence": scan.flushed_sequence,
        "next_sequence": scan.next_sequence,
        "stopped": scan.stopped,
        "damage": scan.damage,
        "transactions": [_transaction(session, one, entries) for one, entries in chosen],
    }
    head: list[tuple[str, object]] = [
        ("place", f"{superblock.journal_blocks} blocks from block {superblock.journal_start}"),
        ("used", f"{format_size(used)} of {format_size(ring_bytes)} ({100 * used / ring_bytes:.1f} %)"),
        ("transactions", len(scan.transactions)),
        ("next entry", scan.next_sequence),
        ("known to be flushed", f"up to entry {scan.flushed_sequence}"),
        ("the walk ended", scan.stopped),
    ]
    if scan.damage:
        head.append(("DAMAGE", scan.damage))
    parts: list[Answer] = [Pairs(head, None)]
    for one, entries in chosen:
        when = show_time(one.commit.committed_at_ns)
        size = format_size(one.commit.total_bytes)
        parts.append(Lines(["", f"transaction {one.number}: {len(one.entries)} entries, {size}, committed {when}"]))
        parts.append(_in_full(session, entries) if options.verbose else _in_short(session, entries))
    return Several(parts, data)


def scan_journal(session: Session) -> JournalScan:
    """Return what a walk through the ring finds."""
    superblock = session.superblock()
    reader = JournalReader(session.device, geometry_of(superblock), journal_seed(superblock.uuid))
    return finished(reader.scanning_from(superblock))


def _chosen(session: Session, transaction: LoggedTransaction, options: argparse.Namespace) -> Iterator[LoggedEntry]:
    """Yield the entries of a transaction that fit all conditions."""
    committed = transaction.commit.committed_at_ns
    if options.transaction is not None and transaction.number != options.transaction:
        return
    if (options.since is not None and committed < options.since) or (options.until is not None and committed > options.until):
        return
    top = None if options.path is None else session.absolute(options.path)
    for entry in transaction.entries:
        if options.operation is not None and operation_name(entry) != options.operation:
            continue
        if top is not None and not any(_is_below(path, top) for path in _paths(session, entry.head.inode)):
            continue
        yield entry


def _is_below(path: bytes, top: bytes) -> bool:
    return path == top or path.startswith(top.rstrip(b"/") + b"/")


def _in_short(session: Session, entries: list[LoggedEntry]) -> Answer:
    """Return entries for people, a row each."""
    rows = [
        (
            entry.head.sequence,
            operation_name(entry),
            entry.head.inode,
            _path(session, entry.head.inode),
            show_key(entry.head.key),
            "" if entry.undo is None else len(entry.undo),
            "" if entry.redo is None else len(entry.redo),
        )
        for entry in entries
    ]
    columns = ("entry", "operation", "inode", "path", "key", "undo", "redo")
    return Table(columns, rows, None, right=(0, 2, 5, 6))


def _in_full(session: Session, entries: list[LoggedEntry]) -> Answer:
    """Return entries for people, with the values before and after; of a value that changed, the fields that did."""
    lines = []
    for entry in entries:
        key = entry.head.key
        lines.append(
            f"  {entry.head.sequence} {operation_name(entry)} inode {entry.head.inode} {_path(session, entry.head.inode)}"
        )
        lines.append(f"    {show_key(key)}")
        changed = changed_fields(key, entry.undo, entry.redo)
        if changed:
            lines += [f"    {name}: {before} -> {after}" for name, before, after in changed]
            continue
        lines.append(f"    before: {shown_item(key, entry.undo)}")
        lines.append(f"    after:  {shown_item(key, entry.redo)}")
    return Lines(lines)


def _transaction(session: Session, transaction: LoggedTransaction, entries: list[LoggedEntry]) -> dict[str, Any]:
    """Return one transaction for JSON."""
    return {
        "number": transaction.number,
        "position": transaction.position,
        "total_bytes": transaction.commit.total_bytes,
        "committed_at_ns": transaction.commit.committed_at_ns,
        "entries": [
            {
                "sequence": entry.head.sequence,
                "operation": operation_name(entry),
                "inode": entry.head.inode,
                "path": _path(session, entry.head.inode),
                "key": fields_of(Key.decode(entry.head.key)),
                "undo": item_data(entry.head.key, entry.undo),
                "redo": item_data(entry.head.key, entry.redo),
            }
            for entry in entries
        ],
    }


def operation_name(entry: LoggedEntry) -> str:
    """Return what operation an entry belongs to."""
    number = entry.head.operation
    return Operation(number).name.lower() if number in list(Operation) else f"operation {number}"


def _paths(session: Session, inode: int) -> list[bytes]:
    """Return the paths that lead to *inode* now; it may be gone since, or the tree unreadable."""
    try:
        return directories.paths(session.volume, InodeNo(inode))
    except RazorError:
        return []


def _path(session: Session, inode: int) -> str:
    return next(map(printable_name, _paths(session, inode)), "")


_OPERATIONS = [one.name.lower() for one in Operation if one is not Operation.COMMIT]
_JOURNAL = Words("journal")
_JOURNAL.add_argument("-v", dest="verbose", action="store_true", help="every entry with its value before and after")
_JOURNAL.add_argument("--path", metavar="PATH", help="only what is about this file, or below this directory")
_JOURNAL.add_argument(
    "--operation",
    choices=_OPERATIONS,
    metavar="OPERATION",
    help=f"only what this operation did: {', '.join(_OPERATIONS)}",
)
_JOURNAL.add_argument("--transaction", type=count, metavar="NUMBER", help="only this transaction")
_JOURNAL.add_argument("--since", type=seconds, metavar="SECONDS", help="only what was committed then or later, since 1970")
_JOURNAL.add_argument("--until", type=seconds, metavar="SECONDS", help="only what was committed then or before")

COMMANDS = (
    Command(
        "journal",
        "show what the last checkpoint does not contain",
        _JOURNAL,
        show_journal,
        ("journal -v", "journal --path /home --operation unlink"),
    ),
)
