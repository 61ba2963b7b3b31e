"""Late pages in razorfsck and razorfs-debug: what is found, what is mended, and that nothing loses them on the way."""

import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from razortools.check.repair import secondhand
from razortools.check.repair.waiting import waiting_blocks
from razortools.check.resize.resize import resize
from razortools.check.runner import Options, check_quietly
from razortools.check.stored_file import parts_of
from razortools.check.tree import TreeIndex, walk
from razortools.debug.sanitize import proof
from razortools.debug.sanitize.copy import sanitize
from razortools.engine import files, namespace
from razortools.engine.limits import Limits
from razortools.engine.store.device import Device, open_image
from razortools.engine.store.superblocks import newest
from razortools.engine.volume import Volume, open_volume
from razortools.errors import CorruptImage
from razortools.format.data import CHECKED_TWICE, CUT_OUT, LATE, DataRecord
from razortools.format.inode import ROOT_INODE, Inode
from razortools.format.keys import Kind, inode_key, offset_of, record_key, xattr_key
from razortools.format.late_pages import LatePages
from razortools.format.name import hash_name
from razortools.format.superblock import KNOWN_INCOMPAT, Incompat
from razortools.format.xattr import Xattr
from razortools.units import KIB, InodeNo
from tests.check.aged import compacted
from tests.check.editing import all_items, edit_item, editing, find_inode, flip, image_of, indexed, write_superblocks
from tests.check.samples import Clock, Copy, KeptDevice, late_paged, new_device
from tests.check.test_rebuild import destroy, rebuilt
from tests.check.test_repair import contents, repaired
from tests.debug.test_resize import shown
from tests.debug.tool import answer, text
from tests.workload import everything
from tests.workload import opened as opened_with

PATH, NUMBER = "/docs/many", 1  # the record of 8 KiB that has a late page twice
LIMITS = Limits(loose_from=0, late_share=1, record_cache_bytes=0)


def opened(image: Device) -> Any:
    return open_volume(image, clock=Clock(), limits=LIMITS)


def record_at(image: Device, number: int = NUMBER) -> tuple[bytes, DataRecord]:
    key = record_key(find_inode(image, PATH), number)
    return key, DataRecord.decode(dict(all_items(image, find_inode(image, PATH), Kind.DATA_RECORD))[key])


def codes(image: Device) -> list[str]:
    return [finding.code for finding in check_quietly(image, Options(threads=1)).findings if finding.severity]


def blocks_of(image: Device, record: DataRecord) -> list[int]:
    return [block for first, count in record.runs(4096) for block in range(first, first + count)]


def held(image: Device) -> bytes:
    return contents(opened(Copy(image)), PATH)


def test_an_image_with_late_pages_is_in_order() -> None:
    image = late_paged()
    late = record_at(image)[1].late_pages
    assert late is not None and list(late.places) == [1, 1]
    assert codes(image) == []
    assert held(image)[12 * KIB : 16 * KIB] == (b"and a later " * 400)[:4096]


@pytest.mark.parametrize("block", [0, 1, 2, 3])
def test_one_flipped_bit_in_the_record_or_in_a_late_page_is_mended(block: int) -> None:
    image = late_paged()
    before = held(image)
    flip(image, blocks_of(image, record_at(image)[1])[block] * 4096 + 77, 3)
    assert codes(image) == ["E0801"]
    assert contents(repaired(image), PATH) == before


def test_a_late_page_that_is_ruined_takes_its_record_along_and_no_more() -> None:
    image = late_paged()
    before = held(image)
    image.write(blocks_of(image, record_at(image)[1])[-1] * 4096, b"something else" * 9)
    after = repaired(image)
    ino = find_inode(after.store.device, PATH)
    with pytest.raises(CorruptImage):
        files.read(after, ino, 8 * KIB, 8 * KIB)
    assert files.read(after, ino, 0, 8 * KIB) == before[: 8 * KIB]
    assert files.read(after, ino, 16 * KIB, 1 << 20) == before[16 * KIB :]


def late_of(record: DataRecord) -> LatePages:
    late = record.late_pages
    assert late is not None
    return late


def with_late(record: DataRecord, **changes: Any) -> bytes:
    """Return what stands behind a record's fixed fields, with other late pages under a right checksum."""
    late = late_of(record)
    at = record.more.index(late.encode())
    return record.more[:at] + replace(late, **changes).encode() + record.more[at + late.encoded_bytes :]


@pytest.mark.parametrize(
    "changes",
    [
        {"base_bytes": 0}, {"base_bytes": 4096}, {"base_bytes": 1 << 30}, {"page_count": 0, "places": b""},
        {"page_count": 1, "places": b"\1"}, {"places": b"\1\2"}, {"places": b"\xff\1"},
    ],
    ids=str,
)  # fmt: skip
def test_late_pages_that_cannot_be_are_found_and_the_rest_of_the_file_is_kept(changes: dict[str, Any]) -> None:
    image = late_paged()
    before = held(image)
    key, record = record_at(image)
    edit_item(image, key, more=with_late(record, **changes))
    assert "E0504" in codes(image)
    after = repaired(image)
    ino = find_inode(after.store.device, PATH)
    assert files.read(after, ino, 0, 8 * KIB) == before[: 8 * KIB]
    assert files.read(after, ino, 16 * KIB, 1 << 20) == before[16 * KIB :]


@pytest.mark.parametrize(
    "changes",
    [{"flags": CHECKED_TWICE}, {"flags": LATE}, {"flags": 0}, {"flags": 0x80}, {"stored_bytes": 8192}, {"stored_bytes": 1}],
    ids=str,
)
def test_what_the_list_of_late_pages_tells_is_put_right(changes: dict[str, Any]) -> None:
    image = late_paged()
    before = held(image)
    key, _ = record_at(image)
    edit_item(image, key, **changes)
    assert codes(image)
    assert contents(repaired(image), PATH) == before


def test_an_attribute_has_no_late_pages() -> None:
    image = late_paged()
    key = xattr_key(find_inode(image, "/small"), hash_name(b"user.large", image_of(image).superblock.hash_seed))
    attribute = Xattr.decode(dict(all_items(image, find_inode(image, "/small"), Kind.XATTR))[key])
    outside = attribute.out_of_line
    assert outside is not None
    base_bytes = outside.stored_bytes - 4096
    wrong = replace(outside.checked_by(None), flags=LATE, more=LatePages(base_bytes, 1, bytes(1)).encode())
    edit_item(image, key, body=Xattr.outside(attribute.name, wrong).body)
    assert codes(image)
    repaired(image)


def test_late_pages_that_no_feature_announces_are_told() -> None:
    image = late_paged()
    write_superblocks(image, backups=True, incompat=KNOWN_INCOMPAT & ~int(Incompat.LATE_PAGES))
    assert codes(image) == ["E0704"]
    assert held(image) == contents(repaired(image), PATH)


def test_compaction_moves_late_pages_with_their_record() -> None:
    image = late_paged()
    before = everything(opened_with(Copy(image)))
    assert compacted(image).refused == ""
    assert everything(opened_with(Copy(image))) == before and codes(image) == []


def test_a_record_that_is_claimed_twice_is_copied_with_its_late_pages() -> None:
    image = late_paged()
    before = held(image)
    _, record = record_at(image)
    other = find_inode(image, "/docs/one")
    with editing(image) as store:
        store.tree.put(record_key(other, 0), record.encode())
    assert "E0502" in codes(image)
    after = repaired(image)
    assert contents(after, PATH) == before
    copied = dict(all_items(after.store.device, other, Kind.DATA_RECORD))[record_key(other, 0)]
    moved = record_at(after.store.device)[1], DataRecord.decode(copied)
    assert [late_of(one) for one in moved] == [late_of(record)] * 2 and not moved[0].lies_like(moved[1])


def test_of_a_record_that_got_late_pages_nothing_waits_to_be_free() -> None:
    image = late_paged()
    volume = opened(image)
    ino = find_inode(image, PATH)
    files.write(volume, ino, 40 * KIB, b"late" * 1024)
    volume.commit()
    waiting = waiting_blocks(image_of(image))
    assert waiting.freed == [] and len(waiting.placed) == 1


def long_file(pages: Callable[[Volume, InodeNo], None]) -> tuple[Copy, InodeNo, set[int]]:
    """Return (image, file, numbers of its records in a leaf that is lost). The leaf was written anew for what *pages* does."""
    image = Copy(new_device(8 << 20))
    with opened(image) as volume:
        number = namespace.create(volume, ROOT_INODE, b"long", 0o644, 0, 0)
        files.write(volume, number, 0, random.Random(5).randbytes(300 * 8 * KIB))
    with opened(image) as volume:
        pages(volume, number)
    visits = [visit for visit in walk(image_of(image), TreeIndex(image_of(image))) if visit.place.level == 0]
    lost = next(visit for visit in visits if record_key(number, 150) in visit.keys)
    destroy(image, tuple(place for place in (lost.place.pointer.address, lost.place.pointer.mirror) if place))
    return image, number, {offset_of(key) for key in lost.keys if key[:10] == record_key(number, 0)[:10]}


def flags_of(image: Device, number: InodeNo) -> dict[int, int]:
    return {offset_of(key): DataRecord.decode(value).flags for key, value in all_items(image, number, Kind.DATA_RECORD)}


@pytest.mark.parametrize("is_late", [False, True])
def test_old_records_that_may_lack_late_pages_do_not_pass_for_the_current_ones(
    is_late: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What they name is still theirs, and verifies: nothing tells but that the file takes more blocks than are found."""

    def change(volume: Volume, number: InodeNo) -> None:
        if is_late:
            files.write(volume, number, 150 * 8 * KIB, b"late" * 1024)
        else:
            files.write(volume, number, 150 * 8 * KIB, random.Random(6).randbytes(8 * KIB))

    image, number, lost = long_file(change)
    after, _ = rebuilt(Copy(image))
    cut_out = {record for record, flags in flags_of(after, number).items() if flags == CUT_OUT}
    assert cut_out == (lost if is_late else {150})
    if is_late:
        monkeypatch.setattr(secondhand._Judge, "_lacks_blocks", lambda judge, number, blocks: False)
        after, _ = rebuilt(Copy(image))
        assert CUT_OUT not in flags_of(after, number).values(), "and the late page would be missing without a word"


def test_a_sanitized_copy_has_late_pages_of_zeros_and_razorfsck_finds_the_same() -> None:
    image = late_paged()
    copy = KeptDevice(image.size_bytes)
    names = sanitize(image, copy, b"secret").names
    assert proof.difference(proof.judged(image), proof.judged(copy), names) == ""
    record = DataRecord.decode(dict(all_items(copy, find_inode(image, PATH), Kind.DATA_RECORD))[record_at(image)[0]])
    assert late_of(record) == late_of(record_at(image)[1])
    assert copy.read(blocks_of(copy, record)[-1] * 4096, 4096) == bytes(4096)


@pytest.mark.parametrize("size_bytes", [1 << 20, 3 << 20])
def test_resizing_keeps_late_pages(size_bytes: int) -> None:
    image = late_paged()
    before = everything(opened_with(Copy(image)))
    done = resize(image, size_bytes, lambda overlay: shown(image, overlay), 1)
    image.resize(done.bytes_after)
    assert everything(opened_with(Copy(image))) == before and codes(image) == []


def test_razorfs_debug_shows_late_pages_and_stores_records_anew_to_switch_them_off(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, path = late_paged(), tmp_path / "image"
    path.write_bytes(source.read(0, source.size_bytes))
    assert [piece["late_pages"] for piece in answer(capsys, path, f"records {PATH}")["pieces"]][:5] == [0, 2, 0, 0, 1]
    assert "record, 2 late pages" in text(capsys, path, f"records {PATH}")
    assert answer(capsys, path, "feature late_pages off", "-w")["records"] == 2
    assert not any(piece["late_pages"] for piece in answer(capsys, path, f"records {PATH}")["pieces"])
    with open_image(path, writable=False) as after:
        assert codes(after) == [] and held(after) == held(source)
        assert not newest(after).incompat & Incompat.LATE_PAGES


def test_salvage_reads_late_pages() -> None:
    image = late_paged()
    tree = indexed(image)
    number = find_inode(image, PATH)
    inode = Inode.decode(tree.get(inode_key(number)) or b"")
    assert b"".join(part.data or b"" for part in parts_of(tree, number, inode)) == held(image)
