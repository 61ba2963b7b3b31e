"""Rename: a table of all its refusals, and what it must never lose."""

import errno

import pytest

from razortools.engine import directories, files, namespace
from razortools.engine.namespace import RENAME_EXCHANGE, RENAME_NOREPLACE
from razortools.engine.volume import Volume
from razortools.errors import PosixError
from razortools.format.inode import ROOT_INODE
from razortools.units import InodeNo
from tests.engine.tree_rules import check_rules
from tests.engine.volumes import items, new_volume

R = ROOT_INODE


def a_tree() -> Volume:
    """/f, /g (a second name of /f), /h, /empty, /d with /d/f and /d/below."""
    volume = new_volume()
    file = namespace.create(volume, R, b"f", 0o644, 0, 0)
    namespace.link(volume, file, R, b"g")
    namespace.create(volume, R, b"h", 0o644, 0, 0)
    namespace.mkdir(volume, R, b"empty", 0o755, 0, 0)
    directory = namespace.mkdir(volume, R, b"d", 0o755, 0, 0)
    namespace.create(volume, directory, b"f", 0o644, 0, 0)
    namespace.mkdir(volume, directory, b"below", 0o755, 0, 0)
    return volume


def place(volume: Volume, path: bytes) -> tuple[InodeNo, bytes]:
    parent, _, name = path.rpartition(b"/")
    return namespace.resolve(volume, parent or b"/"), name


def rename(volume: Volume, path: bytes, new_path: bytes, flags: int = 0) -> None:
    namespace.rename(volume, *place(volume, path), *place(volume, new_path), flags)


REFUSALS = [
    (b"/absent", b"/x", 0, errno.ENOENT),
    (b"/f/x", b"/x", 0, errno.ENOTDIR),
    (b"/f", b"/f/x", 0, errno.ENOTDIR),
    (b"/f", b"/empty", 0, errno.EISDIR),
    (b"/empty", b"/f", 0, errno.ENOTDIR),
    (b"/empty", b"/d", 0, errno.ENOTEMPTY),
    (b"/d", b"/d/x", 0, errno.EINVAL),
    (b"/d", b"/d/below", 0, errno.EINVAL),
    (b"/d", b"/d/below/x", 0, errno.EINVAL),
    (b"/d/below", b"/d", 0, errno.ENOTEMPTY),
    (b"/d/f", b"/d", 0, errno.ENOTEMPTY),  # not EISDIR: Linux looks for ancestors first
    (b"/d/below", b"/d", RENAME_EXCHANGE, errno.EINVAL),
    (b"/d", b"/d/below", RENAME_EXCHANGE, errno.EINVAL),
    (b"/f", b"/h", RENAME_NOREPLACE, errno.EEXIST),
    (b"/f", b"/g", RENAME_NOREPLACE, errno.EEXIST),
    (b"/f", b"/f", RENAME_NOREPLACE, errno.EEXIST),
    (b"/f", b"/absent", RENAME_EXCHANGE, errno.ENOENT),
    (b"/f", b"/x", RENAME_EXCHANGE | RENAME_NOREPLACE, errno.EINVAL),
    (b"/f", b"/x", 4, errno.EINVAL),
    (b"/f", b"/" + b"n" * 256, 0, errno.ENAMETOOLONG),
    (b"/f", b"/.", 0, errno.EINVAL),
]


@pytest.mark.parametrize(("path", "new_path", "flags", "number"), REFUSALS)
def test_what_is_refused_changes_nothing(path: bytes, new_path: bytes, flags: int, number: int) -> None:
    volume = a_tree()
    before = items(volume)
    with pytest.raises(PosixError) as refused:
        rename(volume, path, new_path, flags)
    assert refused.value.mount_errno == number
    assert items(volume) == before


@pytest.mark.parametrize(("path", "new_path", "flags"), [(b"/f", b"/f", 0), (b"/f", b"/g", 0), (b"/f", b"/g", RENAME_EXCHANGE)])
def test_two_names_of_one_file_stay_as_they_are(path: bytes, new_path: bytes, flags: int) -> None:
    volume = a_tree()
    before = items(volume)
    rename(volume, path, new_path, flags)
    assert items(volume) == before


@pytest.mark.parametrize(
    ("path", "new_path", "flags"),
    [
        (b"/f", b"/x", 0),
        (b"/f", b"/h", 0),
        (b"/f", b"/d/f", 0),
        (b"/h", b"/d/x", RENAME_NOREPLACE),
        (b"/d", b"/empty", 0),
        (b"/d/below", b"/empty", 0),
        (b"/d/below", b"/x", 0),
        (b"/d", b"/empty/x", 0),
        (b"/f", b"/d", RENAME_EXCHANGE),
        (b"/f", b"/d/below", RENAME_EXCHANGE),
        (b"/d/below", b"/h", RENAME_EXCHANGE),
        (b"/d/below", b"/empty", RENAME_EXCHANGE),
    ],
)
def test_what_is_moved_arrives_and_the_tree_is_sound(path: bytes, new_path: bytes, flags: int) -> None:
    volume = a_tree()
    moved = namespace.resolve(volume, path)
    other = namespace.resolve(volume, new_path) if flags == RENAME_EXCHANGE else None
    rename(volume, path, new_path, flags)
    assert namespace.resolve(volume, new_path) == moved
    if other is None:
        with pytest.raises(PosixError):
            namespace.resolve(volume, path)
    else:
        assert namespace.resolve(volume, path) == other
    if volume.inodes.get(moved).is_directory:
        assert directories.parent_of(volume, moved) == place(volume, new_path)[0]
    check_rules(volume)


def test_saving_a_file_by_renaming_keeps_old_readers_and_new_contents() -> None:
    volume = new_volume()
    old = namespace.create(volume, R, b"file", 0o644, 0, 0)
    files.write(volume, old, 0, b"old")
    namespace.hold(volume, old)
    new = namespace.create(volume, R, b"file.tmp", 0o644, 0, 0)
    files.write(volume, new, 0, b"new")
    namespace.rename(volume, R, b"file.tmp", R, b"file")
    assert files.read(volume, namespace.lookup(volume, R, b"file"), 0, 10) == b"new"
    assert files.read(volume, old, 0, 10) == b"old"
    namespace.release(volume, old)
    with pytest.raises(PosixError):
        volume.inodes.get(old)
    check_rules(volume)


def test_nothing_can_be_moved_into_a_directory_that_was_removed_while_open() -> None:
    volume = a_tree()
    gone = namespace.resolve(volume, b"/empty")
    namespace.hold(volume, gone)
    namespace.rmdir(volume, R, b"empty")
    for name in (b"f", b"d"):
        with pytest.raises(PosixError) as refused:
            namespace.rename(volume, R, name, gone, b"x")
        assert refused.value.mount_errno == errno.ENOENT
