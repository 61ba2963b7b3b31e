"""Where things lie: records and where (of a file), space (of all)."""

import argparse
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from razortools.debug.answers import Answer, Lines, Pairs, Several, Table
from razortools.debug.rawtree import RawTree
from razortools.debug.session import Command, Session, Words, reason_of
from razortools.debug.values import algorithm_name, shown_runs
from razortools.debug.verifying import read_stored
from razortools.engine.store.superblocks import find_copies
from razortools.errors import CorruptImage, RazorError
from razortools.format.data import CUT_OUT, DataRecord, InlineData, Patch
from razortools.format.geometry import geometry_of
from razortools.format.items import owned_record
from razortools.format.keys import Kind, inline_key, inode_key, kind_range, object_range, offset_of, table_range
from razortools.format.keys import Table as KeyTable
from razortools.format.xattr import Xattr
from razortools.printable import printable_name
from razortools.units import InodeNo, format_size


@dataclass(frozen=True, slots=True)
class Piece:
    """One stored piece of a file. *record* None: it stands in the tree."""

    kind: str
    first: int  # byte of the file
    raw_bytes: int
    stored_bytes: int
    algorithm: str
    record: DataRecord | None
    key: bytes

    @property
    def late_pages(self) -> int:
        """How many pages were written behind it later."""
        with suppress(CorruptImage):  # which its runs tell
            late = self.record.late_pages if self.record is not None else None
            return late.page_count if late is not None else 0
        return 0


def pieces_of(session: Session, ino: InodeNo) -> Iterator[Piece]:
    """Yield the stored pieces of a file, its large attributes last. Raises CorruptImage for an item that does not decode."""
    store = session.volume.store
    inode = session.volume.inodes.get(ino)
    inline = store.get(inline_key(ino))
    if inline is not None:
        item = InlineData.decode(inline)
        yield Piece("inline", 0, item.raw_bytes, len(item.stored), algorithm_name(item.algorithm), None, inline_key(ino))
    for key, value in store.items(*kind_range(ino, Kind.DATA_RECORD)):
        record = DataRecord.decode(value)
        kind = "cut out" if record.flags & CUT_OUT else "record"
        first = offset_of(key) * inode.record_bytes
        yield Piece(kind, first, record.raw_bytes, record.stored_bytes, algorithm_name(record.algorithm), record, key)
    for key, value in store.items(*object_range(KeyTable.PATCHES, ino)):
        patch = Patch.decode(value)
        yield Piece("patch", offset_of(key), len(patch.data), len(patch.data), "none", None, key)
    for key, value in store.items(*kind_range(ino, Kind.XATTR)):
        attribute = Xattr.decode(value)
        outside = attribute.out_of_line
        if outside is not None:
            kind, algorithm = f"xattr {printable_name(attribute.name)}", algorithm_name(outside.algorithm)
            yield Piece(kind, 0, outside.raw_bytes, outside.stored_bytes, algorithm, outside, key)


def show_records(session: Session, options: argparse.Namespace) -> Answer:
    """records: every stored piece of a file, where it lies and how it is compressed; with --verify whether it can be read."""
    ino = session.find(options.path)
    block_bytes = session.volume.block_bytes
    rows, data = [], []
    for piece in pieces_of(session, ino):
        blocks = shown_runs(piece.record, block_bytes) if piece.record is not None else "in the tree"
        ratio = f"{piece.raw_bytes / piece.stored_bytes:.2f}" if piece.stored_bytes else ""
        late = f", {piece.late_pages} late pages" if piece.late_pages else ""
        row: tuple[object, ...] = (
            piece.kind + late, piece.first, piece.raw_bytes, piece.stored_bytes, ratio, piece.algorithm, blocks
        )  # fmt: skip
        told: dict[str, Any] = {
            "kind": piece.kind,
            "offset": piece.first,
            "raw_bytes": piece.raw_bytes,
            "stored_bytes": piece.stored_bytes,
            "algorithm": piece.algorithm,
            "runs": piece.record.runs(block_bytes) if piece.record is not None and piece.kind != "cut out" else [],
            "generation": piece.record.birth if piece.record is not None else None,
            "late_pages": piece.late_pages,
        }
        if options.verify:
            state = record_state(session, piece.record)
            row, told["state"] = (*row, state), state
        rows.append(row)
        data.append(told)
    columns = ("piece", "from byte", "bytes", "stored", "ratio", "compression", "blocks", *(["state"] if options.verify else []))
    return Table(columns, rows, {"inode": ino, "pieces": data}, right=(1, 2, 3, 4))


def record_state(session: Session, record: DataRecord | None) -> str:
    """Return "good", or why the stored bytes of *record* cannot be trusted."""
    if record is None:
        return "good"
    try:
        read_stored(session, record)
    except RazorError as broken:
        return reason_of(broken)
    return "good"


def show_where(session: Session, options: argparse.Namespace) -> Answer:
    """where: the blocks that a file depends on: its contents byte range by byte range, and the leaf that holds its inode."""
    ino, inode = session.inode(options.path)
    block_bytes = session.volume.block_bytes
    data: list[dict[str, Any]] = []
    for piece in pieces_of(session, ino):
        runs = piece.record.runs(block_bytes) if piece.record is not None and piece.kind != "cut out" else []
        for first, count in runs:
            end = piece.first + piece.raw_bytes
            data.append({"what": piece.kind, "offset": piece.first, "end": end, "first_block": first, "blocks": count})
    leaf = RawTree(session.device, session.superblock()).leaf_of(inode_key(ino))
    rows = [
        (one["what"], f"{one['offset']}-{one['end'] - 1}", one["first_block"], one["blocks"], one["first_block"] * block_bytes)
        for one in data
    ]
    copies = ", ".join(map(str, leaf.copies))
    said = (
        f"inode {ino}: in the leaf at block {copies} of the last checkpoint"
        if leaf.level == 0
        else f"inode {ino}: {leaf.fault()}"
    )
    return Several(
        [Table(("what", "bytes", "first block", "blocks", "at byte"), rows, None, right=(2, 3, 4)), Lines([said])],
        {"inode": ino, "size": inode.size, "runs": data, "leaf_blocks": leaf.copies},
    )


def show_space(session: Session, options: argparse.Namespace) -> Answer:
    """space: what the blocks are used for, how the free ones are scattered, and how the files are."""
    volume = session.volume
    store, superblock = volume.store, volume.store.superblock
    geometry = geometry_of(superblock)
    histogram: Counter[int] = Counter()
    blocks_in: Counter[int] = Counter()
    free = largest = 0
    for _, count in store.maps.free_runs():
        histogram[count.bit_length() - 1] += 1
        blocks_in[count.bit_length() - 1] += count
        free += count
        largest = max(largest, count)
    files = _fragments(session)
    used = {
        "superblocks": len(find_copies(session.device)),
        "space_maps": 2 * geometry.spacemap.page_count,
        "journal": geometry.journal_blocks,
        "data": volume.counters.data_blocks,
    }
    used["nodes_and_reserve"] = superblock.block_count - free - sum(used.values())
    scattered = 100 * (1 - largest / free) if free else 0.0
    fixed: list[tuple[str, object]] = [
        (name.replace("_", " "), f"{blocks} blocks ({format_size(blocks * volume.block_bytes)})") for name, blocks in used.items()
    ]
    fixed += [
        ("free", f"{free} blocks ({format_size(free * volume.block_bytes)})"),
        ("largest free run", f"{largest} blocks ({format_size(largest * volume.block_bytes)})"),
        ("free space outside of it", f"{scattered:.1f} %"),
        ("data records", f"{files['records']} in {files['runs']} runs, {files['split']} of them in several"),
        ("files in several pieces", f"{files['scattered_files']} of {files['files']}"),
    ]
    rows = [
        (f"{1 << size} to {(2 << size) - 1}", histogram[size], blocks_in[size], f"{100 * blocks_in[size] / free:.1f} %")
        for size in sorted(histogram)
    ]
    data = {
        "block_bytes": volume.block_bytes,
        "block_count": superblock.block_count,
        "used": used,
        "free_blocks": free,
        "largest_free_run": largest,
        "free_runs": [{"from": 1 << size, "runs": histogram[size], "blocks": blocks_in[size]} for size in sorted(histogram)],
        "files": files,
    }
    table = Table(("free runs of", "runs", "blocks", "of all free"), rows, None, right=(1, 2, 3))
    return Several([Pairs(fixed, None), Lines([""]), table], data)


def _fragments(session: Session) -> dict[str, int]:
    """Return how scattered the data of files are: a file is in one piece if its records follow one another."""
    found = dict.fromkeys(("files", "scattered_files", "records", "runs", "split"), 0)
    owner, end, pieces = b"", 0, 0
    block_bytes = session.volume.block_bytes
    for key, value in session.volume.store.items(*table_range(KeyTable.FILES)):
        if key[9] != Kind.DATA_RECORD:
            continue
        record = owned_record(key, value)
        if record is None or record.flags & CUT_OUT:
            continue
        if key[:9] != owner:
            found["scattered_files"] += pieces > 1
            found["files"] += 1
            owner, end, pieces = key[:9], -1, 0
        runs = record.runs(block_bytes)
        found["records"] += 1
        found["runs"] += len(runs)
        found["split"] += len(runs) > 1
        for first, count in runs:
            pieces += first != end
            end = first + count
    found["scattered_files"] += pieces > 1
    return found


_RECORDS = Words("records")
_RECORDS.add_argument("--verify", action="store_true", help="read each, and say whether it is good")
_RECORDS.add_argument("path", metavar="PATH")
_WHERE = Words("where")
_WHERE.add_argument("path", metavar="PATH")
_SPACE = Words("space")

COMMANDS = (
    Command("records", "show where each piece of a file lies and how it is compressed", _RECORDS, show_records,
            ("records /var/log/messages", "records --verify /f")),
    Command("where", "show the blocks that a file depends on", _WHERE, show_where, ("where /etc/passwd",)),
    Command("space", "show how the blocks are used, and how scattered they are", _SPACE, show_space, ("space",)),
)  # fmt: skip
