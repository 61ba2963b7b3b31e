"""block: what a block is, and all of its bytes, each range named by its field. Works on any image, whatever is left of it."""

import argparse
from collections.abc import Iterable, Iterator
from typing import Any

import crc32c

from razortools.debug.annotation import Span, journal_spans, map_spans, node_spans, superblock_spans
from razortools.debug.answers import Answer, Lines, Several
from razortools.debug.arguments import number
from razortools.debug.ownership import Owner, Wanted, owners
from razortools.debug.session import Command, Session, Words, reason_of
from razortools.debug.transactions import scan_journal
from razortools.debug.verifying import read_stored
from razortools.errors import CorruptImage, RazorError, UsageError
from razortools.format.geometry import Geometry
from razortools.format.node import NODE_MAGIC, decode_header, node_checksum
from razortools.format.spacemap import NEVER_WRITTEN, SpaceMapEntry
from razortools.format.superblock import MAGIC, Superblock
from razortools.printable import printable_name

LINE_BYTES = 16
BLOCK_BYTES_UNKNOWN = 4096  # the smallest: what is taken where no superblock tells


def show_block(session: Session, options: argparse.Namespace) -> Answer:
    """block: what lies in blocks, with every byte."""
    try:
        size = session.superblock().block_bytes
    except CorruptImage:
        size = BLOCK_BYTES_UNKNOWN
    if options.count < 1 or options.block < 0 or (options.block + options.count) * size > session.device.size_bytes:
        raise UsageError(f"block: the image has {session.device.size_bytes // size} blocks of {size} bytes, counted from 0")
    parts: list[Answer] = []
    data: list[dict[str, Any]] = []
    for block in range(options.block, options.block + options.count):
        raw = session.device.read(block * size, size)
        what, facts, spans = _described(session, block, raw)
        title = f"block {block} (byte {block * size}): {what}"
        parts.append(Lines([*([""] if parts else []), title, *(f"{name}: {text}" for name, text in facts), *_dump(raw, spans)]))
        told = {"block": block, "offset": block * size, "what": what, "facts": dict(facts)}
        data.append({**told, "spans": [_span_data(raw, one) for one in spans]})
    return Several(parts, data)


Described = tuple[str, list[tuple[str, str]], list[Span]]  # what a block is, facts about it, its spans


def _described(session: Session, block: int, raw: bytes) -> Described:
    """Return (what a block is, facts about it, its spans)."""
    try:
        geometry = session.geometry()
        (owner, *_) = owners(session, Wanted([(block, block + 1)]))
    except RazorError as broken:  # no superblock, or a tree of nonsense: the bytes can still say what they are
        return f"not known ({reason_of(broken)})", [], list(_by_itself(session, raw))
    facts = [("lost with it", owner.loss)]
    if owner.paths:
        facts.insert(0, ("path", ", ".join(map(printable_name, owner.paths))))
    if owner.what.startswith("superblock"):
        return owner.what, facts, list(superblock_spans(session, raw))
    if owner.what.startswith("space map"):
        return owner.what, [*facts, *_map_facts(session, geometry, block, raw)], _map_spans(geometry, block, raw)
    if owner.what == "journal":
        return owner.what, facts, list(_journal_spans(session, geometry, block, len(raw)))
    if owner.what.startswith("tree node"):
        return _node(session, geometry, block, owner, facts)
    if owner.record is not None:
        return owner.what, [("checksum", _record_state(session, owner)), *facts], [Span(0, len(raw), "data", owner.loss)]
    return owner.what, facts, list(_by_itself(session, raw))


def _node(session: Session, geometry: Geometry, block: int, owner: Owner, facts: list[tuple[str, str]]) -> Described:
    """Describe a block of a node, of which it may be any part."""
    size, blocks = geometry.block_bytes, geometry.node_blocks
    found = owners(session, Wanted([(max(block - blocks + 1, 0), min(block + blocks, geometry.block_count))]))
    start = next(one.span[0] for one in found if one.what == owner.what and one.span[0] <= block < one.span[1])
    raw = session.device.read(start * size, geometry.node_bytes)
    part = f", part {block - start + 1} of {blocks}" if blocks > 1 else ""
    own, computed = int.from_bytes(raw[4:8], "little"), node_checksum(raw)
    state = f"{own:#010x}: good" if own == computed else f"{own:#010x}: WRONG, {computed:#010x} found"
    spans = list(_clipped(node_spans(session, raw), (block - start) * size, size))
    return owner.what + part, [("checksum", state), *facts], spans


def _record_state(session: Session, owner: Owner) -> str:
    """Return whether the record that owns a block verifies: its checksum covers all of its blocks."""
    assert owner.record is not None
    try:
        read_stored(session, owner.record)
    except RazorError as broken:
        return f"WRONG: {reason_of(broken)}"
    count = owner.record.block_count(session.superblock().block_bytes)
    return f"{owner.record.crc32c:#010x}: good, for all {count} blocks of the record"


def _by_itself(session: Session, raw: bytes) -> Iterator[Span]:
    """Yield the spans of a block that nothing is known of, by what its bytes look like."""
    if raw[: len(MAGIC)] == MAGIC:
        yield from superblock_spans(session, raw)
    elif raw[:4] == NODE_MAGIC:
        try:
            header = decode_header(raw.ljust(1 << 16, b"\0"))
            words = f"of level {header.level}, generation {header.generation}, written for block {header.address}"
        except RazorError as broken:
            words = reason_of(broken)
        yield Span(0, len(raw), "a node that nothing names begins here", words)
    elif raw.count(0) == len(raw):
        yield Span(0, len(raw), "zeros")
    else:
        yield Span(0, len(raw), "bytes")


def _clipped(spans: Iterable[Span], start: int, length: int) -> Iterator[Span]:
    """Yield the parts of spans that lie in a window, counted from its start."""
    for span in spans:
        first, end = max(span.at, start), min(span.at + span.length, start + length)
        if first < end:
            yield Span(first - start, end - first, span.name, span.value, span.follow)


def _map_place(geometry: Geometry, block: int) -> tuple[int, int, int]:
    """Return (copy, level, index) of the page of the space map in a block."""
    copy = 1 if block >= geometry.spacemap_starts[1] else 0
    rest = block - geometry.spacemap_starts[copy]
    for level in range(len(geometry.spacemap.level_pages) - 1, -1, -1):
        if rest < geometry.spacemap.level_pages[level]:
            return copy, level, rest
        rest -= geometry.spacemap.level_pages[level]
    raise AssertionError("a block of the space map that is no page of it")


def _map_spans(geometry: Geometry, block: int, raw: bytes) -> list[Span]:
    _, level, index = _map_place(geometry, block)
    return list(map_spans(raw, level, index, geometry.spacemap.group_blocks))


def _map_facts(session: Session, geometry: Geometry, block: int, raw: bytes) -> list[tuple[str, str]]:
    """Return what page this is, and its checksum judged against what the page above says."""
    copy, level, index = _map_place(geometry, block)
    facts = [("page", f"{index} of level {level}")]
    superblock = session.superblock()
    if copy != superblock.spacemap_active:
        return facts
    told = _map_entry(session, geometry, superblock, level, index)
    found = int(crc32c.crc32c(raw))
    if told is None or told.free_count == NEVER_WRITTEN:
        return [*facts, ("checksum", "never written" if told else "the page above cannot be trusted")]
    state = "good" if told.crc32c == found else f"WRONG: {found:#010x} found, {told.crc32c:#010x} expected"
    return [*facts, ("checksum", state)]


def _map_entry(session: Session, geometry: Geometry, superblock: Superblock, level: int, index: int) -> SpaceMapEntry | None:
    """Return what must stand in a page of the active map; None if the page above that says so does not verify."""
    top = len(geometry.spacemap.level_pages) - 1
    told = superblock.spacemap_top
    fan_out = geometry.block_bytes // SpaceMapEntry.FIXED_BYTES
    for above in range(top, level, -1):
        number = index // fan_out ** (above - level)
        place = geometry.spacemap_starts[superblock.spacemap_active] + geometry.spacemap.page_place(above, number)
        raw = session.device.read(place * geometry.block_bytes, geometry.block_bytes)
        if crc32c.crc32c(raw) != told.crc32c:
            return None
        at = index // fan_out ** (above - level - 1) % fan_out * SpaceMapEntry.FIXED_BYTES
        told = SpaceMapEntry.decode(raw[at : at + SpaceMapEntry.FIXED_BYTES])
    return told


def _journal_spans(session: Session, geometry: Geometry, block: int, size: int) -> Iterator[Span]:
    """Yield the spans of the transactions that wait in a block of the ring."""
    window = (block - geometry.journal_start) * size
    for transaction in scan_journal(session).transactions:
        start = transaction.position % geometry.journal_bytes
        for place in (start, start - geometry.journal_bytes):  # it may reach over the end of the ring
            if place < window + size and place + transaction.commit.total_bytes > window:
                yield from _clipped(journal_spans(session, transaction), window - place, size)
                return
    yield Span(0, size, "nothing that waits for replay")


def _dump(raw: bytes, spans: Iterable[Span]) -> Iterator[str]:
    """Yield the lines of a dump: place, bytes, and what they are. Lines of equal bytes in one span are told once."""
    for span in spans:
        text = f"{span.name} = {span.value}" if span.value else span.name
        text += f"  -> {span.follow}" if span.follow else ""
        last, skipped = b"", False
        for at in range(span.at, span.at + span.length, LINE_BYTES):
            held = raw[at : min(at + LINE_BYTES, span.at + span.length)]
            if held == last and at + LINE_BYTES < span.at + span.length:
                if not skipped:
                    yield "  *"
                skipped = True
                continue
            last, skipped = held, False
            yield f"  {at:04x}  {held.hex(' '):<47}  {_printable(held)}{text}".rstrip()
            text = ""


def _printable(held: bytes) -> str:
    return "".join(chr(byte) if 32 <= byte < 127 else "." for byte in held).ljust(LINE_BYTES + 2)


def _span_data(raw: bytes, span: Span) -> dict[str, Any]:
    data: dict[str, Any] = {"at": span.at, "length": span.length, "name": span.name, "value": span.value}
    if span.follow:
        data["follow"] = span.follow
    data["hex"] = raw[span.at : span.at + span.length].hex()
    return data


_BLOCK = Words("block")
_BLOCK.add_argument("block", type=number, metavar="BLOCK")
_BLOCK.add_argument("count", nargs="?", type=number, default=1, metavar="COUNT", help="so many blocks; otherwise 1")

COMMANDS = (
    Command(
        "block", "show what a block is, and all its bytes, named by their fields", _BLOCK, show_block, ("block 0", "block 1234 4")
    ),
)
