"""defrag and recompress: the data of files stored anew, in one piece where there is room, or compressed in another way.

Each record is read, verified, and stored again by the engine: a power cut leaves the old or the new one. Contents and their times
stay; what is a hole stays one. A file gets its new compression when all of it is stored so: cut off before, or without room, it
has the one that it had.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass

from razortools.debug.answers import Answer, Lines
from razortools.debug.listing import run_count
from razortools.debug.session import Command, Session, Words
from razortools.debug.walking import walk
from razortools.engine import xattrs
from razortools.engine.flush_plan import policy_of
from razortools.engine.recompress import store_anew
from razortools.format.admin import Action
from razortools.format.compression import Policy, parse_policy
from razortools.format.keys import Kind, kind_range, offset_of
from razortools.units import MIB, InodeNo, RecordNo, format_size, plural

COMMIT_BYTES = 16 * MIB  # of data between commits: it bounds the memory, and what a failure makes undone
BATCH_BYTES = 8 * MIB  # compressed in one go


@dataclass(slots=True)
class Rewritten:
    """What was stored anew."""

    files: int = 0
    data_bytes: int = 0
    blocks_before: int = 0
    blocks_after: int = 0
    pieces_before: int = 0
    pieces_after: int = 0


def defragment(session: Session, options: argparse.Namespace) -> Answer:
    """defrag: store the files anew that lie in several pieces."""

    def wanted(ino: InodeNo) -> bool:
        return run_count(session, ino) > 1

    return _told(_rewrite(session, options.paths, wanted, None, Action.DEFRAG))


def recompress(session: Session, options: argparse.Namespace) -> Answer:
    """recompress: store files anew with another compression, which they keep."""
    policy = parse_policy(options.policy)
    return _told(_rewrite(session, options.paths, lambda ino: True, policy, Action.RECOMPRESS))


def _rewrite(
    session: Session, paths: list[str], wanted: Callable[[InodeNo], bool], policy: Policy | None, action: Action
) -> Rewritten:
    """Store the files at *paths* and below anew that are *wanted*, and enter that as *action* in the admin history.

    *policy*: the compression that they get; None: each keeps its own.
    """
    done = Rewritten()
    seen: set[InodeNo] = set()
    rewritten: list[InodeNo] = []
    uncommitted = 0
    for path in paths:
        for found in list(walk(session, path)):
            if found.inode is None or not found.inode.is_regular or found.ino in seen:
                continue
            seen.add(found.ino)
            if not wanted(found.ino):
                continue
            rewritten.append(found.ino)
            uncommitted += _rewrite_file(session, found.ino, policy, done)
            if uncommitted >= COMMIT_BYTES:
                session.volume.commit()
                uncommitted = 0
    if done.files:
        session.volume.note(action, detail=done.files)
    session.volume.checkpoint()  # so that what was replaced is free, and the figures are final
    for ino in rewritten:
        done.pieces_after += run_count(session, ino)
        done.blocks_after += session.volume.inodes.get(ino).stored_blocks
    return done


def _rewrite_file(session: Session, ino: InodeNo, policy: Policy | None, done: Rewritten) -> int:
    """Store one file anew, and let it have *policy*; return how many bytes of data that were."""
    volume = session.volume
    inode = volume.inodes.get(ino)
    done.files += 1
    done.pieces_before += run_count(session, ino)
    done.blocks_before += inode.stored_blocks
    numbers = [RecordNo(offset_of(key)) for key, _ in volume.store.items(*kind_range(ino, Kind.DATA_RECORD))]
    step = max(1, min(BATCH_BYTES, COMMIT_BYTES) // inode.record_bytes)
    total = uncommitted = 0
    for start in range(0, len(numbers), step):
        stored = store_anew(volume, ino, numbers[start : start + step], policy or policy_of(inode))
        total += stored
        uncommitted += stored
        if uncommitted >= COMMIT_BYTES:
            volume.commit()
            uncommitted = 0
    if policy is not None:
        xattrs.set(volume, ino, xattrs.COMPRESSION, str(policy).encode())
    done.data_bytes += total
    return total


def _told(done: Rewritten) -> Answer:
    text = f"{plural(done.files, 'file')} stored anew, {format_size(done.data_bytes)}"
    if done.files:
        text += f"; blocks {done.blocks_before} -> {done.blocks_after}, pieces {done.pieces_before} -> {done.pieces_after}"
    return Lines([text], done)


_DEFRAG = Words("defrag")
_DEFRAG.add_argument("paths", nargs="+", metavar="PATH")
_RECOMPRESS = Words("recompress")
_RECOMPRESS.add_argument("policy", metavar="POLICY", help="auto, none, zstd[:LEVEL], lz4 or zlib[:LEVEL]")
_RECOMPRESS.add_argument("paths", nargs="+", metavar="PATH")

COMMANDS = (
    Command("defrag", "store files anew that lie in several pieces", _DEFRAG, defragment, ("defrag /var",), writes=True),
    Command(
        "recompress",
        "store files anew, compressed in another way",
        _RECOMPRESS,
        recompress,
        ("recompress zstd:9 /var",),
        writes=True,
    ),
)
