"""What the fields of a superblock may hold, if its layout is possible (format/layout.py). Pure: one superblock in, faults out."""

from collections.abc import Iterator

from razortools.engine.store.admin import keeps_history
from razortools.format.admin import NO_ENTRY
from razortools.format.compression import LEVELS, Algorithm
from razortools.format.layout import COUNT_MAX, RISING, is_record_size
from razortools.format.node import LEVEL_MAX
from razortools.format.superblock import VERSION_MAJOR, VERSION_MINOR, State, Superblock

Fault = tuple[str, object, object]  # field, found, expected


def field_faults(superblock: Superblock) -> Iterator[Fault]:
    """Yield (field, found, expected) for each field with an impossible value; the layout must be possible."""
    s = superblock
    yield from _choices(s)
    if s.version_major != VERSION_MAJOR:
        yield "major version", s.version_major, VERSION_MAJOR
    if s.version_minor > VERSION_MINOR:
        yield "minor version", s.version_minor, f"at most {VERSION_MINOR}"
    if not is_record_size(s.record_bytes):
        yield "record size", s.record_bytes, "a power of two from 4 KiB to 1 MiB"
    if s.journal_tail % s.block_bytes:
        yield "journal tail", s.journal_tail, f"a multiple of {s.block_bytes}"
    yield from _counts(s)
    if s.root_level > LEVEL_MAX:
        yield "root level", s.root_level, f"at most {LEVEL_MAX}"
    if s.free_blocks > s.block_count:
        yield "free blocks", s.free_blocks, f"at most {s.block_count}"
    if s.root.generation > s.generation:
        yield "generation of the root", s.root.generation, f"at most {s.generation}"
    if s.reserved.strip(b"\0"):
        yield "reserved bytes", "not zero", "zeros"
    if not keeps_history(s) and s.admin_history.strip(b"\0"):
        yield "admin history", "not zero", "zeros, for no feature announces it"
    for name in ("admin_last", "admin_before"):
        if not keeps_history(s) and getattr(s, name) != NO_ENTRY:
            yield name.replace("_", " "), "not zero", "zeros, for no feature announces it"


def _counts(s: Superblock) -> Iterator[Fault]:
    """Yield the faults of counts that rise for ever."""
    for name in ("generation", "journal_sequence"):
        if getattr(s, name) < 1:
            yield name.replace("_", " "), getattr(s, name), "at least 1"
    for name in RISING:
        if getattr(s, name) > COUNT_MAX:
            yield name.replace("_", " "), getattr(s, name), f"at most {COUNT_MAX}"


def _choices(s: Superblock) -> Iterator[Fault]:
    """Yield the faults of fields that take one of a few values."""
    if s.state not in set(State):
        yield "state", s.state, "1, 2 or 3"
    if s.metadata_copies not in (1, 2):
        yield "metadata copies", s.metadata_copies, "1 or 2"
    if s.spacemap_active not in (0, 1):
        yield "active space map", s.spacemap_active, "0 or 1"
    if s.compression not in set(Algorithm):
        yield "compression", s.compression, "a known algorithm"
    elif s.compression_level and s.compression_level not in LEVELS.get(Algorithm(s.compression), ()):
        yield "compression level", s.compression_level, "a level of the algorithm"
    text = s.label.rstrip(b"\0")
    if b"\0" in text:
        yield "label", "text behind its end", "NUL bytes"
    elif not _is_utf8(text):
        yield "label", repr(text), "text in UTF-8"


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True
