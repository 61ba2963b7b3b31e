"""Access control lists on the mount, as on the host's own filesystem: enforced, kept in step with the mode, handed down."""

import itertools
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mount.mounts import Mounted
from tests.mount.sidebyside import (
    ACCESS,
    ANNA,
    BERT,
    DEFAULT,
    EVERYBODY,
    LISTS,
    Story,
    acl,
    acting_as,
    append,
    make,
    mode_of,
    opened,
    picture,
    played,
    tried,
    working_in,
)

pytestmark = pytest.mark.mount


@pytest.fixture
def host(tmp_path: Path) -> Path:
    """An empty directory on the host's own filesystem, which must know these lists."""
    folder = tmp_path / "host"
    folder.mkdir()
    try:
        os.setxattr(folder, ACCESS, LISTS[2])
    except OSError:
        pytest.skip("the host's filesystem has no access control lists to compare with")
    os.removexattr(folder, ACCESS)
    return folder


def lists_of(path: str) -> tuple[object, ...]:
    """Return mode and lists of a file."""
    return mode_of(path), tried(os.getxattr, path, ACCESS), tried(os.getxattr, path, DEFAULT)


def a_list_and_the_mode_follow_each_other() -> Iterator[object]:
    make("file")
    os.mkdir("folder")
    for path, value in itertools.product(("file", "folder"), LISTS):
        for mode in (0o6777, 0o640, 0o000, 0o2715):
            yield tried(os.setxattr, path, ACCESS, value), lists_of(path)
            yield tried(os.chmod, path, mode), lists_of(path)
        yield tried(os.removexattr, path, ACCESS), lists_of(path)
        yield tried(os.removexattr, path, ACCESS), sorted(os.listxattr(path))


def lists_that_cannot_be() -> Iterator[object]:
    make("file")
    os.mkdir("folder")
    os.symlink("nowhere", "link")
    os.mkfifo("pipe")
    good = LISTS[3]
    swapped = good[:4] + good[12:20] + good[4:12] + good[20:]
    wrong = (b"", b"\2", good[:-1], good + b"\0", b"\1" + good[1:], good[:4] + good[12:], swapped)
    for path, name in itertools.product(("file", "folder", "link", "pipe"), (ACCESS, DEFAULT)):
        for value in (*wrong, acl("u:rwx u1001:rwx g:r-x o:---"), acl("u:rwx g:r-x m:rwx m:rwx o:---"), good):
            yield path, name, value, tried(os.setxattr, path, name, value, follow_symlinks=False)
            if path != "link":
                yield lists_of(path)
        yield path, name, tried(os.removexattr, path, name, follow_symlinks=False)


def only_the_owner_may_set_a_list() -> Iterator[object]:
    for path in ("file", "folder"):
        (make if path == "file" else os.mkdir)(path, 0o777)
        os.chown(path, ANNA.uid, 2003)
        for person, name in itertools.product(EVERYBODY, (ACCESS, DEFAULT)):
            with acting_as(person):
                yield person, path, name, tried(os.setxattr, path, name, LISTS[2]), tried(os.getxattr, path, name)
                yield tried(os.removexattr, path, name)


def a_list_set_from_outside_of_the_group_drops_the_set_gid_bit() -> Iterator[object]:
    for number, (gid, value) in enumerate(itertools.product((ANNA.gid, 2003, BERT.gid), LISTS)):
        for kind in (make, os.mkdir):
            path = f"{kind.__name__} {number}"
            kind(path, 0o755)
            os.chown(path, ANNA.uid, gid)
            os.chmod(path, 0o6755)
            with acting_as(ANNA):
                yield path, tried(os.setxattr, path, ACCESS, value), lists_of(path)


def what_a_list_allows_and_forbids() -> Iterator[object]:
    for number, value in enumerate(LISTS):
        make(f"file {number}", 0o600, b"content")
        os.mkdir(f"folder {number}", 0o700)
        make(f"folder {number}/inside")
        for path in (f"file {number}", f"folder {number}"):
            tried(os.setxattr, path, ACCESS, value)
            for owner, group in ((0, 0), (ANNA.uid, 2003), (BERT.uid, BERT.gid)):
                os.chown(path, owner, group)
                for person in EVERYBODY:
                    with acting_as(person):
                        yield person, path, owner, group
                        yield tried(opened, path, os.O_RDONLY), tried(append, path), tried(os.listdir, path)
                        yield tried(os.stat, f"{path}/absent"), tried(make, f"{path}/new"), tried(os.unlink, f"{path}/new")


def a_default_list_is_handed_down() -> Iterator[object]:
    for number, value in enumerate(LISTS):
        os.mkdir(f"{number}")
        os.chmod(f"{number}", 0o2777)
        yield tried(os.setxattr, f"{number}", DEFAULT, value), lists_of(f"{number}")
        for umask, mode in itertools.product((0o000, 0o022, 0o077), (0o777, 0o666, 0o640, 0o6711)):
            here = f"{number}/{umask:o} {mode:o}"
            with acting_as(ANNA):
                before = os.umask(umask)
                try:
                    os.close(os.open(f"{here} file", os.O_CREAT | os.O_WRONLY, mode))
                    os.mkdir(f"{here} folder", mode)
                    os.mkfifo(f"{here} pipe", mode)
                    os.mknod(f"{here} socket", stat.S_IFSOCK | mode)
                    os.symlink("nowhere", f"{here} link")
                finally:
                    os.umask(before)
            os.mkdir(f"{here} folder/second", mode)
            yield [(name, lists_of(f"{here} {name}")) for name in ("file", "folder", "folder/second", "pipe", "socket")]
            yield mode_of(f"{here} link"), os.listxattr(f"{here} link", follow_symlinks=False)


STORIES: tuple[Story, ...] = (
    a_list_and_the_mode_follow_each_other,
    lists_that_cannot_be,
    only_the_owner_may_set_a_list,
    a_list_set_from_outside_of_the_group_drops_the_set_gid_bit,
    what_a_list_allows_and_forbids,
    a_default_list_is_handed_down,
)


@pytest.mark.parametrize("story", STORIES, ids=lambda story: story.__name__)
def test_lists_on_the_mount_tell_the_same_story_as_on_the_host(mnt: Path, host: Path, story: Story) -> None:
    for ours, theirs in zip(played(story, mnt), played(story, host), strict=True):
        assert ours == theirs


def test_lists_outlive_the_mount(mounted: Mounted) -> None:
    folder = mounted.path / "folder"
    folder.mkdir()
    with working_in(folder):
        for _ in a_default_list_is_handed_down():
            pass
        picture()  # makes all times old
        before = picture()
        assert any(ACCESS in seen[-1] for seen in before.values() if isinstance(seen, tuple))  # there is something to lose
    mounted.remount()
    with working_in(folder):
        assert picture() == before
