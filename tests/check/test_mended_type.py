"""The type of a file with one wrong bit: what it was is told by its name, its contents and what else its inode says."""

import pytest

from razortools.check.repair.repair import Wishes, repair
from razortools.check.runner import Options
from razortools.check.steps import finished
from razortools.engine import files, namespace
from razortools.engine.store.device import Device
from razortools.format.directory import DirectoryEntry
from razortools.format.inode import ROOT_INODE, FileType, Inode
from razortools.format.keys import Kind, inode_key
from tests.check.editing import edit_inode, edit_item, find_inode
from tests.check.samples import Copy, healthy, opened
from tests.check.test_misfiled import items, repaired

PATHS = (
    "/small", "/docs/many", "/docs/one", "/docs/deep/holes", "/link", "/long link", "/docs", "/docs/deep/pipe", "/docs/deep/disk",
)  # fmt: skip
CHARACTER = "/docs/deep/disk", 14  # as likely as that its entry has the wrong bit, see below
CASES = [(path, bit) for path in PATHS for bit in range(12, 16) if (path, bit) != CHARACTER]  # bits of the mode


def turn(device: Device, path: str, bit: int) -> None:
    number = find_inode(device, path)
    edit_inode(device, number, mode=Inode.decode(items(device)[inode_key(number)]).mode ^ 1 << bit)


@pytest.mark.parametrize(("path", "bit"), CASES)
def test_regression_one_wrong_bit_of_a_type_costs_nothing(path: str, bit: int) -> None:
    """A small file was emptied where the bit made it a socket; a link became a file, a block device a directory."""
    device = healthy()
    expected = items(device)
    turn(device, path, bit)
    assert items(repaired(device).overlay) == expected


def test_between_two_types_of_device_the_inode_decides() -> None:
    device = healthy()
    turn(device, *CHARACTER)
    mended = repaired(device).overlay
    inode = Inode.decode(items(mended)[inode_key(find_inode(mended, "/docs/deep/disk"))])
    assert inode.file_type == FileType.CHARACTER and inode.rdev


def test_a_file_of_holes_alone_keeps_its_size() -> None:
    device = healthy()
    with opened(device) as volume:
        sparse = namespace.create(volume, ROOT_INODE, b"sparse", 0o644, 1, 2)
        files.truncate(volume, sparse, 100_000)
    for bit in (14, 15):
        hurt = Copy(device)
        expected = items(hurt)
        turn(hurt, "/sparse", bit)
        assert items(repaired(hurt).overlay) == expected


@pytest.mark.parametrize("text", [b"#!/bin/sh\necho hello\n", b"a\0b", b""])
def test_an_executable_for_all_whose_entry_says_that_it_is_a_link_stays_a_file(text: bytes) -> None:
    device = healthy()
    with opened(device) as volume:
        script = namespace.create(volume, ROOT_INODE, b"script", 0o777, 1, 2)
        files.write(volume, script, 0, text)
    expected = items(device)
    entries = {key: DirectoryEntry.decode(value) for key, value in expected.items() if key[9] == Kind.DIRECTORY_ENTRY}
    (key,) = (key for key, entry in entries.items() if entry.inode == script)
    edit_item(device, key, file_type=int(FileType.SYMLINK))
    assert items(repaired(device).overlay) == expected


def test_preening_changes_no_type() -> None:
    device = healthy()
    turn(device, "/small", 14)
    key, before = inode_key(find_inode(device, "/small")), items(device)
    done = finished(repair(device, Wishes(check=Options(threads=1), careful=True)))
    assert done is None or items(done.overlay)[key] == before[key]
