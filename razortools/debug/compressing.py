"""compression: what compression saves, by the names' suffixes, and why some data are stored as they are.

Without --why nothing but items of the tree is read. With it, every record that is stored as it is is read and judged anew, as if
it were written now. Invariant: a file with several names counts once; what cannot be read is told and does not end the walk.
"""

import argparse
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from razortools.debug.answers import Answer, Lines, Several, Table
from razortools.debug.placement import pieces_of
from razortools.debug.session import Command, Session, Words, reason_of
from razortools.debug.verifying import read_stored
from razortools.debug.walking import walk
from razortools.engine import adaptive
from razortools.engine.adaptive import Verdict
from razortools.engine.flush_plan import policy_of
from razortools.errors import RazorError
from razortools.format.compression import Algorithm
from razortools.format.data import DataRecord
from razortools.format.inode import Inode
from razortools.printable import printable_name
from razortools.units import InodeNo, format_size

ROWS_MAX = 30  # of the table; JSON holds all
_KEPT = frozenset((Verdict.NOT_ASKED, Verdict.KNOWN_FORMAT, Verdict.PROBED, Verdict.NO_GAIN))
_WOULD_SHRINK = "it was stored so before, and would shrink now: see recompress"


@dataclass(slots=True)
class _Type:
    """The files whose names end alike."""

    files: int = 0
    raw_bytes: int = 0
    stored_bytes: int = 0  # of their records as such; blocks are rounded up
    as_is_bytes: int = 0  # of records that are not compressed
    inline_bytes: int = 0  # of those that stand in the tree


@dataclass(slots=True)
class _Reason:
    """Records that are stored as they are for one reason."""

    records: int = 0
    raw_bytes: int = 0
    example: bytes = b""


def show_compression(session: Session, options: argparse.Namespace) -> Answer:
    """compression: what it saves by type of file; with --why, why some data are stored as they are."""
    types: dict[str, _Type] = {}
    reasons: dict[str, _Reason] = {}
    faults: list[dict[str, Any]] = []
    for path, ino, inode in _files(session, options.path, faults):
        suffix = os.path.splitext(os.fsdecode(os.path.basename(path)))[1].lower()
        of_type = types.setdefault(suffix, _Type())
        of_type.files += 1
        try:
            for record_no, record in _pieces(session, ino, inode, of_type):
                if options.why:
                    reason = reasons.setdefault(_reason(session, inode, record_no, record), _Reason(example=path))
                    reason.records += 1
                    reason.raw_bytes += record.raw_bytes
        except RazorError as broken:
            faults.append({"path": path, "inode": ino, "reason": reason_of(broken)})
    return _told(types, reasons, faults, why=options.why)


def _files(session: Session, path: str, faults: list[dict[str, Any]]) -> Iterator[tuple[bytes, InodeNo, Inode]]:
    """Yield (path, number, inode) of each regular file once; what cannot be looked at goes to *faults*."""
    seen: set[InodeNo] = set()
    for found in walk(session, path):
        if found.fault:
            faults.append({"path": found.path, "inode": found.ino, "reason": found.fault})
        if found.inode is None or not found.inode.is_regular or found.ino in seen:
            continue
        if found.inode.link_count > 1:
            seen.add(found.ino)
        yield found.path, found.ino, found.inode


def _pieces(session: Session, ino: InodeNo, inode: Inode, of_type: _Type) -> Iterator[tuple[int, DataRecord]]:
    """Count the contents of a file; yield (number, record) of each record that is stored as it is."""
    for piece in pieces_of(session, ino):
        if piece.kind not in ("record", "inline"):
            continue  # large attributes are no contents; patches lie over records
        of_type.raw_bytes += piece.raw_bytes
        of_type.stored_bytes += piece.stored_bytes
        if piece.record is None:
            of_type.inline_bytes += piece.raw_bytes
        elif piece.record.algorithm == Algorithm.NONE:
            of_type.as_is_bytes += piece.raw_bytes
            yield piece.first // inode.record_bytes, piece.record


def _reason(session: Session, inode: Inode, record_no: int, record: DataRecord) -> str:
    """Return why a record would be stored as it is if it were written now. Raises CorruptImage if it cannot be read."""
    policy = policy_of(inode)
    if policy.algorithm is Algorithm.NONE:
        return _words(Verdict.NOT_ASKED)
    raw = read_stored(session, record)
    block_bytes = session.volume.block_bytes
    verdict = adaptive.pack(raw, policy, is_first=record_no == 0, inline_bytes_max=0, block_bytes=block_bytes).verdict
    return _words(verdict) if verdict in _KEPT else _WOULD_SHRINK


def _words(verdict: Verdict) -> str:
    return verdict.value.removeprefix("stored: ")


def _told(types: dict[str, _Type], reasons: dict[str, _Reason], faults: list[dict[str, Any]], *, why: bool) -> Answer:
    by_size = sorted(types.items(), key=lambda item: -item[1].raw_bytes)
    rows = [
        (
            suffix or "(none)", one.files, format_size(one.raw_bytes), format_size(one.stored_bytes),
            f"{one.raw_bytes / one.stored_bytes:.2f}" if one.stored_bytes else "", format_size(one.as_is_bytes),
        )
        for suffix, one in by_size[:ROWS_MAX]
    ]  # fmt: skip
    parts: list[Answer] = [Table(("suffix", "files", "bytes", "stored", "ratio", "as it is"), rows, None, right=(1, 2, 3, 4, 5))]
    parts += [Lines([f"and {len(by_size) - ROWS_MAX} more"])] if len(by_size) > ROWS_MAX else []
    data: dict[str, Any] = {"types": [{"suffix": suffix, **_fields(one)} for suffix, one in by_size], "unreadable": faults}
    if why:
        most = sorted(reasons.items(), key=lambda item: -item[1].raw_bytes)
        shown = [(reason, one.records, format_size(one.raw_bytes), printable_name(one.example)) for reason, one in most]
        parts += [Lines([""]), Table(("why as it is", "records", "bytes", "such as"), shown, None, right=(1, 2))]
        data["reasons"] = [{"reason": reason, **_fields(one)} for reason, one in most]
    parts += [Lines([f"UNREADABLE {printable_name(fault['path'])}: {fault['reason']}"]) for fault in faults]
    return Several(parts, data)


def _fields(one: _Type | _Reason) -> dict[str, Any]:
    return {name: getattr(one, name) for name in type(one).__slots__}


_COMPRESSION = Words("compression")
_COMPRESSION.add_argument("--why", action="store_true", help="and why some data are not compressed, for which they are read")
_COMPRESSION.add_argument("path", nargs="?", default="/", metavar="PATH", help="only what lies here; otherwise everything")

COMMANDS = (
    Command("compression", "show what compression saves by type of file, and why some data are stored as they are", _COMPRESSION,
            show_compression, ("compression --why /home",)),
)  # fmt: skip
