"""Phase 7: compression integrity. Decompresses everything that is stored, in the tree and in blocks.

The blocks are read here once: those whose checksum is wrong are handed on to the checksum pass, which reports them.
"""

from collections import Counter
from collections.abc import Generator, Iterator

from razortools.check import problems
from razortools.check.contents import Broken, Fault, is_selected, verify
from razortools.check.facts import ContentFacts, DamagedRecord, InodeFacts
from razortools.check.findings import Event, Finding, Progress
from razortools.check.keynames import bytes_words, item_words, record_range
from razortools.check.paths import Paths
from razortools.check.tree import kinds_mask
from razortools.errors import CorruptImage
from razortools.format.compression import Algorithm, unpack
from razortools.format.data import CHECKED_TWICE, LATE, DataRecord, InlineData
from razortools.format.inode import Inode
from razortools.format.items import owned_record
from razortools.format.keys import KIND_AT, Kind, Table, inode_key, object_of, offset_of
from razortools.format.superblock import Incompat
from razortools.units import InodeNo

DAMAGED_MAX = 100_000  # handed on at most: a ruined image must not fill the memory
INLINE_BYTES_MAX = 1 << 20
# What the checksum pass reports.
CHECKSUM_FAULTS = (Fault.UNREADABLE, Fault.CHECKSUM, Fault.SECOND_CHECKSUM, Fault.CUT_OUT)
_TWICE, _LATE = -1, -2  # counted like an algorithm
_FEATURES = {
    Algorithm.ZSTD: Incompat.ZSTD,
    Algorithm.LZ4: Incompat.LZ4,
    Algorithm.ZLIB: Incompat.ZLIB,
    _TWICE: Incompat.SECOND_CHECKSUM,
    _LATE: Incompat.LATE_PAGES,
}
_TABLES = (
    (Incompat.STRING_TABLE, "names", Table.NAMES, Kind.NAME),
    (Incompat.PATCHES, "patches", Table.PATCHES, Kind.PATCH),
)  # features that show in tables of their own


def check(facts: InodeFacts, selected: bytearray | None, threads: int) -> Generator[Event, None, ContentFacts]:
    """Judge all contents (of the *selected* inodes)."""
    paths = Paths(facts.tree)
    used: Counter[int] = Counter()
    yield from _judge_inline(facts, selected, paths, used)
    damaged: list[DamagedRecord] = []
    count = more = 0
    for batch in verify(facts, selected, threads, decompress=True):
        yield Progress(facts.tree.leaf_count + batch.leaf, 2 * facts.tree.leaf_count)
        count += len(batch.records)
        used.update(record.algorithm for _, record in batch.records)
        used[_TWICE] += sum(record.flags & CHECKED_TWICE for _, record in batch.records)
        used[_LATE] += sum(bool(record.flags & LATE) for _, record in batch.records)
        for broken in batch.broken:
            if broken.fault in CHECKSUM_FAULTS:
                if len(damaged) < DAMAGED_MAX:
                    damaged.append(damaged_record(broken))
                else:
                    more += 1
            else:
                yield _finding(facts, paths, broken)
    for feature, count_of_it in ((_FEATURES[one], used[one]) for one in _FEATURES):
        if count_of_it and not facts.tree.image.superblock.incompat & feature:
            yield _unannounced(feature, "records", count_of_it)
    yield from _judge_tables(facts)
    return ContentFacts(tuple(damaged), count, more)


def _judge_tables(facts: InodeFacts) -> Iterator[Finding]:
    """Yield the features that are not announced and of which there are items. They are only counted then."""
    tree = facts.tree
    for feature, what, table, kind in _TABLES:
        if not tree.image.superblock.incompat & feature:
            leaves = tree.leaves(kinds_mask(kind))
            count = sum(key[0] == table and key[KIND_AT] == kind for _, (keys, _) in leaves for key in keys)
            if count:
                yield _unannounced(feature, what, count)


def _unannounced(feature: Incompat, what: str, count: int) -> Finding:
    return problems.FEATURE_UNANNOUNCED.found(where="superblock", feature=str(feature.name).lower(), what=what, count=count)


def damaged_record(broken: Broken) -> DamagedRecord:
    """Return what the checksum pass needs to know."""
    number = InodeNo(object_of(broken.key))
    is_cut_out = broken.fault is Fault.CUT_OUT
    return DamagedRecord(number, broken.key, broken.reason, broken.found, broken.expected, broken.is_readable, is_cut_out)


def hurt_range(facts: InodeFacts, key: bytes) -> tuple[int, int] | None:
    """Return the (first byte, first byte behind) of the file that a data record holds, or None."""
    if key[9] != Kind.DATA_RECORD:
        return None
    value = facts.tree.get(inode_key(InodeNo(object_of(key))))
    if value is None or len(value) != Inode.FIXED_BYTES:
        return None
    inode = Inode.decode(value)
    return record_range(inode, offset_of(key)) if inode.record_log2 < 32 else None


def record_words(facts: InodeFacts, key: bytes) -> tuple[str, str, tuple[int, int] | None]:
    """Return (what it is, where it hurts, byte range) of a record, for a finding."""
    what = f"{item_words(key)} of inode {object_of(key)}"
    byte_range = hurt_range(facts, key)
    value = facts.tree.get(key)
    record = owned_record(key, value) if value is not None else None
    block = f"block {record.runs(facts.tree.image.block_bytes)[0][0]}" if record is not None else ""
    where = ", ".join(filter(None, [bytes_words(byte_range) if byte_range else "", block]))
    return what, where, byte_range


def _finding(facts: InodeFacts, paths: Paths, broken: Broken) -> Finding:
    number = object_of(broken.key)
    what, where, byte_range = record_words(facts, broken.key)
    path = paths.of(number)
    if broken.fault is Fault.ALGORITHM:
        value = facts.tree.get(broken.key)
        record = owned_record(broken.key, value) if value is not None else None
        algorithm = record.algorithm if isinstance(record, DataRecord) else "?"
        return problems.ALGORITHM_UNKNOWN.found(
            inode=number, what=what, value=algorithm, path=path, where=where, byte_range=byte_range, key=broken.key
        )
    return problems.DOES_NOT_DECOMPRESS.found(
        inode=number, what=what, reason=broken.reason, path=path, where=where, byte_range=byte_range, key=broken.key
    )


def _judge_inline(facts: InodeFacts, selected: bytearray | None, paths: Paths, used: "Counter[int]") -> Iterator[Event]:
    """Decompress the contents that are kept in the tree."""
    tree = facts.tree
    for leaf, (keys, values) in tree.leaves(kinds_mask(Kind.INLINE_DATA)):
        if leaf % 64 == 0:
            yield Progress(leaf, 2 * tree.leaf_count)
        for key, value in zip(keys, values, strict=True):
            if key[0] != Table.FILES or key[9] != Kind.INLINE_DATA:
                continue
            if selected is not None and not is_selected(facts, selected, key):
                continue
            try:
                inline = InlineData.decode(value)
                if inline.raw_bytes > INLINE_BYTES_MAX:
                    continue  # the data pass has said so
                used[inline.algorithm] += 1
                unpack(inline.stored, inline.algorithm, inline.raw_bytes)
            except CorruptImage as wrong:
                number = object_of(key)
                yield problems.INLINE_BROKEN.found(inode=number, reason=wrong, path=paths.of(number), key=key)
