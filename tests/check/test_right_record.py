"""A data record with one wrong bit costs nothing while its data are whole; nothing else is taken for that."""

import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from razortools.check.bitflip import turned
from razortools.check.right_record import right_record
from razortools.check.stored_file import read_record
from razortools.engine.store.device import Device
from razortools.format.data import CUT_OUT, DataRecord, SecondChecksum
from razortools.format.keys import Kind
from razortools.format.xattr import Xattr
from razortools.units import BlockNo
from tests.check.editing import all_items, editing, find_inode, image_of
from tests.check.samples import Copy, healthy, late_paged, opened
from tests.check.test_mended_record import image as of_all_algorithms
from tests.check.test_misfiled import repaired
from tests.check.test_salvage import in_image, on_host, salvaged, without_refused
from tests.workload import Seen, everything

PATHS = ("/docs/many", "/docs/one", "/docs/deep/by zstd:3", "/docs/deep/by lz4", "/docs/deep/by zlib:6", "/docs/deep/by none")
FIELDS = ("address", "stored_bytes", "raw_bytes", "crc32c", "algorithm", "flags")  # not the generation: nothing hangs on it
BITS_OF_A_FIELD = 8  # that are turned, chosen by a seed
Flip = tuple[str, DataRecord]


def flips(record: DataRecord, seed: int) -> list[Flip]:
    """Return (field, the record with one bit of it turned)."""
    fixed = record.encode()[: DataRecord.FIXED_BYTES]
    found: dict[str, list[Flip]] = {name: [] for name in (*FIELDS, "birth")}
    for bit in range(8 * DataRecord.FIXED_BYTES):
        wrong = DataRecord.decode(turned(fixed, bit) + record.more)
        (field,) = (name for name in found if getattr(wrong, name) != getattr(record, name))
        if not (wrong.flags ^ record.flags) & CUT_OUT:
            found[field].append((field, wrong))
    chance = random.Random(seed)
    return [flip for name in FIELDS for flip in chance.sample(found[name], min(BITS_OF_A_FIELD, len(found[name])))]


def put(device: Device, key: bytes, value: bytes) -> None:
    with editing(device) as store:
        store.tree.put(key, value)


def seen(device: Device) -> dict[bytes, Seen]:
    """Return all that can be seen of the files. Where their data lie may have changed: who shares blocks gets others."""
    with opened(Copy(device)) as volume:
        return everything(volume)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("start", [healthy, late_paged])
def test_regression_a_wrong_bit_of_a_record_costs_nothing(path: str, start: Callable[[], Copy]) -> None:
    """The record was cut out, although all its data were there."""
    device = start()
    expected = seen(device)
    for seed, (key, value) in enumerate(all_items(device, find_inode(device, path), Kind.DATA_RECORD)[:2]):
        for flip in flips(DataRecord.decode(value), seed):
            hurt = Copy(device)
            put(hurt, key, flip[1].encode())
            assert seen(repaired(hurt).overlay) == expected, flip


def in_single_blocks() -> Copy:
    """Return the image in which the blocks of a record of /docs/many are named one by one."""
    device = healthy()
    key, value = all_items(device, find_inode(device, "/docs/many"), Kind.DATA_RECORD)[0]
    record = DataRecord.decode(value)
    first, count = record.runs(image_of(device).block_bytes)[0]
    assert count > 1
    put(device, key, record.placed([(BlockNo(first + number), 1) for number in range(count)]).encode())
    return device


@pytest.mark.parametrize("start", [late_paged, in_single_blocks])
def test_regression_a_wrong_bit_behind_the_fields_of_a_record_costs_nothing(start: Callable[[], Copy]) -> None:
    """Lists of late pages and of runs."""
    device = start()
    expected = seen(device)
    items = all_items(device, find_inode(device, "/docs/many"), Kind.DATA_RECORD)
    key, value = next(item for item in items if len(item[1]) > DataRecord.FIXED_BYTES + SecondChecksum.FIXED_BYTES)
    bits = range(8 * DataRecord.FIXED_BYTES, 8 * len(value))
    for bit in random.Random(7).sample(bits, 60):
        hurt = Copy(device)
        put(hurt, key, turned(value, bit))
        assert seen(repaired(hurt).overlay) == expected, bit


@pytest.mark.parametrize("path", ["/NONE", "/ZSTD", "/LZ4", "/ZLIB"])
def test_nor_does_it_where_records_have_no_second_checksum(path: str) -> None:
    device = of_all_algorithms(older=True)
    expected = seen(device)
    key, value = all_items(device, find_inode(device, path), Kind.DATA_RECORD)[0]
    for flip in flips(DataRecord.decode(value), 3):
        hurt = Copy(device)
        put(hurt, key, flip[1].encode())
        assert seen(repaired(hurt).overlay) == expected, flip


def test_nor_does_one_of_a_large_attribute() -> None:
    device = healthy()
    expected = seen(device)
    key, attribute, record = next(
        (key, attribute, record)
        for key, value in all_items(device, find_inode(device, "/small"), Kind.XATTR)
        if (record := (attribute := Xattr.decode(value)).out_of_line) is not None
    )
    for flip in flips(record, 4):
        if flip[0] in ("stored_bytes", "raw_bytes"):  # nothing tells how many zeros at its end are padding
            continue
        hurt = Copy(device)
        put(hurt, key, Xattr.outside(attribute.name, flip[1]).encode())
        assert seen(repaired(hurt).overlay) == expected, flip


@pytest.mark.parametrize("path", ["/docs/many", "/docs/deep/by zlib:6"])
def test_salvage_copies_what_such_a_record_holds(tmp_path: Path, path: str) -> None:
    device = healthy()
    key, value = all_items(device, find_inode(device, path), Kind.DATA_RECORD)[0]
    for number, flip in enumerate(flips(DataRecord.decode(value), 5)[::3]):
        hurt = Copy(device)
        put(hurt, key, flip[1].encode())
        out = tmp_path / str(number)
        report = salvaged(hurt, out)
        assert on_host(out) == without_refused(in_image(healthy()), report), flip
        assert report.unreadable == [], flip


@pytest.mark.parametrize("path", PATHS)
def test_other_damage_is_not_taken_for_a_wrong_bit(path: str) -> None:
    """Data that were changed, and records with two wrong bits. What is found has just the contents that the record had."""
    device = healthy()
    key, value = all_items(device, find_inode(device, path), Kind.DATA_RECORD)[0]
    record, chance = DataRecord.decode(value), random.Random(6)
    block_bytes = image_of(device).block_bytes
    raw, cases = read_record(image_of(device), key, record, None)[0], 0

    def judge(hurt: Device, wrong: DataRecord) -> None:
        found = right_record(image_of(hurt), key, wrong, None, elsewhere=True)
        assert found is None or found[1] == raw

    for _ in range(30):
        hurt = Copy(device)
        at = record.address * block_bytes + chance.randrange(record.stored_bytes - 8)
        hurt.write(at, chance.randbytes(chance.choice((1, 2, 8))))
        judge(hurt, record)
    for _ in range(100):
        field = chance.choice(("crc32c", "raw_bytes", "address"))
        one, other = chance.sample(range(12), 2)
        wrong = replace(record, **{field: getattr(record, field) ^ 1 << one ^ 1 << other})
        cases += right_record(image_of(device), key, wrong, None, elsewhere=True) is None
        judge(device, wrong)
    assert cases > 80


def test_a_wrong_checksum_without_a_witness_is_not_believed() -> None:
    """The last four bytes are data, and there is no second checksum: one of their bits does the same to the CRC32C."""
    device = of_all_algorithms(older=True)
    key, value = all_items(device, find_inode(device, "/MIB"), Kind.DATA_RECORD)[0]
    record = DataRecord.decode(value)
    assert record.stored_bytes % image_of(device).block_bytes == 0 and record.second_checksum is None
    for bit in range(32):
        wrong = replace(record, crc32c=record.crc32c ^ 1 << bit)
        assert right_record(image_of(device), key, wrong, None, elsewhere=True) is None
