"""What it takes to open an image after a crash: memory and time, for the journals that ask most of it.

    python -m bench.recovering [--journal 256] [--only JOURNAL]... [--folder DIRECTORY] [--write]

Each journal is made by the engine in an image of its own, a sparse file of 64 times --journal MiB, and the process that made it
goes without closing the image. Then each program opens it in a process that is new, and tells the most that it had resident
(VmHWM) and how long it took. Python and the program itself are in that; the row *clean* has nothing to replay.

- *small commits*: half of the ring, which is when a mount makes a checkpoint, in commits of a single change of an attribute.
- *large commits*: half of the ring in commits of many such changes, and one that fills what is left.
- *one transaction*: nobody commits until the journal takes no more.
- *stored files*: the same of records of data that are stored anew, up to 32 MiB of entries, for which a GiB of data is written:
  each entry lets blocks go, and the data of the last one of each record have to be verified.
- *torn*: *one transaction* whose end never arrived.
- *heads only*: no engine writes this. A transaction of entries that are as small as can be, as large as the ring.
- *heads only, torn*: the same without its end.
"""

import argparse
import multiprocessing
import os
import random
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from itertools import count
from pathlib import Path

import crc32c

from bench.check import PYTHON, WATCHER
from bench.mounts.report import layout
from bench.page import machine, tell
from razortools.engine import files, flush, namespace, xattrs
from razortools.engine.create import create, plan_create
from razortools.engine.store.device import FileDevice, create_image
from razortools.engine.volume import Volume, open_volume
from razortools.format.inode import ROOT_INODE
from razortools.format.journal import (
    COMMIT_BYTES,
    ENTRY_HEAD_BYTES,
    JOURNAL_MAGIC,
    EntryFlag,
    JournalCommit,
    JournalEntry,
    Operation,
)
from razortools.format.keys import LOWEST_KEY, inode_key
from razortools.units import KIB, MIB, InodeNo, round_up

FILES = 4000  # that change again and again: more than one part of a transaction takes, in few leaves
STORED_FILES = 1000
STORED_BYTES = 3000  # of noise: a block each
STORED_ENTRIES_BYTES = 32 * MIB
LARGE_SHARE = 16  # a large commit takes one part in so many of the ring
FULL = 0.85  # of the ring; what has changed most lately is put once more when the transaction is committed
IMAGE_SHARE = 64  # of an image the journal is one part in so many
SEED = 1
OPEN = """
import sys
from razortools.engine.store.device import open_image
from razortools.engine.volume import open_volume
writable = sys.argv[2] == "writable"
open_volume(open_image(sys.argv[1], writable=writable), read_only=not writable)
"""
PROGRAMS = {  # the one that changes the image comes last
    "read-only": f"{PYTHON} -c {shlex.quote(OPEN)} {{image}} readable",
    "razorfsck -n": f"{PYTHON} -m razortools.fsck -n {{image}}",
    "razorfs-debug": f"{PYTHON} -m razortools.debugfs -R 'journal --transaction 0' {{image}}",
    "mount": f"{PYTHON} -c {shlex.quote(OPEN)} {{image}} writable",
}


@dataclass(frozen=True, slots=True)
class Ran:
    """What one program took."""

    code: int  # that it exits with
    wall_s: float
    memory_bytes: int

    def __str__(self) -> str:
        """Return it as a cell of the table."""
        return f"{self.memory_bytes / MIB:,.0f} MiB, {self.wall_s:.1f} s"


def labels(volume: Volume) -> Iterator[None]:
    """Give files another attribute again and again, one after the other; yield before each change."""
    inodes = [namespace.create(volume, ROOT_INODE, b"file %d" % number, 0o644, 0, 0) for number in range(FILES)]
    volume.checkpoint()
    for turn in count():
        for ino in inodes:
            yield
            xattrs.set(volume, ino, b"user.turn", b"%d" % turn)


def contents(volume: Volume) -> Iterator[None]:
    """Store files anew, again and again, one after the other; yield before each."""
    chance = random.Random(SEED)
    inodes = [namespace.create(volume, ROOT_INODE, b"file %d" % number, 0o644, 0, 0) for number in range(STORED_FILES)]
    volume.checkpoint()
    while True:
        for ino in inodes:
            yield
            files.write(volume, ino, 0, chance.randbytes(STORED_BYTES))
            flush.flush_all(volume, patched=False)


def commit_only(volume: Volume) -> None:
    """Commit as a mount does while a checkpoint is not due yet."""
    volume.begin_commit(storing=True)
    volume.settle()


def is_nearly_full(volume: Volume) -> bool:
    """Return whether the running transaction fills what is left of the ring. If it were larger, it would become a checkpoint."""
    journal = volume.store.journal
    return volume.store.transaction.parts_bytes >= FULL * (journal.ring_bytes - journal.used_bytes)


def small_commits(volume: Volume) -> None:
    """Fill half of the ring with commits of one change each."""
    for _ in labels(volume):
        commit_only(volume)
        if volume.wants_checkpoint:
            return


def large_commits(volume: Volume) -> None:
    """Fill half of the ring with commits of many changes, the rest with one more."""
    large_bytes = volume.store.journal.ring_bytes // LARGE_SHARE
    for _ in labels(volume):
        if is_nearly_full(volume):
            break
        if volume.store.transaction.parts_bytes >= large_bytes and not volume.wants_checkpoint:
            commit_only(volume)
    commit_only(volume)


def one_transaction(volume: Volume) -> None:
    """Fill the ring with one transaction."""
    for _ in labels(volume):
        if is_nearly_full(volume):
            break
    commit_only(volume)


def stored_files(volume: Volume) -> None:
    """Fill the ring, or a good part of it, with one transaction of records."""
    for _ in contents(volume):
        if is_nearly_full(volume) or volume.store.transaction.parts_bytes >= STORED_ENTRIES_BYTES:
            break
    commit_only(volume)


def torn(volume: Volume) -> None:
    """Fill the ring with one transaction whose end is not there."""
    journal, start = volume.store.journal, volume.store.journal.head
    one_transaction(volume)
    assert journal.head - start > journal.ring_bytes // 2
    last = journal.start_bytes + (journal.head - COMMIT_BYTES) // volume.block_bytes * volume.block_bytes % journal.ring_bytes
    journal.device.write(last, bytes(volume.block_bytes))


def heads_only(volume: Volume, *, with_end: bool = True) -> None:
    """Fill the ring with one transaction of entries that say that an item is not there, as it was not before."""
    journal, number = volume.store.journal, volume.store.transaction.number
    entry_count = (journal.ring_bytes - COMMIT_BYTES) // ENTRY_HEAD_BYTES
    first, position, parts = journal.next_sequence, journal.head, bytearray()

    def entry(sequence: int, operation: Operation, flags: int, key: bytes, redo: bytes = b"") -> bytes:
        head = JournalEntry(number, sequence, 0, operation, flags, 0, 0, len(redo), key)
        body = JournalEntry.STRUCT.pack(*astuple(head)) + redo
        return JOURNAL_MAGIC + crc32c.crc32c(body, journal.seed).to_bytes(4, "little") + body

    for sequence in range(first, first + entry_count):
        parts += entry(sequence, Operation.SETATTR, 0, inode_key(InodeNo(1_000_000 + sequence)))
        if len(parts) >= MIB:
            journal.write(position, [bytes(parts)])
            position += len(parts)
            parts.clear()
    if with_end:
        total = round_up(entry_count * ENTRY_HEAD_BYTES + COMMIT_BYTES, volume.block_bytes)
        commit = JournalCommit(first - 1, first, 0, total).encode()
        parts += entry(first + entry_count, Operation.COMMIT, EntryFlag.HAS_REDO, LOWEST_KEY, commit)
    journal.write(position, [bytes(parts)])


JOURNALS: dict[str, Callable[[Volume], None]] = {
    "clean": lambda volume: None,
    "small commits": small_commits,
    "large commits": large_commits,
    "one transaction": one_transaction,
    "stored files": stored_files,
    "torn": torn,
    "heads only": heads_only,
    "heads only, torn": lambda volume: heads_only(volume, with_end=False),
}


class Unsynced(FileDevice):
    """An image file that nobody waits for: no power is cut here."""

    def flush(self) -> None:
        """See Device."""


def make(image: Path, journal_bytes: int, name: str) -> None:
    """Make an image with the journal *name*, and do not close it. For a process of its own."""
    with create_image(image, IMAGE_SHARE * journal_bytes) as device:
        create(device, plan_create(device.size_bytes, journal_bytes=journal_bytes, uuid=bytes(range(16)), hash_seed=bytes(16)))
    volume = open_volume(Unsynced(os.open(image, os.O_RDWR), str(image), read_only=False))
    JOURNALS[name](volume)
    os._exit(0)


def run(program: str, image: Path) -> Ran:
    """Run one of the programs over an image, whatever it finds."""
    done = subprocess.run([PYTHON, "-c", WATCHER, PROGRAMS[program].format(image=image)], capture_output=True, text=True)
    wall_s, _, memory_kib = map(float, done.stdout.split())
    return Ran(done.returncode, wall_s, int(memory_kib * KIB))


@contextmanager
def made(folder: Path, journal_bytes: int, name: str) -> Iterator[Path]:
    """Yield an image in *folder* with the journal *name*, which is not closed."""
    image = folder / "image"
    maker = multiprocessing.get_context("spawn").Process(target=make, args=(image, journal_bytes, name))
    maker.start()
    maker.join()
    if maker.exitcode:
        raise SystemExit(f"{name}: the image could not be made")
    try:
        yield image
    finally:
        image.unlink()


def measure(folder: Path, journal_bytes: int, name: str, programs: list[str]) -> list[str]:
    """Return a row of the table."""
    row = [name]
    with made(folder, journal_bytes, name) as image:
        for program in programs:
            row.append(str(run(program, image)))
            sys.stderr.write(f"{name}, {program}: {row[-1]}\n")
    return row


def main() -> None:
    """Measure, print the table, publish it if asked to."""
    parser = argparse.ArgumentParser(description="Measure what opening an image takes after a crash.")
    parser.add_argument("--journal", type=int, default=256, metavar="MIB", help="size of the journal (default: 256)")
    parser.add_argument("--only", action="append", choices=JOURNALS, metavar="JOURNAL", help="one: " + ", ".join(JOURNALS))
    parser.add_argument("--program", action="append", choices=PROGRAMS, help="one program: " + ", ".join(PROGRAMS))
    parser.add_argument("--folder", type=Path, help="where the images lie meanwhile (default: a temporary directory)")
    parser.add_argument("--write", action="store_true", help="put the table into docs/BENCHMARKS.md")
    chosen = parser.parse_args()
    programs = [name for name in PROGRAMS if not chosen.program or name in chosen.program]
    with tempfile.TemporaryDirectory(dir=chosen.folder) as temporary:
        folder = Path(temporary)
        rows = [
            measure(folder, chosen.journal * MIB, name, programs)
            for name in JOURNALS
            if not chosen.only or name in chosen.only
        ]
        head = f"{machine(folder)}; a journal of {chosen.journal} MiB. The most that was resident, and the time."
        tell("recovering", [head, "", layout([["the journal holds", *programs], *rows])], write=chosen.write)


if __name__ == "__main__":
    main()
