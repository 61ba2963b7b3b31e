"""Records that are marked as cut out: what lies in their blocks should not verify. Where it does, the mark is wrong."""

from dataclasses import replace
from pathlib import Path

import pytest

from razortools.check.repair.repair import Repaired, Wishes, repair
from razortools.check.runner import Options, check_quietly
from razortools.check.salvage import salvage
from razortools.check.salvage_report import SalvageReport
from razortools.check.steps import finished
from razortools.engine.store.device import Device
from razortools.format.data import CUT_OUT, DataRecord
from razortools.format.keys import Kind
from razortools.format.xattr import Xattr
from tests.check.editing import all_items, edit_item, editing, find_inode, flip
from tests.check.samples import healthy
from tools.fuzzing.view import view

PATHS = ["/docs/many", "/docs/deep/by none", "/docs/deep/by zlib:6", "/docs/deep/by lz4"]


def record_of(device: Device, path: str, number: int = 0) -> tuple[bytes, DataRecord]:
    key, value = all_items(device, find_inode(device, path), Kind.DATA_RECORD)[number]
    return key, DataRecord.decode(value)


def mark(device: Device, path: str, **changes: object) -> None:
    """Mark the first record of a file as cut out, with further *changes*."""
    key, record = record_of(device, path)
    edit_item(device, key, flags=record.flags | CUT_OUT, **changes)


def mark_attribute(device: Device) -> None:
    """Mark the large attribute as cut out."""
    items = all_items(device, find_inode(device, "/small"), Kind.XATTR)
    key, attribute = next((key, item) for key, value in items if (item := Xattr.decode(value)).out_of_line is not None)
    large = attribute.out_of_line
    assert large is not None
    edit_item(device, key, body=Xattr.outside(attribute.name, replace(large, flags=large.flags | CUT_OUT)).body)


def codes(device: Device, *phases: int) -> list[tuple[str, str | None]]:
    options = Options(only=frozenset(phases or range(1, 9)), threads=1)
    return [(finding.code, finding.path) for finding in check_quietly(device, options).findings]


def preened(device: Device) -> Repaired:
    done: Repaired = finished(repair(device, Wishes(careful=True)))
    return done


@pytest.mark.parametrize("path", PATHS)
def test_a_mark_on_good_data_is_found_and_taken_away_by_preening(path: str) -> None:
    device = healthy()
    mark(device, path)
    assert codes(device) == [("E0513", path), ("E0806", path)]
    done = preened(device)
    assert done.changes and done.after.findings == () and done.loss is not None and done.loss.is_none
    assert view(done.overlay) == view(healthy())


def test_a_mark_on_a_good_attribute_is_found_and_taken_away_by_preening() -> None:
    device = healthy()
    mark_attribute(device)
    assert ("E0806", "/small") in codes(device)
    done = preened(device)
    assert done.changes and done.after.findings == ()
    assert view(done.overlay) == view(healthy())


def test_the_phase_that_tells_of_it_does_so_alone_too() -> None:
    device = healthy()
    mark(device, "/docs/many")
    assert codes(device, 8) == [("E0806", "/docs/many")]
    assert codes(device, 7) == []


def test_what_a_repair_cut_out_stays_so() -> None:
    device = healthy()
    record = record_of(device, "/docs/many")[1]
    device.write(record.address * 4096, b"overwritten" * 9)
    done: Repaired = finished(repair(device, Wishes()))
    assert [finding.code for finding in done.after.findings] == ["E0513"]
    assert not preened(done.overlay).changes


def test_what_a_failing_disk_gives_back_can_be_read_again() -> None:
    device = healthy()
    record = record_of(device, "/docs/many")[1]
    good = device.read(record.address * 4096, 4096)
    device.write(record.address * 4096, bytes(4096))
    done: Repaired = finished(repair(device, Wishes()))
    done.overlay.write(record.address * 4096, good)
    again = preened(done.overlay)
    assert again.changes and view(again.overlay) == view(healthy())


@pytest.mark.parametrize("what", ["checksum", "second checksum", "contents", "bit"])
def test_data_that_do_not_verify_in_every_way_stay_cut_out(what: str) -> None:
    device = healthy()
    _, record = record_of(device, "/docs/deep/by zlib:6")
    changes: dict[str, object] = {
        "checksum": {"crc32c": record.crc32c ^ 1},
        "second checksum": {"more": record.checked_by(4711).more},
        "contents": {"raw_bytes": record.raw_bytes - 1},
        "bit": {},
    }[what]
    mark(device, "/docs/deep/by zlib:6", **changes)
    if what == "bit":
        flip(device, record.address * 4096 + 50)
    assert ("E0806", "/docs/deep/by zlib:6") not in codes(device)


def test_salvage_copies_good_data_that_are_marked_as_cut_out(tmp_path: Path) -> None:
    device = healthy()
    mark(device, "/docs/many")
    mark_attribute(device)
    report: SalvageReport = finished(salvage(device, str(tmp_path / "out")))
    assert report.unreadable == () or list(report.unreadable) == []
    wanted = view(healthy())[b"/docs/many"].parts["data"]
    assert (tmp_path / "out/docs/many").read_bytes() == wanted


@pytest.mark.parametrize("bit", range(8))
def test_regression_a_wrong_flag_of_a_record_that_owns_nothing_does_not_end_a_repair(bit: int) -> None:
    """With two of the bits it was said to have a second checksum, or late pages, and to look at what is not there ended all."""
    device = healthy()
    key, _ = record_of(device, "/docs/many", 2)
    with editing(device) as store:
        store.tree.put(key, DataRecord(0, 0, 8192, 0, 0, CUT_OUT ^ 1 << bit, 0).encode())
    done = finished(repair(device, Wishes(check=Options(threads=1))))
    assert done.refused == "" and done.after.clean
    assert [one.path for one in done.loss.truncated] == ["/docs/many"]
