"""What is copied out of an image that is damaged: everything that can be read, and not a byte is written to the image."""

import json
import os
import random
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from razortools.check.findings import Progress
from razortools.check.salvage import salvage
from razortools.check.salvage_report import SalvageReport
from razortools.check.steps import followed
from razortools.engine import files, namespace
from razortools.engine.store.device import Device
from razortools.errors import NotAnImage, UnsupportedFormat, UsageError
from razortools.format.data import DataRecord
from razortools.format.directory import DirectoryEntry
from razortools.format.inode import ROOT_INODE, Orphan, OrphanReason
from razortools.format.keys import Kind, inode_key, name_key, orphan_key
from razortools.format.name import Name
from razortools.units import KIB, InodeNo, NameId
from tests.check.damages import DAMAGES
from tests.check.editing import all_items, edit_inode, editing, find_inode, first_item, flip, image_of
from tests.check.running import stored
from tests.check.samples import Copy, KeptDevice, ambiguous, healthy, new_device, opened, unclean
from tests.check.test_mended_name import flip_name
from tests.check.test_rebuild import REFUSED, contents, destroy, destroy_superblocks, nodes_by_level, without_room
from tests.workload import Seen


class Sealed(Copy):
    """A device that refuses to be written to."""

    def write(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        raise AssertionError("a salvage wrote to the image")

    flush = None  # type: ignore[assignment]


def salvaged(device: Device, into: Path) -> SalvageReport:
    def judge(step: Progress) -> None:
        assert 0 <= step.done <= step.total

    return followed(salvage(Sealed(device), str(into)), judge)


def on_host(top: Path) -> dict[bytes, Seen]:
    """Return what lies below *top* as tests/workload.py sees a volume. Looking at a directory or link changes its access time."""
    found: dict[bytes, Seen] = {}
    paths = [os.fsencode(top)]
    for at, directories, names in os.walk(os.fsencode(top)):
        paths += [os.path.join(at, name) for name in (*directories, *names)]
    for path, status in [(path, os.lstat(path)) for path in paths]:  # reading one name of a file changes the access time of all
        data = b""
        if stat.S_ISREG(status.st_mode):
            data = Path(os.fsdecode(path)).read_bytes()
        elif stat.S_ISLNK(status.st_mode):
            data = os.readlink(path)
        read_at = status.st_atime_ns if stat.S_ISREG(status.st_mode) else 0
        attributes = (status.st_mode, status.st_uid, status.st_gid, status.st_mtime_ns, read_at, status.st_rdev)
        names = tuple(sorted(os.fsencode(name) for name in os.listxattr(path, follow_symlinks=False)))
        pairs = tuple((name, os.getxattr(path, name, follow_symlinks=False)) for name in names)
        found[b"/" + os.path.relpath(path, os.fsencode(top)).lstrip(b".")] = Seen(0, attributes, data, pairs)
    return found


def in_image(device: Device) -> dict[bytes, Seen]:
    """Return what the image holds, in the same shape."""
    found = {}
    for path, seen in contents(device).items():
        mode, uid, gid, _, _, atime_ns, mtime_ns, _, _, rdev = seen.attributes
        found[path] = Seen(0, (mode, uid, gid, mtime_ns, atime_ns if stat.S_ISREG(mode) else 0, rdev), seen.data, seen.xattrs)
    return found


def without_refused(files: dict[bytes, Seen], report: SalvageReport) -> dict[bytes, Seen]:
    """Return the files without the extended attributes that this host refuses: ext4 has no room for large ones."""
    refused = {os.fsencode(path.rpartition("(")[2][:-1]) for path, reason in report.not_copied if "host refuses" in reason}
    assert refused <= {b"user.large"}
    kept = {path: tuple(pair for pair in seen.xattrs if pair[0] not in refused) for path, seen in files.items()}
    return {path: replace(seen, xattrs=kept[path]) for path, seen in files.items()}


@pytest.mark.parametrize(("copies", "block_bytes"), [(2, 4096), (1, 16384)])
def test_a_healthy_image_is_copied_out_whole(tmp_path: Path, copies: int, block_bytes: int) -> None:
    device = healthy(copies, block_bytes)
    report = salvaged(device, tmp_path / "out")
    assert on_host(tmp_path / "out") == without_refused(in_image(device), report)
    assert report.unreadable == [] and report.remarks == []
    assert (tmp_path / "out" / "small").stat().st_ino == (tmp_path / "out" / "docs" / "small too").stat().st_ino
    assert report.hard_links == 1 and report.directories == 4


def test_an_image_whose_root_and_superblocks_are_lost_is_copied_out_whole(tmp_path: Path) -> None:
    device = unclean(3)
    expected = in_image(device)
    nodes = nodes_by_level(device)
    destroy(device, nodes[max(nodes)][0])
    destroy_superblocks(device, backups=False)
    report = salvaged(device, tmp_path / "out")
    assert on_host(tmp_path / "out") == without_refused(expected, report)
    assert report.unreadable == [] and report.found_again == 0


def test_what_is_damaged_in_a_file_is_told_and_the_rest_is_kept(tmp_path: Path) -> None:
    device = healthy()
    image, number = image_of(device), find_inode(device, "/docs/many")
    _, value = all_items(device, number, Kind.DATA_RECORD)[3]
    for bit in range(3):
        flip(device, DataRecord.decode(value).address * image.block_bytes + 100 * bit, bit)
    expected = in_image(healthy())
    report = salvaged(device, tmp_path / "out")
    assert [(part.path, part.first, part.behind) for part in report.unreadable] == [("/docs/many", 3 * 8192, 4 * 8192)]
    many = expected[b"/docs/many"]
    expected[b"/docs/many"] = replace(many, data=many.data[: 3 * 8192] + bytes(8192) + many.data[4 * 8192 :])
    assert on_host(tmp_path / "out") == without_refused(expected, report)
    assert report.as_json()["unreadable"][0]["last_byte"] == 4 * 8192 - 1


def test_a_flipped_bit_in_the_data_is_turned_back(tmp_path: Path) -> None:
    device = healthy()
    expected = in_image(device)
    for path in ("/docs/many", "/docs/deep/by zstd:3"):
        _, value = all_items(device, find_inode(device, path), Kind.DATA_RECORD)[0]
        flip(device, DataRecord.decode(value).address * 4096 + 77, 5)
    report = salvaged(device, tmp_path / "out")
    assert on_host(tmp_path / "out") == without_refused(expected, report)
    assert report.mended_records == 2 and report.unreadable == []


@pytest.mark.parametrize("path", ["/docs/one", "/docs", "/crowd"])
def test_what_no_name_leads_to_is_found_under_its_last_name(tmp_path: Path, path: str) -> None:
    device = healthy()
    whole = in_image(device)
    number = find_inode(device, path)
    parent = find_inode(device, os.path.dirname(path))
    with editing(device) as store:
        for key, value in all_items(device, parent, Kind.DIRECTORY_ENTRY):
            if int.from_bytes(value[:8], "little") == number:
                store.tree.delete(key)
    report = salvaged(device, tmp_path / "out")
    top = tmp_path / "out" / "lost+found" / path.strip("/").replace("/", "+")
    found = on_host(tmp_path / "out")
    moved = b"/" + os.fsencode(str(top.relative_to(tmp_path / "out")))
    for name, seen in without_refused(whole, report).items():
        lost = name == os.fsencode(path) or name.startswith(os.fsencode(path) + b"/")
        where = moved + name[len(path) :] if lost else name
        if stat.S_ISDIR(seen.attributes[0]):
            assert stat.S_ISDIR(found[where].attributes[0])
        else:
            assert found[where].data == seen.data
    assert report.found_again == 1


def test_a_lost_inode_is_told(tmp_path: Path) -> None:
    device = healthy()
    with editing(device) as store:
        store.tree.delete(inode_key(find_inode(device, "/docs/one")))
    report = salvaged(device, tmp_path / "out")
    assert [path for path, reason in report.not_copied if "inode" in reason] == ["/docs/one"]


def test_a_lost_root_directory_still_has_its_entries(tmp_path: Path) -> None:
    device = healthy()
    expected = in_image(device)
    with editing(device) as store:
        store.tree.delete(inode_key(ROOT_INODE))
    report = salvaged(device, tmp_path / "out")
    found = on_host(tmp_path / "out")
    del found[b"/"], expected[b"/"]
    assert found == without_refused(expected, report)


def test_the_beginning_of_a_truncated_image_is_copied_out(tmp_path: Path) -> None:
    whole = healthy(1)
    expected = in_image(whole)
    device = KeptDevice(whole.size_bytes * 5 // 8)
    device.write(0, whole.read(0, device.size_bytes))
    report = salvaged(device, tmp_path / "out")
    found = on_host(tmp_path / "out")
    for path, seen in without_refused(expected, report).items():
        if stat.S_ISREG(seen.attributes[0]) and path in found:
            hurt = any(os.fsencode(part.path) == path for part in report.unreadable)
            assert hurt or found[path].data == seen.data
    assert len(found) > len(expected) // 2


@pytest.mark.parametrize("seed", range(20))
def test_random_damage_ends_no_salvage_and_brings_no_wrong_byte(tmp_path: Path, seed: int) -> None:
    device, chance = healthy(1 + seed % 2), random.Random(seed)
    expected = in_image(device)
    for _ in range(chance.choice((3, 30, 150))):
        block = chance.randrange(0, device.size_bytes // 4096)
        device.write(block * 4096, chance.randbytes(4096))
    report = salvaged(device, tmp_path / "out")
    hurt = {os.fsencode(part.path) for part in report.unreadable} | {os.fsencode(path) for path in report.older}
    wrong = [
        path
        for path, seen in on_host(tmp_path / "out").items()
        if path in expected and stat.S_ISREG(seen.attributes[0]) and path not in hurt and seen.data != expected[path].data
    ]
    assert wrong == []


@pytest.mark.parametrize("record_log2", [0, 11, 21, 31, 13 + 32, 255])
@pytest.mark.parametrize("path", ["/docs/many", "/docs/one", "/small", "/long link"])
def test_regression_a_record_size_that_cannot_be_hides_no_data(tmp_path: Path, path: str, record_log2: int) -> None:
    """From 2^32 on the file came out as zeros without a word; below, its records were taken for ones in the wrong places."""
    device = healthy()
    edit_inode(device, find_inode(device, path), record_log2=record_log2)
    report = salvaged(device, tmp_path / "out")
    assert on_host(tmp_path / "out") == without_refused(in_image(healthy()), report)
    assert report.unreadable == []
    assert [f"{path}: its record size" in remark for remark in report.remarks] == [True] * (path == "/docs/many")


@pytest.mark.parametrize("record_log2", [12, 14, 15, 17, 20])
@pytest.mark.parametrize("path", ["/docs/many", "/docs/deep/by zstd:3", "/docs/deep/holes"])
def test_regression_a_record_size_that_the_records_contradict_hides_no_data(tmp_path: Path, path: str, record_log2: int) -> None:
    """Such sizes were believed: the file came out cut, or as zeros, and where the records were too short for it, scrambled."""
    device = healthy()
    edit_inode(device, find_inode(device, path), record_log2=record_log2)
    report = salvaged(device, tmp_path / "out")
    assert on_host(tmp_path / "out") == without_refused(in_image(healthy()), report)
    assert report.unreadable == []
    told = f"{path}: its record size, {1 << record_log2} bytes, contradicts its records; with 8192 bytes they agree"
    assert report.remarks == [told]


def test_a_record_size_that_no_other_one_replaces_for_certain_stays(tmp_path: Path) -> None:
    device, sparse = ambiguous()
    edit_inode(device, sparse, record_log2=13)
    report = salvaged(device, tmp_path / "out")
    assert report.remarks == []
    assert [(part.path, part.first, part.behind) for part in report.unreadable] == [("/sparse", 0, 8 * KIB)]


def test_records_that_wait_to_be_cut_off_say_nothing_against_their_size(tmp_path: Path) -> None:
    device = new_device(record_bytes=32 * KIB)
    with opened(device) as volume:
        cut = namespace.create(volume, ROOT_INODE, b"cut", 0o644, 1, 2)
        files.write(volume, cut, 9 * 32 * KIB, b"x" * 4000)
    edit_inode(device, cut, size=9 * 4096 + 4000)
    with editing(device) as store:
        store.tree.put(orphan_key(cut), Orphan(OrphanReason.TRUNCATING).encode())
    report = salvaged(device, tmp_path / "out")
    assert report.remarks == []
    assert (tmp_path / "out" / "cut").read_bytes() == bytes(9 * 4096 + 4000)


@pytest.mark.parametrize(
    ("path", "bit"),
    [("/docs", 1), ("/docs/one", 6), ("/crowd/member 36", 8 * 6 + 5), ("/crowd/member 36", 8 * 8), ("/docs/deep/holes", 5)],
)
def test_regression_a_name_with_one_wrong_bit_is_copied_as_what_it_was(tmp_path: Path, path: str, bit: int) -> None:
    """It was copied under the wrong name, or, where that was none, into lost+found."""
    device = healthy()
    flip_name(device, path, bit)
    report = salvaged(device, tmp_path / "out")
    assert on_host(tmp_path / "out") == without_refused(in_image(healthy()), report)
    (told,) = report.remarks
    assert told.startswith(f"{path}: the entry has one wrong bit in its name, ")


def test_two_wrong_bits_of_a_name_are_not_guessed(tmp_path: Path) -> None:
    device = healthy()
    flip_name(device, "/docs/one", 0, 9)
    assert salvaged(device, tmp_path / "out").remarks == []
    assert (tmp_path / "out" / "docs" / "nle").exists()


def test_nothing_is_mixed_up_with_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("keep me")
    with pytest.raises(UsageError, match="is not empty"):
        salvaged(healthy(), tmp_path / "out")
    assert os.listdir(tmp_path / "out") == ["mine"]


def test_a_device_without_any_superblock_is_refused(tmp_path: Path) -> None:
    device = healthy()
    destroy_superblocks(device, backups=True)
    with pytest.raises(NotAnImage, match="no superblock"):
        salvaged(device, tmp_path / "out")


def test_an_image_without_room_for_a_tree_is_copied_out_all_the_same(tmp_path: Path) -> None:
    device = without_room()
    expected = in_image(device)
    nodes = nodes_by_level(device)
    destroy(device, nodes[max(nodes)][0])
    report = salvaged(device, tmp_path / "out")
    assert any("no room" in remark for remark in report.remarks)
    found = on_host(tmp_path / "out")
    assert found.keys() == expected.keys()
    assert [path for path, seen in found.items() if seen.data != expected[path].data] == []


def test_names_that_no_host_takes_are_told(tmp_path: Path) -> None:
    device = healthy()
    _, entry = first_item(device, find_inode(device, "/docs"), Kind.DIRECTORY_ENTRY)
    with editing(device) as store:
        place = name_key(NameId(DirectoryEntry.decode(entry).name_id))
        store.tree.put(place, replace(Name.decode(store.tree.get(place) or b""), text=b"../../escaped").encode())
    report = salvaged(device, tmp_path / "a" / "b" / "out")
    assert any("impossible name" in reason for _, reason in report.not_copied)
    assert not (tmp_path / "a" / "escaped").exists()
    assert report.found_again == 1


def test_of_two_files_with_one_name_both_are_copied(tmp_path: Path) -> None:
    device = healthy()
    docs, lonely = find_inode(device, "/docs"), find_inode(device, "/crowd/member 3")
    key, value = next(
        (key, value)
        for key, value in all_items(device, docs, Kind.DIRECTORY_ENTRY)
        if DirectoryEntry.decode(value).inode == find_inode(device, "/docs/one")
    )
    again = (int.from_bytes(key, "big") + 1).to_bytes(18, "big")
    with editing(device) as store:
        store.tree.put(again, replace(DirectoryEntry.decode(value), inode=lonely).encode())
        store.tree.delete(next(iter(entry_of(device, find_inode(device, "/crowd"), lonely))))
    report = salvaged(device, tmp_path / "out")
    expected = in_image(healthy())
    assert (tmp_path / "out" / "docs" / "one").read_bytes() == expected[b"/docs/one"].data
    assert (tmp_path / "out" / "docs" / "one~2").read_bytes() == expected[b"/crowd/member 3"].data
    assert report.unreadable == [] and report.found_again == 0


def entry_of(device: Device, directory: InodeNo, number: InodeNo) -> list[bytes]:
    """Return the keys of the entries of *directory* that lead to inode *number*."""
    entries = all_items(device, directory, Kind.DIRECTORY_ENTRY)
    return [key for key, value in entries if DirectoryEntry.decode(value).inode == number]


def test_directories_that_contain_each_other_are_copied_once(tmp_path: Path) -> None:
    device = next(damage() for code, damage in DAMAGES if code == "E0411")
    report = salvaged(device, tmp_path / "out")
    assert report.found_again == 1
    assert list((tmp_path / "out" / "lost+found").glob("*/one")) or list((tmp_path / "out" / "lost+found").glob("*/*/one"))


@pytest.mark.parametrize("number", range(len(DAMAGES)))
def test_no_damage_ends_a_salvage(tmp_path: Path, number: int) -> None:
    code, damage = DAMAGES[number]
    device = damage()
    if code in REFUSED - {"E0111"}:
        with pytest.raises((NotAnImage, UnsupportedFormat)):
            salvaged(device, tmp_path / "out")
        return
    salvaged(device, tmp_path / "out")
    expected = in_image(healthy())
    found = on_host(tmp_path / "out")
    assert len(found) >= len(expected) // 2


def test_regression_a_salvage_that_brings_nothing_exits_with_8(run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    """It said 4, as if something had been left; the manual page has always said 8."""
    device = healthy()
    image = image_of(device)
    for block in set(range(2, image.geometry.block_count)) - set(image.geometry.backups):
        device.write(block * image.block_bytes, bytes(image.block_bytes))
    code, out, _ = run("--json", "--salvage", tmp_path / "out", stored(device, tmp_path / "image"))
    document = json.loads(out)
    assert (code, document["exit_code"], document["files"]) == (8, 8, 0)
    assert os.listdir(tmp_path / "out") == []
