"""A flipped bit in a record is turned back, wherever it is; nothing else is ever taken for one: not by repair, not by salvage."""

import random
import zlib
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path

import crc32c
import pytest
from hypothesis import given
from hypothesis import strategies as st

from razortools.check.bitflip import find_flipped_bit, is_certain, turned
from razortools.check.mended_record import mended
from razortools.check.repair.repair import Repaired, Wishes, repair
from razortools.check.runner import check_quietly
from razortools.check.salvage import salvage
from razortools.check.salvage_report import SalvageReport
from razortools.check.steps import finished
from razortools.engine import files, namespace, xattrs
from razortools.engine.create import ALL_FEATURES, Features
from razortools.engine.store.device import Device
from razortools.format.compression import Algorithm, pack
from razortools.format.data import CHECKED_TWICE, CUT_OUT, DataRecord, SecondChecksum, blocks_crc32, make_record
from razortools.format.inode import ROOT_INODE
from razortools.format.keys import Kind
from razortools.format.superblock import Incompat
from razortools.format.xattr import Xattr
from razortools.units import KIB, MIB, BlockNo
from tests.check.deceiving import looking_like_a_flip
from tests.check.editing import all_items, edit_item, find_inode, first_item, flip
from tests.check.samples import Copy, healthy, new_device, opened

STORED = (Algorithm.NONE, Algorithm.ZSTD, Algorithm.LZ4, Algorithm.ZLIB)
OLDER = Features(ALL_FEATURES & ~Incompat.SECOND_CHECKSUM)


def raw_of(length: int, seed: int = 0) -> bytes:
    """Return bytes of which half compress."""
    chance = random.Random(seed)
    noise = chance.randbytes(length)
    return b"".join(noise[at : at + 64] + bytes(min(64, max(length - at - 64, 0))) for at in range(0, length, 128))[:length]


@cache
def stored(algorithm: Algorithm, length: int, *, twice: bool = True) -> tuple[DataRecord, bytes]:
    """Return a record of *length* bytes and its blocks."""
    packed = pack(raw_of(length), algorithm)
    return make_record([(BlockNo(9), 1)], packed, length, algorithm, 1, 4096, twice=twice)


# The proof


def test_the_two_checksums_have_no_common_factor() -> None:
    """So both together are one CRC of 64 bits; with a common factor they would be less."""
    one, other = 1 << 32 | 0x1EDC6F41, 1 << 32 | 0x04C11DB7
    assert crc32c.crc32c(b"\0\0\0\x80") ^ crc32c.crc32c(bytes(4)) == 0x82F63B78  # x**32, bits in reverse: the polynomial itself
    assert blocks_crc32(b"\0\0\0\x80") ^ blocks_crc32(bytes(4)) == 0xEDB88320
    while other:
        while one.bit_length() >= other.bit_length():
            one ^= other << (one.bit_length() - other.bit_length())
        one, other = other, one
    assert one == 1


@given(data=st.binary(max_size=20_000))
def test_the_second_checksum_is_the_one_that_every_zlib_computes(data: bytes) -> None:
    assert blocks_crc32(data) == blocks_crc32(memoryview(data)) == zlib.crc32(data)


def test_the_checksum_alone_proves_no_block_and_both_together_prove_the_largest_record() -> None:
    assert not is_certain(8 * 4096)
    assert is_certain(8 * 2 * MIB, 32)
    assert not is_certain(8 * 2 * MIB, 8)


# One record


@pytest.mark.parametrize("length", [1, 100, 5000, 128 * KIB, MIB])
@pytest.mark.parametrize("algorithm", STORED)
def test_any_bit_of_any_record_is_turned_back(algorithm: Algorithm, length: int) -> None:
    record, blocks = stored(algorithm, length)
    chance = random.Random(length)
    last = 8 * len(blocks) - 1
    for bit in (0, last, chance.randrange(last), chance.randrange(8 * record.stored_bytes)):
        found = mended(record, turned(blocks, bit))
        assert found is not None and (found.bit, found.blocks, found.raw) == (bit, blocks, raw_of(length))


@pytest.mark.parametrize("twice", [True, False])
@pytest.mark.parametrize("algorithm", STORED)
def test_rubbish_is_not_mended_though_it_looks_like_a_flipped_bit(algorithm: Algorithm, *, twice: bool) -> None:
    record, blocks = stored(algorithm, 32 * KIB, twice=twice)
    chance = random.Random(int(algorithm))
    for _ in range(12):
        length = chance.choice([5, 64, 512, 4096])
        at, bit = chance.randrange(record.stored_bytes - length), chance.randrange(8 * len(blocks))
        damaged = looking_like_a_flip(blocks, bit, at, length, chance)
        assert find_flipped_bit(damaged, record.crc32c) == bit  # the one checksum is deceived
        assert mended(record, damaged) is None


@given(algorithm=st.sampled_from(STORED), twice=st.booleans(), count=st.integers(2, 5), chance=st.randoms(use_true_random=False))
def test_several_flipped_bits_are_not_mended(algorithm: Algorithm, twice: bool, count: int, chance: random.Random) -> None:
    record, blocks = stored(algorithm, 5000, twice=twice)
    damaged = blocks
    for bit in chance.sample(range(8 * len(blocks)), count):
        damaged = turned(damaged, bit)
    assert mended(record, damaged) is None


@pytest.mark.parametrize("algorithm", STORED)
def test_without_a_second_witness_nothing_is_certain(algorithm: Algorithm) -> None:
    """In images of older versions only zlib's own checksum is one."""
    record, blocks = stored(algorithm, 5000, twice=False)
    assert (mended(record, turned(blocks, 77)) is not None) == (algorithm is Algorithm.ZLIB)


def test_a_second_checksum_that_contradicts_lets_nothing_be_mended() -> None:
    record, blocks = stored(Algorithm.NONE, 5000)
    assert mended(record.checked_by(1), turned(blocks, 77)) is None


# The record's item


@given(more=st.lists(st.tuples(st.integers(1, 1 << 40), st.integers(1, 9)), max_size=3), twice=st.booleans())
def test_runs_and_second_checksum_stand_side_by_side(more: list[tuple[int, int]], twice: bool) -> None:
    runs = [(BlockNo(7), 2), *((BlockNo(first), count) for first, count in more)]
    data = bytes(range(256)) * 16 * sum(count for _, count in runs)
    record, padded = make_record(runs, data, len(data), 0, 1, 4096, twice=twice)
    again = DataRecord.decode(record.encode())
    assert again == record and again.runs(4096) == runs and padded == data
    assert again.second_checksum == (zlib.crc32(data) if twice else None)
    assert again.checked_by(None).checked_by(again.second_checksum) == record
    assert again.lies_like(again.checked_by(5)) and not again.lies_like(replace(again, address=8))


# Whole images


@cache
def _image(*, older: bool) -> Device:
    """Return an image with a file for each algorithm and one that is a single record of 1 MiB."""
    device = new_device(20 * MIB, record_bytes=MIB, **({"features": OLDER} if older else {}))
    with opened(device) as volume:
        for algorithm in STORED:
            ino = namespace.create(volume, ROOT_INODE, algorithm.name.encode(), 0o644, 0, 0)
            xattrs.set(volume, ino, b"user.razorfs.compression", algorithm.name.lower().encode())
            files.write(volume, ino, 0, raw_of(60_000, int(algorithm)))
        ino = namespace.create(volume, ROOT_INODE, b"MIB", 0o644, 0, 0)
        files.write(volume, ino, 0, random.Random(5).randbytes(MIB))
    return device


def image(*, older: bool = False) -> Copy:
    return Copy(_image(older=older))


def record_of(device: Device, name: str) -> tuple[bytes, DataRecord]:
    key, value = first_item(device, find_inode(device, f"/{name}"), Kind.DATA_RECORD)
    return key, DataRecord.decode(value)


def repaired(device: Device) -> Repaired:
    done: Repaired = finished(repair(device))
    assert done.refused == "" and done.after.clean
    assert check_quietly(done.overlay).clean
    return done


def salvaged(device: Device, into: Path) -> SalvageReport:
    report: SalvageReport = finished(salvage(device, str(into)))
    return report


NAMES = [*(algorithm.name for algorithm in STORED), "MIB"]


@pytest.mark.parametrize("name", NAMES)
def test_every_record_of_a_new_image_has_its_second_checksum(name: str) -> None:
    record = record_of(image(), name)[1]
    blocks = image().read(record.address * 4096, record.block_count(4096) * 4096)
    assert record.second_checksum == zlib.crc32(blocks)
    assert name == "MIB" or record.algorithm == Algorithm[name]
    assert record_of(image(older=True), name)[1].flags == 0


@pytest.mark.parametrize("name", NAMES)
def test_a_flipped_bit_in_a_record_is_repaired_bit_for_bit_and_salvaged(name: str, tmp_path: Path) -> None:
    device, chance = image(), random.Random(name)
    record = record_of(device, name)[1]
    at, length = record.address * 4096, record.block_count(4096) * 4096
    flip(device, at + chance.randrange(length), chance.randrange(8))
    done = repaired(device)
    assert done.loss is not None and done.loss.mended == [f"/{name}"]
    assert done.overlay.read(at, length) == image().read(at, length)
    assert not record_of(done.overlay, name)[1].flags & CUT_OUT
    assert salvaged(device, tmp_path).mended_records == 1
    whole = opened(image())
    assert (tmp_path / name).read_bytes() == files.read(whole, namespace.lookup(whole, ROOT_INODE, name.encode()), 0, 2 * MIB)


def deceived(*, older: bool) -> Iterator[tuple[str, Device]]:
    """Yield images in which a record holds rubbish that CRC32C takes for one flipped bit."""
    for name in NAMES:
        device, chance = image(older=older), random.Random(name)
        record = record_of(device, name)[1]
        at, length = record.address * 4096, record.block_count(4096) * 4096
        blocks = device.read(at, length)
        where = record.stored_bytes // 2
        device.write(at, looking_like_a_flip(blocks, chance.randrange(8 * length), where, 16, chance))
        yield name, device


@pytest.mark.parametrize("older", [False, True])
def test_rubbish_that_looks_like_a_flipped_bit_is_cut_out_and_not_salvaged(tmp_path: Path, *, older: bool) -> None:
    for name, device in deceived(older=older):
        done = repaired(device)
        assert done.loss is not None and done.loss.mended == [] and [one.path for one in done.loss.truncated] == [f"/{name}"]
        assert record_of(done.overlay, name)[1].flags & CUT_OUT
        report = salvaged(device, tmp_path / name)
        assert report.mended_records == 0 and [one.path for one in report.unreadable] == [f"/{name}"]


@pytest.mark.parametrize("path", ["/NONE", "/ZSTD"])
def test_a_wrong_second_checksum_hurts_no_file_and_is_computed_anew(path: str) -> None:
    device = image()
    key, record = record_of(device, path[1:])
    edit_item(device, key, more=SecondChecksum((record.second_checksum or 0) ^ 4).encode())
    done = repaired(device)
    assert [(finding.code, finding.path) for finding in done.before.findings] == [("E0805", path)]
    assert done.loss is not None and done.loss.is_none
    assert record_of(done.overlay, path[1:])[1] == record


def test_a_wrong_second_checksum_of_a_large_attribute_is_mended_by_preening() -> None:
    device = healthy()
    items = all_items(device, find_inode(device, "/small"), Kind.XATTR)
    key, attribute = next((key, item) for key, value in items if (item := Xattr.decode(value)).out_of_line is not None)
    large = attribute.out_of_line
    assert large is not None and large.second_checksum is not None
    edit_item(device, key, body=Xattr.outside(attribute.name, large.checked_by(0)).body)
    done: Repaired = finished(repair(device, Wishes(careful=True)))
    assert [finding.code for finding in done.before.findings] == ["E0805"] and done.after.clean


def test_an_older_image_stays_one_that_older_versions_can_open() -> None:
    device = image(older=True)
    with opened(device) as volume:
        ino = namespace.lookup(volume, ROOT_INODE, b"MIB")
        files.write(volume, ino, 100, b"changed")
        volume.commit()
    assert record_of(device, "MIB")[1].flags & CHECKED_TWICE == 0
    assert check_quietly(device).clean
