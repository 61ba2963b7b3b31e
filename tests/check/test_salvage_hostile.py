"""Images whose names were made to harm who copies them out: nothing outside of the target is touched, and nothing is left out."""

import os
import stat
import tracemalloc
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from razortools.check.host_copy import HostCopy
from razortools.engine import files, namespace, xattrs
from razortools.engine.store.device import Device
from razortools.format.compression import Algorithm
from razortools.format.data import InlineData
from razortools.format.directory import DirectoryEntry
from razortools.format.inode import ROOT_INODE, Inode
from razortools.format.keys import Kind, inline_key
from razortools.units import MIB, InodeNo
from tests.check.editing import all_items, edit_inode, edit_item, editing, find_inode, first_item
from tests.check.samples import Copy, healthy, new_device, opened
from tests.check.test_salvage import entry_of, in_image, salvaged

Listing = dict[str, tuple[int, int, int, bytes]]


def listing(top: Path) -> Listing:
    """Return what lies below *top*, with everything that a salvage could change of it."""
    found: Listing = {}
    for path in [top, *sorted(top.rglob("*"))]:
        status = path.lstat()
        data = path.read_bytes() if stat.S_ISREG(status.st_mode) else b""
        found[str(path)] = (status.st_mode, status.st_uid, status.st_mtime_ns, data)
    return found


@pytest.fixture(name="victim")
def fixture_victim(tmp_path: Path) -> Path:
    """A directory of the host that an image wants to write to."""
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "mine").write_bytes(b"keep me")
    return victim


def lose(device: Device, directory: InodeNo, number: InodeNo) -> None:
    """Take away the names of *number* in a directory."""
    keys = entry_of(device, directory, number)
    with editing(device) as store:
        for key in keys:
            store.tree.delete(key)


def with_file(device: Device, name: bytes, data: bytes, directory: InodeNo = ROOT_INODE) -> InodeNo:
    """Make a file."""
    with opened(device) as volume:
        number = namespace.create(volume, directory, name, 0o644, 0, 0)
        files.write(volume, number, 0, data)
    return number


def test_regression_a_symlink_called_lost_and_found_leads_nobody_out_of_the_target(tmp_path: Path, victim: Path) -> None:
    """It was followed: what no name leads to was written to wherever the image wanted it."""
    device = healthy()
    with opened(device) as volume:
        namespace.symlink(volume, ROOT_INODE, b"lost+found", os.fsencode(victim), 1, 2)
    lose(device, ROOT_INODE, with_file(device, b"evil", b"* * * * * root run me\n"))
    before = listing(victim)
    report = salvaged(device, tmp_path / "out")
    assert listing(victim) == before
    assert os.readlink(tmp_path / "out" / "lost+found") == str(victim)
    assert (tmp_path / "out" / "lost+found~2" / "evil").read_bytes() == b"* * * * * root run me\n"
    assert report.found_again == 1 and any("/lost+found~2" in remark for remark in report.remarks)


def test_the_images_own_lost_and_found_is_used_and_nothing_in_it_is_written_over(tmp_path: Path) -> None:
    device = healthy()
    with opened(device) as volume:
        directory = namespace.mkdir(volume, ROOT_INODE, b"lost+found", 0o755, 1, 2)
    with_file(device, b"evil", b"of the image", directory)
    for data in (b"first", b"second"):
        lose(device, ROOT_INODE, with_file(device, b"evil", data))
    report = salvaged(device, tmp_path / "out")
    found = {path.read_bytes() for path in (tmp_path / "out" / "lost+found").iterdir()}
    assert found == {b"of the image", b"first", b"second"}
    assert (tmp_path / "out" / "lost+found" / "evil").read_bytes() == b"of the image"
    assert report.found_again == 2 and not any("lost+found" in remark for remark in report.remarks)


@pytest.mark.parametrize("symlink_first", [True, False])
def test_a_directory_with_the_name_of_a_symlink_is_not_copied_through_it(
    tmp_path: Path, victim: Path, symlink_first: bool
) -> None:
    device = with_twins(victim, symlink_first)
    before = listing(victim)
    report = salvaged(device, tmp_path / "out")
    assert listing(victim) == before
    names = ("twin", "twin~2") if symlink_first else ("twin~2", "twin")
    assert os.readlink(tmp_path / "out" / names[0]) == str(victim)
    assert (tmp_path / "out" / names[1] / "mine").read_bytes() == b"overwritten"
    assert report.not_copied == [] and report.hard_links == 1


def with_twins(victim: Path, symlink_first: bool) -> Copy:
    """Return an image in which a symlink and a directory with files, one of them with two names, are called the same."""
    device = Copy(new_device())
    with opened(device) as volume:
        link = partial(namespace.symlink, volume, ROOT_INODE, b"a symlink", os.fsencode(victim), 1, 2)
        number = link() if symlink_first else InodeNo(0)
        directory = namespace.mkdir(volume, ROOT_INODE, b"twin", 0o4777, 12, 34)
        xattrs.set(volume, directory, b"user.owner", b"the image")
        number = number or link()
        file = namespace.create(volume, directory, b"mine", 0o777, 0, 0)
        files.write(volume, file, 0, b"overwritten")
        namespace.link(volume, file, ROOT_INODE, b"zz another name")
    entries = all_items(device, ROOT_INODE, Kind.DIRECTORY_ENTRY)
    key, value = next((key, value) for key, value in entries if DirectoryEntry.decode(value).inode == directory)
    beside = (int.from_bytes(key, "big") + 1).to_bytes(18, "big")
    with editing(device) as store:
        store.tree.put(beside, replace(DirectoryEntry.decode(value), inode=number).encode())
    lose_but(device, number, beside)
    return device


def lose_but(device: Device, number: InodeNo, kept: bytes) -> None:
    """Take away the names of *number* in the root but for one."""
    keys = [key for key in entry_of(device, ROOT_INODE, number) if key != kept]
    with editing(device) as store:
        for key in keys:
            store.tree.delete(key)


@pytest.mark.parametrize("claimed_bytes", [2 * MIB, 1 << 30, 1 << 31, (1 << 32) - 1])
def test_regression_what_an_item_claims_neither_ends_a_salvage_nor_takes_the_memory(tmp_path: Path, claimed_bytes: int) -> None:
    """LZ4 was asked for what the item claimed: below 2^31 that memory was taken, from there on an OverflowError ended it all."""
    device = healthy()
    small, many = find_inode(device, "/small"), find_inode(device, "/docs/many")
    key, _ = first_item(device, many, Kind.DATA_RECORD)
    edit_item(device, key, algorithm=int(Algorithm.LZ4), raw_bytes=claimed_bytes)
    with editing(device) as store:
        store.tree.put(inline_key(small), InlineData(int(Algorithm.LZ4), claimed_bytes, b"hello").encode())
    edit_inode(device, many, record_log2=31)
    tracemalloc.start()
    try:
        report = salvaged(device, tmp_path / "out")
        assert tracemalloc.get_traced_memory()[1] < 64 * MIB
    finally:
        tracemalloc.stop()
    unreadable = [(part.path, part.first, part.behind) for part in report.unreadable]
    assert unreadable == [("/docs/many", 0, 8192), ("/docs/small too", 0, 11)]
    assert (tmp_path / "out" / "docs" / "many").read_bytes()[8192:] == in_image(healthy())[b"/docs/many"].data[8192:]


def test_the_target_may_be_called_by_a_symlink_that_the_user_made(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "link").symlink_to("out")
    salvaged(healthy(), tmp_path / "link")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "out" / "docs" / "one").exists()


def test_no_symlink_is_followed_anywhere_below_the_target(tmp_path: Path, victim: Path) -> None:
    """Not even one that stands where a directory was made: whoever made it, everything that makes or describes is refused."""
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "taken").symlink_to(victim)
    before = listing(victim)
    described = Inode(0o107777, 12, 34, *[1] * 15)
    with closing(HostCopy(str(tmp_path / "out"))) as host:
        taken = host.top.child(b"taken")
        for place in (taken, taken.child(b"mine"), taken.child(b"new")):
            assert host.make_directory(place) and host.make_file(place)[1]
        assert host.make_link(taken.child(b"mine"), host.top.child(b"link")) and host.make_link(taken, taken.child(b"link"))
        host.describe(described, [(b"user.evil", b"1")], taken.child(b"mine"))
        assert host.mode(taken.child(b"mine")) == 0
    assert listing(victim) == before and os.listdir(tmp_path / "out") == ["taken"]
