"""Keys, records and fields for people and for scripts, from the format's declarations. How people write keys, too."""

import uuid
from enum import IntFlag
from typing import Any

from razortools.debug.fields import told_fields
from razortools.debug.shown import show_time
from razortools.engine.store.admin import history_of
from razortools.errors import RazorError, UsageError
from razortools.format.admin import Action, AdminEntry, Outcome, entries
from razortools.format.compression import Algorithm
from razortools.format.data import DataRecord
from razortools.format.inode import FileType, InodeFlag, OrphanReason
from razortools.format.items import decode_item
from razortools.format.journal import EntryFlag, Operation
from razortools.format.keys import HIGHEST_KEY, KEY_BYTES, LOWEST_KEY, Key, Kind, Table
from razortools.format.record import Record
from razortools.format.superblock import Compat, Incompat, ReadOnlyCompat, State, Superblock
from razortools.format.xattr import XattrFlag
from razortools.printable import printable_name
from razortools.units import format_size

_SIZES = frozenset(("block_bytes", "node_bytes", "record_bytes"))
_BITS: dict[str, type[IntFlag]] = {
    "Superblock.compat": Compat,
    "Superblock.read_only_compat": ReadOnlyCompat,
    "Superblock.incompat": Incompat,
    "Inode.flags": InodeFlag,
    "JournalEntry.flags": EntryFlag,
    "Xattr.flags": XattrFlag,
}
_NUMBERS: dict[str, Any] = {
    "Superblock.state": State,
    "AdminEntry.action": Action,
    "AdminEntry.outcome": Outcome,
    "JournalEntry.operation": Operation,
    "DirectoryEntry.file_type": FileType,
    "Orphan.reason": OrphanReason,
    "Key.table": Table,
    "Key.kind": Kind,
}
_HEXADECIMAL = frozenset(("crc32c", "tag"))


def plain(value: object) -> Any:
    """Return a field's value for JSON: bytes in hexadecimal, embedded records as objects."""
    if isinstance(value, Record):
        return fields_of(value)
    return value.hex() if isinstance(value, bytes) else value


def fields_of(record: Record) -> dict[str, Any]:
    """Return the fields of a record for JSON."""
    told = {field.name: plain(getattr(record, field.name)) for field in told_fields(type(record))}
    if isinstance(record, Superblock):
        told["uuid"] = str(uuid.UUID(bytes=record.uuid))
        told["admin_history"] = [fields_of(one) for one in history_of(record)]
    return told


def shown_field(structure: type[Record], name: str, value: Any) -> str:
    """Return the value of a field for people."""
    whole = f"{structure.__name__}.{name}"
    if isinstance(value, AdminEntry):
        return f"{show_time(value.at_ns)} {Action(value.action).name.lower()}" if value.action in list(Action) else "none"
    if isinstance(value, Record):
        parts = (f"{part}={shown_field(type(value), part, getattr(value, part))}" for part in fields_of(value))
        return " ".join(parts)
    if isinstance(value, bytes):
        return _shown_bytes(structure, name, value)
    if name.endswith("_ns"):
        return show_time(value) if value else "never"
    if name in _SIZES:
        return f"{value} ({format_size(value)})"
    if whole in _BITS:
        return _shown_bits(whole, value)
    if name == "mode":
        return f"{value:#o}"
    if name in _HEXADECIMAL:
        return f"{value:#010x}"
    if name in ("compression", "algorithm"):
        return f"{value} ({Algorithm(value).name.lower()})" if value in list(Algorithm) else str(value)
    numbers = _NUMBERS.get(whole)
    return f"{value} ({numbers(value).name.lower()})" if numbers is not None and value in list(numbers) else str(value)


def _shown_bits(whole: str, value: int) -> str:
    named = [bit.name.lower() for bit in _BITS[whole] if bit & value and bit.name]
    unknown = value & ~sum(_BITS[whole])
    return " ".join([*named, *([f"unknown {unknown:#x}"] if unknown else [])]) or "none"


def _shown_bytes(structure: type[Record], name: str, value: bytes) -> str:
    if name == "uuid":
        return str(uuid.UUID(bytes=value))
    if name == "admin_history":
        return f"{len(list(entries(value)))} entries; 'admin' shows them"
    if name == "label":
        return printable_name(value.rstrip(b"\0")) or "(none)"
    if len(value) == KEY_BYTES and name in ("low", "high", "key"):
        return show_key(value)
    if name == "text":
        return printable_name(value)
    return value.hex() if len(value) <= 32 else f"{value[:32].hex()}.. ({len(value)} bytes)"


def show_key(key: bytes) -> str:
    """Return a key as people write it: ``files 12 data_record 3``."""
    if key in (LOWEST_KEY, HIGHEST_KEY):
        return "(lowest)" if key == LOWEST_KEY else "(highest)"
    parts = Key.decode(key)
    table = Table(parts.table).name.lower() if parts.table in list(Table) else f"{parts.table}"
    kind = Kind(parts.kind).name.lower() if parts.kind in list(Kind) else f"{parts.kind:#04x}"
    return f"{table} {parts.object} {kind} {parts.offset}"


def key_range(words: list[str]) -> tuple[bytes, bytes]:
    """Return (lowest, highest) key that *words* mean: TABLE [OBJECT [KIND [OFFSET]]], or 36 hexadecimal digits.

    What is left out stands for all. Raises UsageError.
    """
    if len(words) == 1 and len(words[0]) == 2 * KEY_BYTES:
        try:
            key = bytes.fromhex(words[0])
        except ValueError:
            raise UsageError(f"{words[0]} is not a key in hexadecimal") from None
        return key, key
    tops = (0xFF, (1 << 64) - 1, 0xFF, (1 << 64) - 1)
    names: tuple[Any, ...] = (Table, None, Kind, None)
    if not 1 <= len(words) <= len(tops):
        raise UsageError("a key is TABLE [OBJECT [KIND [OFFSET]]], such as: files 12 data_record 3")
    given = [_number(word, enum, top) for word, enum, top in zip(words, names, tops, strict=False)]
    low = Key(*given, *(0 for _ in tops[len(given) :])).encode()
    return low, Key(*given, *tops[len(given) :]).encode()


def _number(word: str, names: Any, top: int) -> int:
    """Return the number that *word* means, by name or as a number."""
    if names is not None and word.upper() in names.__members__:
        return int(names[word.upper()])
    try:
        value = int(word, 0)
    except ValueError:
        known = f"; known are {', '.join(one.lower() for one in names.__members__)}" if names is not None else ""
        raise UsageError(f"{word} is not a number{known}") from None
    if not 0 <= value <= top:
        raise UsageError(f"{word} does not fit into a key")
    return value


def item_data(key: bytes, value: bytes | None) -> Any:
    """Return an item's value for JSON: its record's fields, or the bytes in hexadecimal if they do not decode."""
    if value is None:
        return None
    try:
        item = decode_item(key, value)
    except RazorError:
        return {"bytes": value.hex()}
    return {"record": type(item).__name__} | fields_of(item)


def shown_item(key: bytes, value: bytes | None) -> str:
    """Return an item's value for people, on one line."""
    if value is None:
        return "(absent)"
    try:
        item = decode_item(key, value)
    except RazorError:
        return f"bytes={value.hex()}"
    return " ".join(f"{name}={part}" for name, part in shown_fields(item))


def shown_fields(record: Record) -> list[tuple[str, str]]:
    """Return (name, value for people) of each field of a record."""
    return [
        (field.name, shown_field(type(record), field.name, getattr(record, field.name))) for field in told_fields(type(record))
    ]


def changed_fields(key: bytes, before: bytes | None, after: bytes | None) -> list[tuple[str, str, str]]:
    """Return (field, before, after) of what differs between two values of an item; nothing unless both are there and decode."""
    if before is None or after is None:
        return []
    try:
        old, new = dict(shown_fields(decode_item(key, before))), dict(shown_fields(decode_item(key, after)))
    except RazorError:
        return []
    return [(name, old[name], new[name]) for name in new if old.get(name) != new[name]]


def shown_runs(record: DataRecord, block_bytes: int) -> str:
    """Return where a data record lies: ``100-131, 200``."""
    try:
        runs = record.runs(block_bytes)
    except RazorError as broken:
        return str(broken)
    return ", ".join(f"{first}-{first + count - 1}" if count > 1 else f"{first}" for first, count in runs)


def algorithm_name(number: int) -> str:
    """Return how a record is compressed."""
    return Algorithm(number).name.lower() if number in list(Algorithm) else f"algorithm {number}"
