"""Every field of every structure, changed with right checksums: the check never stops, and what it lets pass is harmless."""

import random
from collections.abc import Callable
from dataclasses import fields, is_dataclass

import crc32c
import pytest

from razortools.check.problems import PASS_FAILED
from razortools.check.report import Report
from razortools.check.runner import check_quietly
from razortools.engine.store.device import Device
from razortools.format.data import Patch
from razortools.format.items import ITEMS
from razortools.format.journal import JournalEntry
from razortools.format.keys import Kind, patch_key
from razortools.format.node import NodeHeader
from razortools.format.record import Field
from razortools.format.superblock import SUPERBLOCK_BYTES, Superblock
from tests.check.editing import editing, find_inode, image_of, indexed, journal_entries, rewrite_entry, rewrite_node
from tests.check.samples import Copy, healthy, unclean

PASS_CODES = {problem.code for problem in PASS_FAILED.values()}

# Values that could have been written so: another owner, another time, a number that only has to be large enough.
HARMLESS = {
    "Inode": {
        "mode", "uid", "gid", "size", "atime_ns", "mtime_ns", "ctime_ns", "btime_ns", "generation", "next_link_no", "record_log2",
        "compression", "compression_level", "rdev",
    },
    "Xattr": {"body"},
    "InlineData": {"stored"},
    "Patch": {"data"},
    "DataRecord": {"birth"},
    "Counters": {"next_inode", "next_name_id"},
}  # fmt: skip
JOURNAL_HARMLESS = {"inode", "operation"}


def verbs(raw: bytes) -> list[bytes]:
    """Return the eight ways to change a field."""
    size, number = len(raw), int.from_bytes(raw, "little")
    bits = [number ^ 1, number ^ 1 << 4 * size, number ^ 1 << 8 * size - 1, number + 1, number - 1]
    changed = [(bit % (1 << 8 * size)).to_bytes(size, "little") for bit in bits]
    return [bytes(size), b"\xff" * size, *changed, random.Random(raw).randbytes(size)]


def judged(device: Device) -> Report:
    report = check_quietly(device)
    assert not {finding.code for finding in report.findings} & PASS_CODES, [finding.message for finding in report.findings]
    return report


@pytest.mark.parametrize("kind", sorted(set(ITEMS) - {Kind.ORPHAN}))
def test_item_fields(kind: int) -> None:
    base = healthy(copies=1)
    with editing(base) as store:  # which no clean image has
        store.tree.put(patch_key(find_inode(base, "/docs/many"), 8192), Patch(0, b"changed").encode())
    items = [item for _, leaf in indexed(base).leaves() for item in zip(*leaf, strict=True) if item[0][9] == kind]
    key, value = random.Random(kind).choice(items)
    structure = ITEMS[kind]
    passed = set()
    for field in structure.FIELDS:
        size = field.size_bytes or len(value) - field.offset
        for new in verbs(value[field.offset : field.offset + size]) if size else ():
            changed = value[: field.offset] + new + value[field.offset + size :]
            device = Copy(base)
            with editing(device) as store:
                store.tree.put(key, changed)
            if judged(device).exit_code == 0 and changed != value:
                passed.add(field.name)
    assert passed <= HARMLESS.get(structure.__name__, set())


@pytest.mark.parametrize("field", Superblock.FIELDS[2:], ids=lambda field: field.name)
def test_superblock_fields(field: Field) -> None:
    """One copy differs from its backups in every case, so every change is noticed."""
    base = healthy()
    offset = image_of(base).superblock.slot * 4096
    raw = base.read(offset, SUPERBLOCK_BYTES)
    end = field.offset + field.size_bytes
    for new in verbs(raw[field.offset : end]):
        changed = bytearray(raw[: field.offset] + new + raw[end:])
        changed[8:12] = crc32c.crc32c(bytes(changed[12:])).to_bytes(4, "little")
        device = Copy(base)
        device.write(offset, bytes(changed))
        assert (judged(device).exit_code == 0) == (bytes(changed) == raw)


@pytest.mark.parametrize("level", [0, 1])
@pytest.mark.parametrize("field", NodeHeader.FIELDS[2:], ids=lambda field: field.name)
def test_node_fields(field: Field, level: int) -> None:
    end = field.offset + field.size_bytes
    for number in range(8):
        device = healthy()
        before: list[bytes] = []

        def edit(raw: bytearray, number: int = number, before: list[bytes] = before) -> None:
            before.append(bytes(raw[field.offset : end]))
            raw[field.offset : end] = verbs(before[0])[number]

        rewrite_node(device, lambda at, raw: at == level, edit)
        assert (judged(device).exit_code == 0) == (verbs(before[0])[number] == before[0])


@pytest.mark.parametrize("name", [field.name for field in fields(JournalEntry) if is_dataclass(JournalEntry)])
def test_journal_fields(name: str) -> None:
    size = next(field.size_bytes for field in JournalEntry.FIELDS if field.name == name)
    as_value: Callable[[bytes], object] = bytes if name == "key" else lambda raw: int.from_bytes(raw, "little")
    for number in (0, 3, -1):
        before = getattr(journal_entries(image_of(unclean(2)))[number].head, name)
        raw = before if isinstance(before, bytes) else before.to_bytes(size, "little")
        for new in verbs(raw):
            device = unclean(2)
            rewrite_entry(device, number, **{name: as_value(new)})  # type: ignore[arg-type]
            report = judged(device)
            if new != raw and name not in JOURNAL_HARMLESS:
                assert {finding.code for finding in report.findings} - {"E0201"}
