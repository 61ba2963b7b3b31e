"""The rows of the table: what a client does on a mounted filesystem, and how it is known that the filesystem did it.

A row is a generator: it prepares, yields when the clock starts, works, yields how much it did when the clock stops, and then
checks. The client calls os.* with ready-made paths, so that little of the time is its own.
"""

from dataclasses import dataclass

from bench.mounts import big_files, jobs, mixed, small_files, trees
from bench.mounts.contents import Sizes, big, lines_with, pages
from bench.mounts.place import Row
from razortools.units import MIB


@dataclass(frozen=True, slots=True)
class Unit:
    """What is counted, if that needs to be said; a rate is shown divided by *divisor*."""

    name: str
    divisor: int = 1


PIECES = Unit("")
MIBS = Unit("MiB", MIB)

# In this order: later rows use what earlier ones have made.
ROWS: dict[str, tuple[Row, Unit]] = {
    "create + 4 KiB": (small_files.create, PIECES),
    "stat, cold": (small_files.stat_cold, PIECES),
    "stat, warm": (small_files.stat_warm, PIECES),
    "open + read 4 KiB, cold": (small_files.read_cold, PIECES),
    "open + read 4 KiB, warm": (small_files.read_warm, PIECES),
    "readdir + stat, cold": (small_files.list_long_cold, PIECES),
    "readdir + stat, warm": (small_files.list_long_warm, PIECES),
    "rename": (small_files.rename, PIECES),
    "unlink": (small_files.unlink, PIECES),
    "mkdir": (small_files.mkdir, PIECES),
    "rmdir": (small_files.rmdir, PIECES),
    "4 clients creating": (small_files.create_together, PIECES),
    "4 KiB write + fsync": (small_files.sync_writes, PIECES),
    "untar": (trees.untar, PIECES),
    "find, cold": (trees.find_cold, PIECES),
    "find, warm": (trees.find_warm, PIECES),
    "grep -r, cold": (trees.grep_cold, PIECES),
    "grep -r, warm": (trees.grep_warm, PIECES),
    "rm -r": (trees.remove_tree, PIECES),
    "mixed, 4 programs": (mixed.work_together, PIECES),
    "write text": (big_files.write_big("text"), MIBS),
    "read text, cold": (big_files.read_big("text"), MIBS),
    "read text, warm": (big_files.read_warm, MIBS),
    "random 4 KiB reads, cold": (big_files.read_random_cold, PIECES),
    "random 4 KiB reads, hot": (big_files.read_random_hot, PIECES),
    "random 4 KiB writes, one fsync": (big_files.write_random, PIECES),
    "fio, 4 jobs, 7 reads to 3 writes": (jobs.fio_mixed, PIECES),
    "write random bytes": (big_files.write_big("random"), MIBS),
    "read random bytes, cold": (big_files.read_big("random"), MIBS),
}


def prepare(sizes: Sizes) -> None:
    """Make in memory what the rows write and expect, before there are clients: they find it there."""
    for count in (sizes.files, sizes.files // sizes.clients, sizes.syncs, sizes.random_reads):
        pages(count)
    for kind in ("text", "random"):
        big(kind, sizes.big_bytes)
    lines_with(trees.PATTERN, sizes.tree_files)
