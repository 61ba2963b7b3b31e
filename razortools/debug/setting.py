"""set, changes, commit, discard: fields changed by name, below the filesystem's rules, for rescue and for drills."""

import argparse
import re
import struct
import uuid
from dataclasses import replace
from enum import IntEnum, IntFlag
from typing import Any

from razortools.debug.answers import Answer, Lines, Table
from razortools.debug.fields import STRUCTURES, structure_name, told_fields
from razortools.debug.session import Command, Session, Words
from razortools.debug.structures import copy_number
from razortools.debug.surgery import Change, edit_item, edit_node, edit_superblocks
from razortools.debug.values import key_range, show_key, shown_field
from razortools.errors import UsageError
from razortools.format.data import DataRecord
from razortools.format.inode import FileType, Inode
from razortools.format.items import ITEMS
from razortools.format.keys import COUNTERS_KEY, KIND_AT, inode_key
from razortools.format.node import NODE_HEADER_BYTES, NodeHeader
from razortools.format.record import Record
from razortools.format.superblock import State, Superblock
from razortools.format.volume import Counters

_NAMES: dict[str, type[IntEnum] | type[IntFlag]] = {"Superblock.state": State, "DirectoryEntry.file_type": FileType}


def set_field(session: Session, options: argparse.Namespace) -> Answer:
    """set: give a field another value, with every checksum above it right; nothing is written before commit."""
    structure, path = _field(options.field)
    surgery = session.begin_surgery()
    seen: list[tuple[str, str]] = []

    def change(record: Record) -> Record:
        changed = _with_value(record, path, options.value)
        before, after = (shown_field(type(one), path[0], getattr(one, path[0])) for one in (record, changed))
        seen.append((before, after))
        return changed

    try:
        where = _apply(session, structure, options.where, change)
    except BaseException as refused:
        if not surgery.changes:
            session.discard_surgery()
        if isinstance(refused, struct.error):
            raise UsageError(f"set: {options.value} does not fit into {options.field}") from None
        raise
    surgery.changes.append(Change(f"{options.field} of {where}", *seen[0]))
    session.reopen()
    last = surgery.changes[-1]
    return Lines([f"{last.what}: {last.before} -> {last.after} (not written yet: 'commit' or 'discard')"], last)


def _field(text: str) -> tuple[type[Record], list[str]]:
    """Return (structure, names of the field and of those in it). Raises UsageError if there is no such field."""
    name, *path = text.split(".")
    structure = STRUCTURES.get(name)
    if structure is None or not path:
        raise UsageError(f"set: {text} is no field; write STRUCTURE.FIELD, such as inode.uid; known are {', '.join(STRUCTURES)}")
    inner: Any = structure
    for part in path:
        fields = {field.name: field for field in told_fields(inner)}
        if part not in fields:
            raise UsageError(f"set: {structure_name(inner)} has no field {part}; it has {', '.join(fields)}")
        inner = getattr(fields[part].subcon, "record_class", None) or inner
    return structure, path


def _with_value(record: Record, path: list[str], text: str) -> Record:
    """Return *record* with the field at *path* set to what *text* means."""
    name, *rest = path
    old = getattr(record, name)
    new = _with_value(old, rest, text) if rest else _value(type(record), name, old, text)
    return replace(record, **{name: new})  # type: ignore[type-var]


def _value(structure: type[Record], name: str, old: object, text: str) -> object:
    """Return the value of a field that *text* means: a number (0x1f, 0644), a name, text, or bytes as 0x and digits."""
    names = _NAMES.get(f"{structure.__name__}.{name}")
    if isinstance(old, bytes):
        return _bytes_value(name, old, text)
    if isinstance(old, Record):
        raise UsageError(f"set: {name} is a structure; name a field in it, such as {name}.{told_fields(type(old))[0].name}")
    if names is not None and text.upper() in names.__members__:
        return int(names[text.upper()])
    try:
        return int(text, 8) if re.fullmatch("0[0-7]+", text) else int(text, 0)
    except ValueError:
        raise UsageError(f"set: {text} is not a number; write it as 12, 0x1f or 0644") from None


def _bytes_value(name: str, old: bytes, text: str) -> bytes:
    if name == "uuid":
        try:
            return uuid.UUID(text).bytes
        except ValueError:
            raise UsageError(f"set: {text} is not a UUID") from None
    if text.startswith("0x"):
        try:
            value = bytes.fromhex(text[2:])
        except ValueError:
            raise UsageError(f"set: {text} is not hexadecimal; write 0x and two digits for each byte") from None
    else:
        value = text.encode("utf-8", "surrogateescape")
    if name == "label":
        value = value.ljust(len(old), b"\0")
    if len(value) != len(old):
        raise UsageError(f"set: {name} has {len(old)} bytes, not {len(value)}")
    return value


def _apply(session: Session, structure: type[Record], where: list[str], change: Any) -> str:
    """Change the structure that *where* names; return how people call it."""
    if structure is Superblock:
        number = copy_number(" ".join(where)) if where else None
        edit_superblocks(session.device, change, number)
        return " ".join(where) or "every newest superblock"
    if structure is NodeHeader:
        if len(where) != 1 or not where[0].isdecimal():
            raise UsageError("set: name the block of the node behind the value: set node_header.generation 7 1234")
        edit_node(session.device, int(where[0]), lambda raw: _edit_header(raw, change))
        return f"the node in block {where[0]}"
    if structure not in ITEMS.values():
        raise UsageError(f"set: {structure_name(structure)} cannot be changed; superblock, node_header and what 'item' shows can")
    key = _key(session, structure, where)
    edit_item(session.device, key, lambda value: change(structure.decode(value)).encode())
    return show_key(key)


def _key(session: Session, structure: type[Record], where: list[str]) -> bytes:
    """Return the key of the item that *where* names: a path or <NUMBER> for an inode, otherwise a whole key."""
    if structure is Counters and not where:
        return COUNTERS_KEY
    if structure is Inode and len(where) == 1:
        return inode_key(session.find(where[0]))
    low, high = key_range(where) if where else (b"", b"\xff")
    example = "files 12 data_record 3" if structure is DataRecord else "the key that 'item' shows"
    if low != high:
        raise UsageError(f"set: name the item behind the value, by its whole key: {example}; an inode also by its path")
    if ITEMS.get(low[KIND_AT]) is not structure:
        raise UsageError(f"set: {show_key(low)} is no {structure_name(structure)}")
    return low


def _edit_header(raw: bytearray, change: Any) -> None:
    skip = NodeHeader.skipped_bytes()
    header = NodeHeader(*NodeHeader.STRUCT.unpack_from(raw, skip))
    raw[:NODE_HEADER_BYTES] = change(header).encode()


def show_changes(session: Session, options: argparse.Namespace) -> Answer:
    """changes: what is staged and not written yet."""
    found = session.surgery.changes if session.surgery is not None else []
    if not found:
        return Lines(["nothing is staged"], [])
    return Table(("field", "before", "after"), [(one.what, one.before, one.after) for one in found], found)


def commit(session: Session, options: argparse.Namespace) -> Answer:
    """commit: write what is staged to the image."""
    count = len(session.surgery.changes) if session.surgery is not None else 0
    written, undo_file = session.commit_surgery(options.undo_file)
    lines = [f"{count} changes written, {written} bytes; razorfsck tells what it thinks of them"]
    lines += [f"razorfsck --undo {session.device.name} takes them back, as long as {undo_file} is kept"] if undo_file else []
    return Lines(lines, {"changes": count, "bytes": written, "undo_file": undo_file or None})


def discard(session: Session, options: argparse.Namespace) -> Answer:
    """discard: drop what is staged."""
    count = len(session.surgery.changes) if session.surgery is not None else 0
    session.discard_surgery()
    return Lines([f"{count} changes dropped"], {"changes": count})


_SET = Words("set")
_SET.add_argument("field", metavar="STRUCT.FIELD", help="by the names that item, super and block show")
_SET.add_argument("value", metavar="VALUE", help="12, 0x1f, 0644, text, or 0x00ff for bytes")
_SET.add_argument(
    "where", nargs="*", metavar="WHERE", help="a path or a whole key; a copy of the superblock; the block of a node"
)
_CHANGES = Words("changes")
_COMMIT = Words("commit")
_COMMIT.add_argument(
    "--undo-file", dest="undo_file", metavar="HOST_PATH", help="instead of IMAGE.undo, to take it back with razorfsck --undo"
)
_DISCARD = Words("discard")

COMMANDS = (
    Command("set", "change a field by name, with every checksum above it made right; staged until commit", _SET, set_field,
            ("set inode.uid 1000 /home/me", "set superblock.error_count 0", "set data_record.birth 5 files 12 data_record 3")),
    Command("changes", "show what is staged", _CHANGES, show_changes, ("changes",)),
    Command("commit", "write what is staged, all or nothing", _COMMIT, commit, ("commit",)),
    Command("discard", "drop what is staged", _DISCARD, discard, ("discard",)),
)  # fmt: skip
