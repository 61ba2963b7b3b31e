"""feature: the feature bits of the superblock, shown, set and cleared.

A bit promises what may be found in the image, so it is cleared only when nothing is left of it, and nothing more is made.
Invariants: the bit changes by one write of a superblock slot, so it is set or not; at no moment is anything in the image that no
bit announces, wherever the work is cut off.
"""

import argparse
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from typing import Any

from razortools.debug.answers import Answer, Lines, Table
from razortools.debug.session import Command, Session, Words
from razortools.engine.create import feature_name
from razortools.engine.store import admin
from razortools.engine.store.store import Store
from razortools.engine.volume import Volume
from razortools.errors import ReadOnly, UsageError
from razortools.format.admin import EMPTY_HISTORY, NO_ENTRY, Action, entry
from razortools.format.data import CHECKED_TWICE, CUT_OUT, LATE, DataRecord
from razortools.format.items import owned_record
from razortools.format.journal import Operation
from razortools.format.keys import HIGHEST_KEY, KIND_AT, LOWEST_KEY, Kind, object_of, offset_of, table_range
from razortools.format.keys import Table as Part
from razortools.format.superblock import Compat, Incompat, ReadOnlyCompat, Superblock
from razortools.format.xattr import Xattr
from razortools.units import InodeNo, RecordNo

BATCH = 512  # records that are looked at together
_BITS = (("compat", Compat), ("read_only_compat", ReadOnlyCompat), ("incompat", Incompat))
_OWNING = (int(Kind.DATA_RECORD), int(Kind.XATTR))
_COMPRESSES = "this version compresses with it whatever the bit says, so the image would hold what nothing announces"
_STAYS = {
    "zstd": _COMPRESSES,
    "lz4": _COMPRESSES,
    "zlib": _COMPRESSES,
    "string_table": "names are not kept in any other way",
}
_NAMES: dict[str, Incompat | Compat] = {feature_name(feature): feature for feature in (*Incompat, *Compat)}


def feature(session: Session, options: argparse.Namespace) -> Answer:
    """feature: show all, or set or clear one."""
    if options.name is None:
        return _all_features(session.superblock())
    if options.state is None:
        raise UsageError(f"feature: say whether {options.name} is to be on or off")
    if not session.writable:
        raise ReadOnly("feature changes the image; start razorfs-debug with -w to allow that")
    wanted, is_on = _NAMES[options.name], options.state == "on"
    volume = session.for_writing()
    try:
        changed = _switch(volume, wanted, is_on=is_on)
    except BaseException:
        volume.abort()
        raise
    told = f"{options.name} is {options.state}" + ("" if changed is not None else " already")
    told += f"; {changed} records were written anew" if changed else ""
    return Lines([told], {"feature": options.name, "set": is_on, "changed": changed is not None, "records": changed or 0})


def _all_features(superblock: Superblock) -> Answer:
    rows, data = [], []
    for name, bits in _BITS:
        value = getattr(superblock, name)
        for bit in bits:
            rows.append((name, bit.name and bit.name.lower(), "set" if value & bit else "not set"))
            data.append({"group": name, "feature": (bit.name or "").lower(), "set": bool(value & bit)})
        unknown = value & ~sum(bits)
        if unknown:
            rows.append((name, f"{unknown:#x}", "set, unknown to this version"))
            data.append({"group": name, "feature": f"{unknown:#x}", "set": True})
    return Table(("group", "feature", "state"), rows, data)


def _switch(volume: Volume, wanted: Incompat | Compat, *, is_on: bool) -> int | None:
    """Set or clear a bit; return how many records were changed for it, None if it is so already. Raises UsageError."""
    store = volume.store
    group = "incompat" if isinstance(wanted, Incompat) else "compat"
    before = getattr(store.superblock, group)
    if bool(before & wanted) == is_on:
        return None
    name = feature_name(wanted)
    if not is_on and name in _STAYS:
        raise UsageError(f"feature: {name} cannot be switched off: {_STAYS[name]}")
    volume.checkpoint()
    changed = 0
    if wanted is Incompat.SECOND_CHECKSUM:
        store.checks_twice = is_on
        changed = 0 if is_on else _drop_second_checksums(volume)
    if wanted is Incompat.LATE_PAGES and not is_on:
        changed = _merge_late_pages(volume)
    if wanted is Incompat.PATCHES and not is_on and any(True for _ in store.items(*table_range(Part.PATCHES))):
        raise UsageError(
            "feature: there are patches over records that cannot be read; repair the image first: razorfsck --repair"
        )
    bits: dict[str, Any] = {group: int(before | wanted if is_on else before & ~wanted)}
    store.mark(volume.now_ns(), **bits, **_history(volume, replace(store.superblock, **bits)))
    return changed


def _history(volume: Volume, after: Superblock) -> dict[str, Any]:
    """Return what becomes of the admin history by the features that the superblock has *after* it: without its bit, nothing."""
    if not admin.keeps_history(after):
        return {"admin_history": EMPTY_HISTORY, "admin_last": NO_ENTRY, "admin_before": NO_ENTRY}
    return admin.noted(after, entry(Action.FEATURE, volume.now_ns(), detail=after.incompat | after.compat << 32))


def _drop_second_checksums(volume: Volume) -> int:
    """Write the items of all records without one; return how many had one. Cut off, some still have it, which is no harm."""
    store, count = volume.store, 0
    for key, value in _owning(store):
        made = _without(key, value)
        if made != value:
            with volume.operation(Operation.FLUSH_DATA, InodeNo(object_of(key))):
                store.put(key, made)
            count += 1
            if count % BATCH == 0:
                volume.commit()
    volume.checkpoint()
    return count


def _merge_late_pages(volume: Volume) -> int:
    """Store the records anew that have late pages; return how many. Raises CorruptImage if one cannot be read."""
    records, count = volume.records, 0
    for key, value in _owning(volume.store):
        record = owned_record(key, value)
        if record is None or not record.flags & LATE or record.flags & CUT_OUT:
            continue
        ino, number = InodeNo(object_of(key)), RecordNo(offset_of(key))
        data = records.contents(ino, volume.inodes.get(ino), number)
        with volume.operation(Operation.WRITE, ino, blocks=records.blocks_wanted(ino, number, len(data))):
            records.replace(ino, number, data)
        count += 1
        if records.dirty_bytes >= volume.limits.dirty_bytes // 2:
            volume.commit()
    volume.checkpoint()
    return count


def _owning(store: Store) -> Iterator[tuple[bytes, bytes]]:
    """Yield the items that may hold a record. They are gathered before they are handed out, for they are changed meanwhile."""
    low = LOWEST_KEY
    while True:
        batch = list(islice(store.items(low, HIGHEST_KEY), BATCH))
        yield from (item for item in batch if item[0][KIND_AT] in _OWNING and item[0][0] == Part.FILES)
        if len(batch) < BATCH:
            return
        low = batch[-1][0] + b"\0"


def _without(key: bytes, value: bytes) -> bytes:
    """Return an item without a second checksum."""
    record = owned_record(key, value)
    if record is None or not record.flags & CHECKED_TWICE:
        return value
    plain: DataRecord = record.checked_by(None)
    return plain.encode() if key[KIND_AT] == Kind.DATA_RECORD else Xattr.outside(Xattr.decode(value).name, plain).encode()


_WORDS = Words("feature")
_WORDS.add_argument(
    "name", nargs="?", choices=tuple(_NAMES), metavar="NAME", help=f"one of {', '.join(_NAMES)}; without it all are shown"
)
_WORDS.add_argument(
    "state", nargs="?", choices=("on", "off"), metavar="on|off", help="needs -w; what cannot be is refused with the reason"
)

COMMANDS = (
    Command("feature", "show the feature bits, or switch one on or off", _WORDS, feature,
            ("feature", "feature second_checksum on")),
)  # fmt: skip
