"""Images whose names were made to harm who copies them out: nothing outside of the target is touched, and nothing is left out."""

import itertools
import os
import stat
import tracemalloc
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from razortools.check.host_copy import HostCopy, Place
from razortools.check.salvage import numbered, salvage
from razortools.engine import files, namespace, xattrs
from razortools.engine.store.device import Device
from razortools.format.compression import Algorithm
from razortools.format.data import InlineData
from razortools.format.directory import BackLink, DirectoryEntry
from razortools.format.inode import ROOT_INODE, Inode
from razortools.format.keys import Kind, inline_key, inode_key, name_key
from razortools.units import MIB, InodeNo, NameId
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


def found_below(top: Path, data: bytes) -> list[tuple[int, str]]:
    """Return (directories above it, name) of each file with *data*. Paths may be longer than the host takes them."""
    found = []
    for at, _, names, descriptor in os.fwalk(top):
        for name in names:
            status = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
            if stat.S_ISREG(status.st_mode) and status.st_size == len(data):
                with open(os.open(name, os.O_RDONLY, dir_fd=descriptor), "rb") as file:
                    found += [(at.count("/") - str(top).count("/"), name)] if file.read() == data else []
    return found


def test_regression_a_path_longer_than_the_host_takes_is_copied_with_everything_in_it(tmp_path: Path) -> None:
    """It was left out, and of the file's other name it was said that it had been copied under this one."""
    device = healthy()
    at = ROOT_INODE
    with opened(device) as volume:
        for _ in range(17):
            at = namespace.mkdir(volume, at, b"d" * 255, 0o750, 1, 2)
        number = namespace.create(volume, at, b"n" * 255, 0o644, 1, 2)
        files.write(volume, number, 0, b"precious")
        xattrs.set(volume, number, b"user.far", b"down")
        namespace.link(volume, number, ROOT_INODE, b"zz short name")
    report = salvaged(device, tmp_path / "out")
    assert sorted(found_below(tmp_path / "out", b"precious")) == [(0, "zz short name"), (17, "n" * 255)]
    short = tmp_path / "out" / "zz short name"
    assert short.stat().st_nlink == 2 and os.getxattr(short, "user.far") == b"down"
    assert [path for path, _ in report.not_copied if "user.large" not in path] == [] and report.found_again == 0


def test_what_lies_too_deep_is_put_into_lost_and_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("razortools.check.salvage.DEPTH_MAX", 2)
    report = salvaged(healthy(), tmp_path / "out")
    deep = [path for path, reason in report.not_copied if "directories deep" in reason]
    assert deep and all(path.startswith("/docs/deep/") for path in deep) and report.found_again == len(deep)
    for path in deep:
        assert os.path.lexists(tmp_path / "out" / "lost+found" / path.strip("/").replace("/", "+"))


@pytest.mark.parametrize("text", [b"a\0b", b"a/b", b"/", b"..", b"../../escaped", b"\0", b""])
def test_regression_a_file_with_a_name_that_no_host_takes_is_found_under_another(tmp_path: Path, text: bytes) -> None:
    """One with a NUL was not copied at all: it was put into lost+found under the name that it had."""
    device = healthy()
    number = with_file(device, b"aXb", b"precious")
    link = BackLink.decode(first_item(device, number, Kind.BACK_LINK)[1])
    edit_item(device, name_key(NameId(link.name_id)), text=text)
    report = salvaged(device, tmp_path / "a" / "b" / "out")
    assert [at for at, _ in found_below(tmp_path, b"precious")] == [4]
    assert len(found_below(tmp_path / "a" / "b" / "out" / "lost+found", b"precious")) == 1
    assert report.found_again == 1
    assert any("impossible name" in reason and "lost+found" in reason for _, reason in report.not_copied)


@pytest.mark.parametrize("kind", ["file", "symlink", "pipe"])
def test_regression_an_image_whose_lost_and_found_is_no_directory_gets_another_one(tmp_path: Path, kind: str) -> None:
    device = healthy()
    with opened(device) as volume:
        if kind == "symlink":
            namespace.symlink(volume, ROOT_INODE, b"lost+found", b"docs", 1, 2)
        else:
            mode = stat.S_IFIFO if kind == "pipe" else stat.S_IFREG
            namespace.mknod(volume, ROOT_INODE, b"lost+found", mode | 0o644, 0, 1, 2)
        namespace.mkdir(volume, ROOT_INODE, b"lost+found~2", 0o755, 1, 2)
    lose(device, ROOT_INODE, with_file(device, b"aXb", b"precious"))
    report = salvaged(device, tmp_path / "out")
    assert (tmp_path / "out" / "lost+found~2" / "aXb").read_bytes() == b"precious"
    assert [path for path, _ in report.not_copied if "user.large" not in path] == []


class Refusing(HostCopy):
    """A host that does not take certain names."""

    def make(self, place: Place, action: Callable[[int], object]) -> str:
        """See HostCopy."""
        return "Invalid argument" if place.name in (b"one", b"many") else super().make(place, action)


def test_regression_a_name_that_the_host_refuses_does_not_keep_the_file_from_being_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was left out, and its other names as well: of them it was said that they had been copied under another one."""
    device = healthy()
    with opened(device) as volume:
        docs = namespace.lookup(volume, ROOT_INODE, b"docs")
        namespace.link(volume, namespace.lookup(volume, docs, b"many"), ROOT_INODE, b"zz")
    expected = in_image(device)
    monkeypatch.setattr("razortools.check.salvage.HostCopy", Refusing)
    report = salvaged(device, tmp_path / "out")
    assert (tmp_path / "out" / "zz").read_bytes() == expected[b"/zz"].data
    again = tmp_path / "out" / "lost+found" / f"#{find_inode(device, '/docs/one')}"
    assert again.read_bytes() == expected[b"/docs/one"].data and report.found_again == 1
    refused = [(path, reason) for path, reason in report.not_copied if "Invalid" in reason]
    assert [path for path, _ in refused] == ["/docs/many", "/docs/one"] and all("tried again" in reason for _, reason in refused)


@pytest.mark.parametrize("is_lost", [True, False])
def test_regression_a_salvage_looks_at_each_entry_a_fixed_number_of_times(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_lost: bool
) -> None:
    """It walked a directory that no name leads to once for each file in it, and tried all numbers for each of equal names."""
    count = 150
    device = new_device()
    with opened(device) as volume:
        directory = namespace.mkdir(volume, ROOT_INODE, b"photos", 0o755, 1, 2)
        for number in range(count):
            namespace.create(volume, directory, b"picture %d" % number, 0o644, 1, 2)
    entries = all_items(device, directory, Kind.DIRECTORY_ENTRY)
    one_name = DirectoryEntry.decode(entries[0][1]).name_id
    with editing(device) as store:
        for key, value in entries:
            if not is_lost:
                store.tree.put(key, replace(DirectoryEntry.decode(value), name_id=one_name).encode())
    if is_lost:
        lose(device, ROOT_INODE, directory)
    looks = Counter[str]()
    for counted in (DirectoryEntry.decode, numbered):
        counting(monkeypatch, looks, counted)
    report = salvaged(device, tmp_path / "out")
    assert (report.files, report.found_again, report.not_copied) == (count, int(is_lost), [])
    assert looks["decode"] <= 4 * count and looks["numbered"] <= 2 * count


def counting(monkeypatch: pytest.MonkeyPatch, looks: "Counter[str]", counted: Callable[..., Any]) -> None:
    """Count the calls of a function of the salvage."""

    def call(*arguments: Any) -> Any:
        looks[counted.__name__] += 1
        return counted(*arguments)

    if counted is numbered:
        monkeypatch.setattr("razortools.check.salvage.numbered", call)
    else:
        monkeypatch.setattr("razortools.check.salvage.DirectoryEntry", SimpleNamespace(decode=call))


def test_regression_a_lost_root_that_contains_itself_is_copied_once(tmp_path: Path) -> None:
    """Its entries were copied at each place that led to it, without end."""
    device = healthy()
    docs, one = find_inode(device, "/docs"), find_inode(device, "/docs/one")
    with editing(device) as store:
        for directory, child in ((ROOT_INODE, docs), (docs, one)):
            for key in entry_of(device, directory, child):
                value = store.tree.get(key)
                assert value is not None
                store.tree.put(key, replace(DirectoryEntry.decode(value), inode=ROOT_INODE).encode())
        store.tree.delete(inode_key(ROOT_INODE))
    steps = salvage(device, str(tmp_path / "out"))
    assert sum(1 for _ in itertools.islice(steps, 5000)) < 5000
    names = os.listdir(tmp_path / "out")
    assert "small" not in os.listdir(tmp_path / "out" / "lost+found") and "crowd" in names


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
