"""What need not be found: fields for which any sound value means something, and the proof that nothing else has changed.

A change that razorfsck lets pass is proven harmless if the field is declared free here, with a reason, and the image shows
exactly what it showed before but for the parts that the field stands for; and if the engine goes on working with it: after some
operations and a clean end the check still finds nothing.
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from razortools.check.problems import ADMIN_HISTORY, TORN_TAIL
from razortools.check.runner import Options, check_quietly
from razortools.engine import files, namespace, xattrs
from razortools.engine.store.device import Device
from razortools.engine.volume import Volume, open_volume
from razortools.errors import CorruptImage, OutOfSpace, PosixError, RazorError
from razortools.format.admin import AdminEntry, AdminSector
from razortools.format.inode import ROOT_INODE
from tests.check.samples import Clock, Copy
from tools.fuzzing.view import View, view


@dataclass(frozen=True, slots=True)
class Freedom:
    """Why a field may hold any sound value, and which parts of the view of one file may differ by it."""

    reason: str
    parts: frozenset[str] = frozenset()
    note: str = ""  # code of the note that must tell of it; then nothing is said about writing


_OWN = "an attribute that its owner may set; no other place tells it"
_PAST = "tells of the past; nothing depends on it"
_POLICY = "concerns files and nodes that are made from now on"
_LIMIT = "only a bound: what it must not pass is looked at"
_CONTENTS = "the contents themselves: what seals them is the checksum of the node"


def _free(reason: str, *parts: str) -> Freedom:
    return Freedom(reason, frozenset(parts))


FREE: dict[str, Freedom] = {
    "Inode.mode": _free(_OWN, "mode"),
    "Inode.uid": _free(_OWN, "uid"),
    "Inode.gid": _free(_OWN, "gid"),
    "Inode.size": _free("where a file ends within its last record, or behind it in a hole, no other place tells", "size", "data"),
    "Inode.atime_ns": _free(_OWN, "atime_ns"),
    "Inode.mtime_ns": _free(_OWN, "mtime_ns"),
    "Inode.ctime_ns": _free(_PAST, "ctime_ns"),
    "Inode.btime_ns": _free(_PAST, "btime_ns"),
    "Inode.rdev": _free(_OWN, "rdev"),
    "Inode.generation": _free(_PAST, "generation"),
    "Inode.next_link_no": _free(_LIMIT),
    "Inode.flags": _free("that there may be late pages is asked only where nodes are lost; that there are some must be told"),
    "Inode.record_log2": _free(_POLICY, "record_log2"),
    "Inode.compression": _free(_POLICY, "compression"),
    "Inode.compression_level": _free(_POLICY, "compression_level"),
    "InlineData.stored": _free(_CONTENTS, "data"),
    "Patch.data": _free(_CONTENTS, "data"),
    "Xattr.body": _free(_CONTENTS, "xattrs"),
    "DataRecord.birth": _free(_PAST),
    "DataRecord.stored_bytes": _free("zeros that fill the last block may count as stored: the checksum covers them"),
    "Counters.next_inode": _free(_LIMIT),
    "Counters.next_name_id": _free(_LIMIT),
    "Key.offset": _free("a name is looked for in the whole window behind its hash"),
    "Superblock.compat": _free("unknown features that may be ignored are ignored"),
    "Superblock.read_only_compat": Freedom("unknown features that allow reading: it is read, and a note says so", note="E0115"),
    "Superblock.label": _free(_OWN),
    "Superblock.record_bytes": _free(_POLICY),
    "Superblock.metadata_copies": _free(_POLICY),
    "Superblock.compression": _free(_POLICY),
    "Superblock.compression_level": _free(_POLICY),
    "Superblock.state": _free("an image that says that it is in use is opened like any other"),
    "Superblock.journal_tail": _free("of an empty journal: any place in the ring will do"),
    "Superblock.journal_sequence": _free(_LIMIT),
    "Superblock.transaction": _free(_LIMIT),
    "Superblock.mounted_at_ns": _free(_PAST),
    "Superblock.written_at_ns": _free(_PAST),
    "Superblock.checked_at_ns": _free(_PAST),
    "Superblock.mount_count": _free(_PAST),
    "Superblock.admin_last": _free(_PAST),
    "Superblock.admin_before": _free(_PAST),
    "Superblock.admin_history": _free(_PAST),
    **{f"AdminEntry.{field.name}": _free(_PAST) for field in AdminEntry.FIELDS},
    **{f"AdminSector.{field.name}": Freedom(_PAST, note=ADMIN_HISTORY.code) for field in AdminSector.FIELDS},
    "JournalEntry.inode": _free(_PAST),
    "JournalEntry.operation": _free(_PAST),
    "JournalCommit.committed_at_ns": _free(_PAST),
    "JournalCommit.flushed_sequence": _free(_LIMIT),
}  # structure and field, as declared: whatever role the structure plays

ROLES: dict[str, Freedom] = {
    "older superblock": _free("nothing is read through the older superblock while a newer one verifies"),
    "backup": _free("an older backup is what a crash may leave; nothing is read through it while a slot verifies"),
    "replaced node": _free("a node of the last checkpoint that the replay replaces"),
    "value before": _free("of a value before the change only the blocks count that it gives back, and the space map tells these"),
    "last transaction": _free("a crash may tear the last transaction: the image is then as it was before it"),
}  # role of a structure: whatever field


def differences(before: View, after: View) -> dict[int, set[str]]:
    """Return which parts differ, by inode number; "path" where a path leads elsewhere or is there in one view only."""
    found: dict[int, set[str]] = {}
    for path in before.keys() | after.keys():
        one, other = before.get(path), after.get(path)
        if one is None or other is None or one.ino != other.ino:
            for seen in filter(None, (one, other)):
                found.setdefault(seen.ino, set()).add("path")
        elif one.differences(other):
            found.setdefault(one.ino, set()).update(one.differences(other))
    return found


def why_not_harmless(field: str, role: str, allowed: Sequence[View], device: Device, notes: Sequence[str] = ()) -> str:
    """Return why a change of *field* that was let pass is not proven harmless, or an empty string.

    *allowed*: what may be seen; more than one only where a crash may have left more than one state.
    """
    freedom = FREE.get(field) or ROLES.get(role)
    if freedom is None:
        return "the field is not declared free"
    try:
        after = view(device)
    except (RazorError, OSError) as refused:
        return f"the image cannot be opened: {refused}"
    before = next((view for view in allowed if view == after), allowed[0])
    found = differences(before, after)
    if len(found) > 1 or any(parts - freedom.parts for parts in found.values()):
        words = "; ".join(f"inode {ino}: {', '.join(sorted(parts))}" for ino, parts in sorted(found.items())[:5])
        return f"what is seen has changed: {words}"
    unreadable = [path for path, seen in after.items() if not seen.is_readable and before[path].is_readable]
    if unreadable:
        return f"{unreadable[0]!r} cannot be read any more"
    if freedom.note and role != "older superblock":
        return "" if freedom.note in notes else f"the note {freedom.note} is missing"
    if before is not allowed[0] and TORN_TAIL.code not in notes:
        return "the last transaction is dropped without a word"
    return why_not_usable(device)


# What an engine in order may answer: no, it is full, or that a repair has cut out what is asked for.
ANSWERS = (PosixError, OutOfSpace, CorruptImage)


def why_not_usable(device: Device) -> str:
    """Return why the engine cannot go on with a copy of the image and end cleanly, or an empty string."""
    copy = Copy(device)
    try:
        with open_volume(copy, clock=Clock()) as volume:
            _work(volume)
    except Exception as failed:
        return f"the engine stops: {type(failed).__name__}: {failed}"
    report = check_quietly(copy, Options(threads=1))
    complaints = [f"{finding.code} {finding.message}" for finding in report.findings if finding.severity]
    return f"after some operations the check finds: {complaints[0]}" if complaints else ""


def _work(volume: Volume) -> None:
    """Change every kind of thing, as far as the image lets us."""
    with suppress(*ANSWERS):
        directory = namespace.mkdir(volume, ROOT_INODE, b"probe", 0o755, 0, 0)
        ino = namespace.create(volume, directory, b"probe file", 0o644, 0, 0)
        files.write(volume, ino, 0, b"probe " * 3000)
        namespace.link(volume, ino, ROOT_INODE, b"probe link")
        xattrs.set(volume, ino, b"user.probe", b"value")
    for name in (b"small", b"docs", b"link", b"docs/one", b"docs/many", b"docs/deep/disk"):
        with suppress(*ANSWERS):
            ino = namespace.resolve(volume, b"/" + name)
            namespace.link(volume, ino, ROOT_INODE, b"probe of " + name.replace(b"/", b" "))
        with suppress(*ANSWERS):
            ino = namespace.resolve(volume, b"/" + name)
            files.write(volume, ino, volume.inodes.get(ino).size, b"more")
            xattrs.set(volume, ino, b"user.probe", b"value")
    volume.commit()
    for name in (b"small", b"docs/one"):
        with suppress(*ANSWERS):
            parent, _, last = (b"/" + name).rpartition(b"/")
            namespace.unlink(volume, namespace.resolve(volume, parent or b"/"), last)
