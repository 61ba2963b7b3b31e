"""One wrong byte anywhere in a block that is in use is found, and the file that it hurts is named."""

import random

import pytest

from razortools.check.findings import Severity
from razortools.check.map_rules import map_pages
from razortools.check.problems import PASS_FAILED
from razortools.check.runner import check_quietly
from razortools.check.tree import kinds_mask
from razortools.engine.store.device import Device
from razortools.format.data import DataRecord
from razortools.format.items import owned_record
from razortools.format.keys import Kind, object_of
from tests.check.editing import flip, image_of, indexed
from tests.check.samples import Copy, healthy

PASS_CODES = {problem.code for problem in PASS_FAILED.values()}


def used_blocks(device: Device) -> list[int]:
    """Return the blocks that the space map marks as used, without the journal: at rest nothing in it means anything."""
    image = image_of(device)
    geometry = image.geometry
    found: list[int] = []
    for page in map_pages(image, image.superblock.spacemap_active, image.superblock.spacemap_top):
        bits = int.from_bytes(page.raw or b"", "little")
        first = page.index * geometry.spacemap.group_blocks
        count = min(geometry.spacemap.group_blocks, geometry.block_count - first)  # a page has bits for more than that
        found += [first + bit for bit in range(count) if bits >> bit & 1]
    journal = range(geometry.journal_start, geometry.journal_start + geometry.journal_blocks)
    return [block for block in found if block not in journal]


def owners(device: Device) -> dict[int, int]:
    """Return the inode that owns each block of file data."""
    index = indexed(device)
    found: dict[int, int] = {}
    for _, (keys, values) in index.leaves():
        for key, value in zip(keys, values, strict=True):
            record: DataRecord | None = owned_record(key, value) if key[9] in (Kind.DATA_RECORD, Kind.XATTR) else None
            for first, count in record.runs(index.image.block_bytes) if record else ():
                found |= {block: object_of(key) for block in range(first, first + count)}
    return found


@pytest.mark.parametrize(("copies", "block_bytes"), [(1, 4096), (2, 4096), (2, 16384)])
def test_a_flipped_bit_in_any_used_block_is_found(copies: int, block_bytes: int) -> None:
    base = healthy(copies, block_bytes)
    chance = random.Random(copies * block_bytes)
    owner_of = owners(base)
    used = used_blocks(base)
    assert len(used) > 30
    for block in used:
        for offset in (0, chance.randrange(block_bytes), block_bytes - 1):
            device = Copy(base)
            flip(device, block * block_bytes + offset, chance.randrange(8))
            report = check_quietly(device)
            where = f"block {block}, byte {offset}"
            assert report.exit_code == 4, where
            assert not {finding.code for finding in report.findings} & PASS_CODES, where
            if block in owner_of:
                hurt = [finding for finding in report.findings if finding.inode == owner_of[block]]
                assert hurt and all((finding.path or "").startswith("/") for finding in hurt), where
            elif copies == 2:
                errors = {finding.code for finding in report.findings if finding.severity is Severity.ERROR}
                assert errors <= {"E0101", "E0102", "E0508"}, where  # a superblock, the space map: no file is hurt


def test_a_lost_leaf_names_the_files_that_it_hurts() -> None:
    base = healthy(copies=1)
    whole = {phase.number: phase.checked for phase in check_quietly(base).phases}
    index = indexed(base)
    for leaf in range(index.leaf_count):
        device = Copy(base)
        flip(device, index.leaf_addresses[leaf] * 4096 + 2000)
        report = check_quietly(device)
        lost = [finding for finding in report.findings if finding.code == "E0302"]
        assert len(lost) == 1
        if index.leaf_kinds[leaf] & kinds_mask(Kind.DIRECTORY_ENTRY):
            continue  # inodes that were lost together with what named them are gone without a trace
        gone = whole[3] - report.phases[2].checked
        dangling = {finding.path for finding in report.findings if finding.code == "E0402"}
        assert len(dangling) >= gone


@pytest.mark.parametrize("seed", range(30))
def test_random_rubbish_never_stops_the_check(seed: int) -> None:
    chance = random.Random(seed)
    device = healthy(chance.choice([1, 2]))
    for _ in range(chance.randrange(1, 40)):
        length = chance.choice([1, 8, 512, 4096, 20_000])
        at = chance.randrange(device.size_bytes - length)
        device.write(at, chance.choice([bytes(length), b"\xff" * length, chance.randbytes(length)]))
    report = check_quietly(device)
    assert not {finding.code for finding in report.findings} & PASS_CODES


@pytest.mark.parametrize("seed", range(20))
def test_blocks_that_changed_places_are_found(seed: int) -> None:
    device = healthy()
    chance = random.Random(seed)
    used = [block for block in used_blocks(device) if block > 4]
    one, other = chance.sample(used, 2)
    raw, other_raw = (device.read(block * 4096, 4096) for block in (one, other))
    device.write(one * 4096, other_raw)
    device.write(other * 4096, raw)
    assert raw == other_raw or check_quietly(device).exit_code == 4
