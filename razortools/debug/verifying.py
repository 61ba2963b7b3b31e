"""verify: whether every checksum is right. What the structures mean is not judged: razorfsck does that."""

import argparse
import os
from collections.abc import Iterator
from typing import Any

import crc32c

from razortools.debug.answers import Answer, Lines
from razortools.debug.ownership import all_items, paths_of
from razortools.debug.rawtree import RawTree
from razortools.debug.session import Command, Session, Words, reason_of
from razortools.debug.structures import copy_name
from razortools.debug.transactions import scan_journal
from razortools.debug.values import show_key
from razortools.debug.walking import walk
from razortools.engine.store.superblocks import find_copies
from razortools.errors import CorruptImage, RazorError
from razortools.format.data import CUT_OUT, DataRecord
from razortools.format.items import owned_record
from razortools.format.keys import Kind, kind_range, object_of
from razortools.format.unpacking import unpack_record


def verify(session: Session, options: argparse.Namespace) -> Answer:
    """verify: superblocks, journal, both copies of each node and all data; with a path, the data of what lies there."""
    faults: list[dict[str, Any]] = []
    counts = dict.fromkeys(("superblocks", "nodes", "records"), 0)
    if options.path is None:
        _verify_frame(session, faults, counts)
        items = all_items(session)
    else:
        items = _items_below(session, options.path, faults)
    for key, value in items:
        try:
            record = owned_record(key, value)
            if record is not None:
                counts["records"] += 1
                read_stored(session, record)
        except RazorError as broken:
            owner = [os.fsdecode(path) for path in paths_of(session, object_of(key))]
            faults.append({"where": show_key(key), "paths": owner, "reason": reason_of(broken)})
    lines = [f"{name}: {count} checked" for name, count in counts.items() if count or options.path is None]
    lines += [f"DAMAGED {one['where']} {' '.join(one['paths'])}: {one['reason']}" for one in faults]
    lines.append("every checksum is right" if not faults else f"{len(faults)} are damaged; razorfsck tells what can be done")
    return Lines(lines, {"checked": counts, "damaged": faults})


def read_stored(session: Session, record: DataRecord) -> bytes:
    """Return what *record* holds, decompressed. Raises CorruptImage if it does not verify, DeviceFailed."""
    if record.flags & CUT_OUT:
        raise CorruptImage("its bytes were given up by an earlier repair")
    size = session.superblock().block_bytes
    raw = b"".join(session.device.read(first * size, count * size) for first, count in record.runs(size))
    if crc32c.crc32c(raw) != record.crc32c:
        raise CorruptImage(
            f"data at block {record.runs(size)[0][0]}: checksum {crc32c.crc32c(raw):#010x}, expected {record.crc32c:#010x}"
        )
    return unpack_record(record, raw)


def _verify_frame(session: Session, faults: list[dict[str, Any]], counts: dict[str, int]) -> None:
    """Look at what belongs to no file."""
    for place, copy in enumerate(find_copies(session.device)):
        counts["superblocks"] += 1
        if copy.superblock is None:
            faults.append({"where": f"superblock, {copy_name(place)}", "paths": [], "reason": copy.reason})
    damage = scan_journal(session).damage
    if damage:
        faults.append({"where": "journal", "paths": [], "reason": damage})
    for node in RawTree(session.device, session.superblock()).walk():
        for block, fault in zip(node.copies, node.faults, strict=True):
            counts["nodes"] += 1
            if fault:
                faults.append({"where": f"node at block {block}, level {node.level}", "paths": [], "reason": fault})


def _items_below(session: Session, path: str, faults: list[dict[str, Any]]) -> Iterator[tuple[bytes, bytes]]:
    """Yield the items that own blocks of what lies at *path*; what cannot be read goes to *faults*."""
    seen: set[int] = set()
    for found in walk(session, path):
        if found.fault:
            faults.append({"where": f"inode {found.ino}", "paths": [os.fsdecode(found.path)], "reason": found.fault})
        if found.ino in seen:
            continue
        if found.inode is not None and found.inode.link_count > 1:
            seen.add(found.ino)
        for kind in (Kind.XATTR, Kind.DATA_RECORD):
            yield from session.volume.store.items(*kind_range(found.ino, kind))


_VERIFY = Words("verify")
_VERIFY.add_argument("path", nargs="?", metavar="PATH", help="only the data of what lies here")

COMMANDS = (Command("verify", "tell whether every checksum is right", _VERIFY, verify, ("verify", "verify /home")),)
