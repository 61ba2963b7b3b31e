"""Listings that the kernel keeps: streams over directories stay what POSIX wants, whoever changes them meanwhile."""

import os
import random
import stat
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from razortools.engine import directories, namespace
from razortools.engine.rename import RENAME_EXCHANGE
from razortools.format.inode import ROOT_INODE
from razortools.format.journal import Operation
from razortools.format.keys import inode_key
from razortools.service.committer import Committer
from razortools.service.listings import _IN_PART, ASKS, KNOWN_MAX, MAY_USE_KEPT, Listings
from razortools.service.operations import Operations
from razortools.service.options import MountOptions
from razortools.service.settled import Settled
from razortools.service.wire import (
    DIRENT,
    DIRENT_ALIGN,
    ENTRY_OUT,
    LINK,
    MKDIR,
    MKNOD,
    READDIR,
    RENAME,
    RENAME2,
    Opcode,
    OpenFlag,
)
from razortools.units import InodeNo
from tests.engine.volumes import new_volume
from tests.mount.kernel_listings import DIRECTORY, KINDS, PARENT_COOKIE, Step, play
from tests.mount.mounts import Mounted
from tests.mount.real_streams import WatchedDirectory, entries

SEED = 1
WALKS, LENGTH = 10_000, 100
REAL_WALKS, REAL_LENGTH = 12, 400


def walks() -> Iterator[list[Step]]:
    print(f"seed {SEED}")
    source = random.Random(SEED)
    for _ in range(WALKS):
        yield [(source.randrange(KINDS), source.randrange(12), source.randrange(12)) for _ in range(LENGTH)]


class EachMayUse(Listings):
    """Any number of readers of a directory may use what the kernel keeps."""

    def open(self, directory: InodeNo, flags: int) -> tuple[int, int]:
        self._reading.clear()
        return super().open(directory, flags)


class NeverDropped(Listings):
    """What the kernel has as a whole stays when somebody opens a directory that has changed."""

    def open(self, directory: InodeNo, flags: int) -> tuple[int, int]:
        handle, what = super().open(directory, flags)
        return handle, what | OpenFlag.KEEP_CACHE


class WholeInAnyCase(Listings):
    """Who is told that there are no more entries may have put together a whole of old and new ones."""

    def end(self, directory: InodeNo, handle: int) -> bool:
        super().end(directory, handle)
        return False


class BegunAnew(Listings):
    """What was put together before a change counts for nothing when somebody looks from the start."""

    def begin(self, directory: InodeNo, handle: int) -> None:
        if handle == MAY_USE_KEPT:
            self._kept[directory] = _IN_PART


class AnyDescriptor(Listings):
    """Whoever goes on anywhere may use what is kept."""

    def open(self, directory: InodeNo, flags: int) -> tuple[int, int]:
        return super().open(directory, os.O_DIRECTORY)


class MovesUnnoticed(Listings):
    """A directory that moves is like one that changes."""

    def move(self, directory: InodeNo) -> bool:
        self.change(directory)
        return False


RULES = [EachMayUse, NeverDropped, WholeInAnyCase, BegunAnew, AnyDescriptor, MovesUnnoticed]


@given(st.lists(st.tuples(st.integers(0, KINDS - 1), st.integers(0, 11), st.integers(0, 11)), max_size=150))
@settings(max_examples=500)
def test_streams_are_what_posix_wants(steps: list[Step]) -> None:
    play(Listings(), steps)


def test_streams_are_what_posix_wants_on_long_random_walks() -> None:
    kept = 0
    for steps in walks():
        kept += play(Listings(), steps).cached
    assert kept > WALKS // 20, "the kernel keeps listings at all"


@pytest.mark.parametrize("rules", RULES)
def test_each_rule_is_needed(rules: type[Listings]) -> None:
    with pytest.raises(AssertionError, match=r"gone when its reader began|not given|given twice"):
        for steps in walks():
            play(rules(), steps)


def opened(listings: Listings, directory: InodeNo = DIRECTORY) -> OpenFlag:
    """Open a directory as programs do that list it; return what the kernel is to do."""
    handle, flags = listings.open(directory, os.O_DIRECTORY)
    assert handle == MAY_USE_KEPT
    return OpenFlag(flags)


def reopened(listings: Listings, directory: InodeNo = DIRECTORY) -> OpenFlag:
    listings.close(directory, MAY_USE_KEPT)
    return opened(listings, directory)


FRESH, KEPT = OpenFlag.CACHE_DIR, OpenFlag.CACHE_DIR | OpenFlag.KEEP_CACHE


def test_what_is_whole_is_kept_until_the_directory_changes() -> None:
    listings = Listings()
    assert opened(listings) == FRESH, "who knows what the kernel has"
    listings.begin(DIRECTORY, MAY_USE_KEPT)
    assert not listings.end(DIRECTORY, MAY_USE_KEPT)
    assert reopened(listings) == KEPT
    listings.change(DIRECTORY)
    assert [reopened(listings), reopened(listings)] == [FRESH, KEPT]


def test_what_was_put_together_while_the_directory_changed_is_dropped_at_the_end() -> None:
    listings = Listings()
    opened(listings)
    listings.begin(DIRECTORY, MAY_USE_KEPT)
    listings.change(DIRECTORY)
    assert reopened(listings) == KEPT, "a part stays, or it could never become a whole"
    listings.begin(DIRECTORY, MAY_USE_KEPT)
    assert listings.end(DIRECTORY, MAY_USE_KEPT)
    assert not listings.end(DIRECTORY, MAY_USE_KEPT)
    assert reopened(listings) == KEPT


def test_a_directory_that_moves_has_another_parent() -> None:
    listings = Listings()
    opened(listings)
    assert listings.move(DIRECTORY), "what is whole is dropped at once, if somebody reads it"
    listings.begin(DIRECTORY, MAY_USE_KEPT)
    assert listings.end(DIRECTORY, MAY_USE_KEPT)
    listings.begin(DIRECTORY, MAY_USE_KEPT)
    assert not listings.move(DIRECTORY)
    assert listings.end(DIRECTORY, MAY_USE_KEPT), "and a part at the end"
    listings.close(DIRECTORY, MAY_USE_KEPT)
    assert not listings.move(DIRECTORY), "nobody reads it"
    assert opened(listings) == FRESH


@pytest.mark.parametrize(("flags", "is_read"), [(os.O_DIRECTORY, True), (0, False)])
def test_who_asks_for_everything_changes_nothing(flags: int, is_read: bool) -> None:
    listings = Listings()
    if is_read:
        opened(listings)
    assert listings.open(DIRECTORY, flags) == (ASKS, OpenFlag.KEEP_CACHE)
    listings.begin(DIRECTORY, ASKS)
    listings.change(DIRECTORY)
    assert not listings.end(DIRECTORY, ASKS)
    listings.close(DIRECTORY, ASKS)
    if is_read:
        assert listings.open(DIRECTORY, flags) == (ASKS, OpenFlag.KEEP_CACHE), "there still is a reader"
        assert reopened(listings) == FRESH


@pytest.mark.parametrize("entries_read", range(1, 8))
def test_what_was_read_in_part_becomes_whole_again(entries_read: int) -> None:
    """It did not: what the kernel has of a part was dropped, and it does not begin anew before it has had the whole."""
    kernel = play(Listings(), [(1, number, 0) for number in range(1, 10)])
    kernel.open()
    reader = kernel.readers[-1]
    kernel.read(reader, entries_read)
    kernel.read(reader, entries_read)
    kernel.close(reader)
    kernel.change(PARENT_COOKIE + 5)
    kernel.learn()
    kernel.list()
    kernel.list()
    assert kernel.list() == 0


def served() -> Operations:
    """The handlers of a new volume. Nobody is mounted."""
    volume, options = new_volume(32 << 20), MountOptions()
    return Operations(volume, Committer(volume, options), Settled(volume, lambda ino: None), options)


def answer_to(operations: Operations, opcode: Opcode, ino: InodeNo, body: bytes) -> object:
    """Have a request answered, waiting if it has to."""

    async def serve() -> object:
        answer = operations.table()[opcode](ino, memoryview(body), (0, 0, 0))
        return await answer if isinstance(answer, Coroutine) else answer

    return trio.run(serve)


@pytest.mark.parametrize("opcode", [Opcode.READDIR, Opcode.READDIRPLUS])
def test_the_kernel_drops_what_it_has_before_it_is_told_that_there_is_no_more(opcode: Opcode) -> None:
    operations = served()
    dropped = list[InodeNo]()
    operations.listings.drop = dropped.append
    opened(operations.listings, ROOT_INODE)

    def asked(handle: int, after: int) -> object:
        return answer_to(operations, opcode, ROOT_INODE, READDIR.pack(handle, after, 4096))

    assert asked(MAY_USE_KEPT, 0) and asked(MAY_USE_KEPT, 2) == b""
    operations.listings.change(ROOT_INODE)
    assert asked(ASKS, 0) and asked(ASKS, 2) == b""
    assert asked(MAY_USE_KEPT, 0) and not dropped
    assert asked(MAY_USE_KEPT, 2) == b""
    assert dropped == [ROOT_INODE]


def test_entries_that_lead_nowhere_do_not_end_a_listing() -> None:
    """More of them in a row than fit a reply made an empty one, which the kernel takes for the end."""
    operations = served()
    volume = operations.volume
    for number in range(200):
        namespace.create(volume, ROOT_INODE, b"file %d" % number, 0o644, 0, 0)
    volume.checkpoint()
    listed = list(directories.entries(volume, ROOT_INODE))
    with volume.operation(Operation.SETATTR, ROOT_INODE):
        for _, _, entry in listed[:90]:
            volume.store.delete(inode_key(InodeNo(entry.inode)))
    volume.inodes.forget_all()
    names, after = list[bytes](), 2
    while given := answer_to(operations, Opcode.READDIRPLUS, ROOT_INODE, READDIR.pack(ASKS, after, 4096)):
        assert isinstance(given, bytes)
        at = ENTRY_OUT.size
        while at < len(given):
            _, after, length, _ = DIRENT.unpack_from(given, at)
            names.append(given[at + DIRENT.size : at + DIRENT.size + length])
            at += -(-(DIRENT.size + length) // DIRENT_ALIGN) * DIRENT_ALIGN + ENTRY_OUT.size
    assert names == [name for _, name, _ in listed[90:]]


Body = Callable[[InodeNo, InodeNo, InodeNo], bytes]  # of two directories and a file
CHANGES: dict[str, tuple[Opcode, Body, set[str]]] = {
    "mknod": (Opcode.MKNOD, lambda here, there, file: MKNOD.pack(stat.S_IFREG | 0o600, 0, 0) + b"new\0", {"here"}),
    "mkdir": (Opcode.MKDIR, lambda here, there, file: MKDIR.pack(0o700, 0) + b"new\0", {"here"}),
    "symlink": (Opcode.SYMLINK, lambda here, there, file: b"new\0target\0", {"here"}),
    "link": (Opcode.LINK, lambda here, there, file: LINK.pack(file) + b"new\0", {"here"}),
    "unlink": (Opcode.UNLINK, lambda here, there, file: b"file\0", {"here"}),
    "rmdir": (Opcode.RMDIR, lambda here, there, file: b"empty\0", {"here"}),
    "rename": (Opcode.RENAME, lambda here, there, file: RENAME.pack(here) + b"empty\0new\0", {"here"}),
    "rename elsewhere": (Opcode.RENAME, lambda here, there, file: RENAME.pack(there) + b"file\0new\0", {"here", "there"}),
    "move": (Opcode.RENAME2, lambda here, there, file: RENAME2.pack(there, 0) + b"empty\0new\0", {"here", "there", "empty"}),
    "exchange": (
        Opcode.RENAME2,
        lambda here, there, file: RENAME2.pack(there, RENAME_EXCHANGE) + b"empty\0other\0",
        {"here", "there", "empty", "other"},
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_changes_a_directory_says_so(change: str) -> None:
    operations = served()
    volume = operations.volume
    here, there = (namespace.mkdir(volume, ROOT_INODE, name, 0o755, 0, 0) for name in (b"here", b"there"))
    empty, other = namespace.mkdir(volume, here, b"empty", 0o755, 0, 0), namespace.mkdir(volume, there, b"other", 0o755, 0, 0)
    file = namespace.create(volume, here, b"file", 0o644, 0, 0)
    read = {"root": ROOT_INODE, "here": here, "there": there, "empty": empty, "other": other}
    for ino in read.values():
        opened(operations.listings, ino)
    dropped = list[InodeNo]()
    operations.listings.drop = dropped.append
    opcode, body, changed = CHANGES[change]
    answer_to(operations, opcode, here, body(here, there, file))
    assert {name for name, ino in read.items() if reopened(operations.listings, ino) == FRESH} == changed
    assert set(dropped) == {read[name] for name in changed - {"here", "there"}}, "what has moved"


def test_of_the_directories_that_are_remembered_there_is_an_end() -> None:
    listings, first = Listings(), InodeNo(1)
    opened(listings, first)
    for number in range(2, KNOWN_MAX + 20):
        opened(listings, InodeNo(number))
        listings.close(InodeNo(number), MAY_USE_KEPT)
        assert len(listings._kept) <= KNOWN_MAX
    assert reopened(listings, first) == KEPT, "somebody reads it"
    assert opened(listings, InodeNo(2)) == FRESH


def requests(mounted: Mounted) -> int:
    """How many requests there have been, without the one with which this waits for all before it."""
    os.statvfs(mounted.path)
    return mounted.greeting.requests - 1


def listed(mounted: Mounted, folder: Path) -> tuple[int, list[str]]:
    """List a directory; return how many requests that took, and the names."""
    os.stat(folder)  # one that has changed costs a GETATTR
    before = requests(mounted)
    names = os.listdir(folder)
    return requests(mounted) - before - 1, sorted(names)


@pytest.mark.mount
def test_a_listing_is_not_asked_for_twice(mounted: Mounted) -> None:
    folder = mounted.path / "folder"
    folder.mkdir()
    for number in range(300):
        (folder / f"file {number}").touch()
    count, names = listed(mounted, folder)
    assert (count > 4, len(names)) == (True, 300)
    assert listed(mounted, folder) == (2, names), "OPENDIR, RELEASEDIR"
    (folder / "one more").touch()
    count, more = listed(mounted, folder)
    assert (count > 4, more) == (True, [*names, "one more"])
    assert listed(mounted, folder) == (2, more)
    (folder / "one more").unlink()
    assert listed(mounted, folder)[1] == names


@pytest.mark.mount
def test_who_reads_beside_another_reader_asks_and_takes_nothing_from_it(mounted: Mounted) -> None:
    for number in range(300):
        (mounted.path / f"file {number}").touch()
    _, names = listed(mounted, mounted.path)
    with os.scandir(mounted.path) as first:
        seen = [next(first).name]
        count, beside = listed(mounted, mounted.path)
        assert (count > 4, beside) == (True, names)
        seen += [entry.name for entry in first]
    assert sorted(seen) == names
    assert listed(mounted, mounted.path) == (2, names), "the listing is still kept"


@pytest.mark.mount
def test_what_was_read_in_part_is_kept_again_after_a_change(mounted: Mounted) -> None:
    for number in range(300):
        (mounted.path / f"file {number}").touch()
    with os.scandir(mounted.path) as entries:
        next(entries)
    (mounted.path / "one more").touch()
    for _ in range(2):
        listed(mounted, mounted.path)
    count, names = listed(mounted, mounted.path)
    assert (count, len(names)) == (2, 301)


@pytest.mark.mount
def test_a_reader_that_goes_back_to_the_start_sees_what_has_changed(mounted: Mounted) -> None:
    (mounted.path / "old").touch()
    descriptor = os.open(mounted.path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        assert [name for name, _, _ in entries(descriptor)] == [".", "..", "old"]
        (mounted.path / "old").rename(mounted.path / "new")
        os.lseek(descriptor, 0, os.SEEK_SET)
        assert [name for name, _, _ in entries(descriptor)] == [".", "..", "new"]
    finally:
        os.close(descriptor)


@pytest.mark.mount
def test_an_open_directory_that_has_moved_tells_where_it_is_now(mounted: Mounted) -> None:
    for name in ("a", "b", "a/moving"):
        (mounted.path / name).mkdir()
    descriptor = os.open(mounted.path / "a/moving", os.O_RDONLY | os.O_DIRECTORY)
    try:
        assert entries(descriptor)[1][1] == (mounted.path / "a").stat().st_ino
        assert not entries(descriptor), "all of it is kept now"
        (mounted.path / "a/moving").rename(mounted.path / "b/moving")
        os.lseek(descriptor, 0, os.SEEK_SET)
        assert entries(descriptor)[1][1] == (mounted.path / "b").stat().st_ino
    finally:
        os.close(descriptor)
    (mounted.path / "b/moving").rename(mounted.path / "a/moving")
    with os.scandir(mounted.path / "a/moving"):
        assert os.stat(mounted.path / "a/moving/..").st_ino == (mounted.path / "a").stat().st_ino


@pytest.mark.mount
def test_streams_on_a_mount_are_what_posix_wants(mounted: Mounted) -> None:
    print(f"seed {SEED}")
    source = random.Random(SEED)
    for number in range(REAL_WALKS):
        directory = WatchedDirectory(mounted.path / f"walk {number}")
        try:
            for _ in range(REAL_LENGTH):
                directory.step(source)
        finally:
            directory.close()
        assert directory.ends > REAL_LENGTH // 40, "readers come to the end"
