"""Directories as items: finding, walking while they change, and the way back from an inode to its names."""

import errno
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from razortools.engine import directories, namespace
from razortools.engine.names import NO_ID
from razortools.engine.volume import Volume
from razortools.errors import CorruptImage, PosixError
from razortools.format.inode import ROOT_INODE
from razortools.format.keys import HASH_MIN, PROBE_WINDOW
from razortools.units import InodeNo
from tests.engine.tree_rules import check_rules
from tests.engine.volumes import new_volume


def names(volume: Volume, directory: InodeNo = ROOT_INODE) -> set[bytes]:
    return {name for _, name, _ in directories.entries(volume, directory)}


def make(volume: Volume, name: bytes, parent: InodeNo = ROOT_INODE) -> InodeNo:
    return namespace.create(volume, parent, name, 0o644, 0, 0)


@pytest.mark.parametrize(
    ("name", "number"),
    [
        (b"", errno.EINVAL),
        (b".", errno.EINVAL),
        (b"..", errno.EINVAL),
        (b"a/b", errno.EINVAL),
        (b"a\0b", errno.EINVAL),
        (b"n" * 256, errno.ENAMETOOLONG),
    ],
)
def test_impossible_names_are_refused(name: bytes, number: int) -> None:
    with pytest.raises(PosixError) as refused:
        directories.check_name(name)
    assert refused.value.mount_errno == number


@given(name=st.binary(min_size=1, max_size=255).filter(lambda name: not set(name) & {0, 0x2F} and name not in (b".", b"..")))
def test_all_other_names_are_possible(name: bytes) -> None:
    directories.check_name(name)


@given(seed=st.integers(0, 1 << 32), start=st.integers(0, 60))
def test_a_walk_shows_what_stays_exactly_once_whatever_comes_and_goes(seed: int, start: int) -> None:
    chance = random.Random(seed)
    volume = new_volume(2 << 20)
    for number in range(start):
        make(volume, b"old-%d" % number)
    staying = names(volume)
    seen: list[bytes] = []
    cookie = 0
    while True:
        page = []
        for next_cookie, name, _ in directories.entries(volume, ROOT_INODE, cookie):
            assert next_cookie > cookie
            cookie = next_cookie
            page.append(name)
            if chance.random() < 0.4:  # between two entries of one walk
                make(volume, b"new-%d" % chance.getrandbits(60))
            if len(page) == 5:
                break
        if not page:
            break
        seen += page
        for name in list(names(volume)):  # between two walks
            if chance.random() < 0.1:
                namespace.unlink(volume, ROOT_INODE, name)
                staying.discard(name)
    assert len(seen) == len(set(seen))
    assert staying <= set(seen)


def test_names_with_equal_hashes_live_side_by_side_until_the_window_is_full(monkeypatch: pytest.MonkeyPatch) -> None:
    volume = new_volume()
    monkeypatch.setattr(volume.names, "known", lambda name: (HASH_MIN + 5, NO_ID))
    made = {b"%d" % number: make(volume, b"%d" % number) for number in range(PROBE_WINDOW)}
    with pytest.raises(PosixError) as refused:
        make(volume, b"one more")
    assert refused.value.mount_errno == errno.ENOSPC
    namespace.unlink(volume, ROOT_INODE, b"3")  # leaves a gap before others of the window
    del made[b"3"]
    assert {name: namespace.lookup(volume, ROOT_INODE, name) for name in made} == made
    made[b"one more"] = make(volume, b"one more")
    assert names(volume) == set(made)
    check_rules(volume)


def test_paths_leads_back_from_an_inode_to_all_its_names() -> None:
    volume = new_volume()
    a = namespace.mkdir(volume, ROOT_INODE, b"a", 0o755, 0, 0)
    b = namespace.mkdir(volume, a, b"b", 0o755, 0, 0)
    file = make(volume, b"file", b)
    namespace.link(volume, file, ROOT_INODE, b"link")
    assert directories.paths(volume, file) == [b"/a/b/file", b"/link"]
    assert directories.paths(volume, b) == [b"/a/b"]
    assert directories.paths(volume, ROOT_INODE) == [b"/"]
    namespace.rename(volume, a, b"b", ROOT_INODE, b"c")
    assert directories.paths(volume, file) == [b"/c/file", b"/link"]
    assert directories.parent_of(volume, b) == ROOT_INODE
    assert directories.parent_of(volume, ROOT_INODE) == ROOT_INODE


def test_the_first_path_is_one_of_them_and_looks_no_further(monkeypatch: pytest.MonkeyPatch) -> None:
    volume = new_volume()
    a = namespace.mkdir(volume, ROOT_INODE, b"a", 0o755, 0, 0)
    file = make(volume, b"file", a)
    for number in range(50):
        namespace.link(volume, file, ROOT_INODE, b"link %d" % number)
    looked: list[int] = []
    text = volume.names.text
    monkeypatch.setattr(volume.names, "text", lambda name: looked.append(name) or text(name))
    assert directories.first_path(volume, file) == b"/a/file" and len(looked) == 2
    assert directories.first_path(volume, a) == b"/a"
    assert directories.first_path(volume, ROOT_INODE) == b"/"
    namespace.hold(volume, a)
    namespace.unlink(volume, a, b"file")
    namespace.rmdir(volume, ROOT_INODE, b"a")
    assert directories.first_path(volume, a) == b""


def test_of_a_very_long_path_the_end_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """Strangers can make it be asked for, as with a chmod that is audited: it took seconds, and memory without bound."""
    volume = new_volume()
    directory = ROOT_INODE
    for _ in range(60):
        directory = namespace.mkdir(volume, directory, b"n" * 99, 0o755, 0, 0)
    shown = directories.first_path(volume, directory)
    assert shown.startswith(b".../nnn") and shown.count(b"/") == 41 and len(shown) < directories.SHOWN_BYTES_MAX + 260


def test_an_orphan_has_no_path_and_a_removed_directory_no_parent() -> None:
    volume = new_volume()
    directory = namespace.mkdir(volume, ROOT_INODE, b"d", 0o755, 0, 0)
    namespace.hold(volume, directory)
    namespace.rmdir(volume, ROOT_INODE, b"d")
    assert directories.paths(volume, directory) == []
    with pytest.raises(PosixError) as refused:
        directories.parent_of(volume, directory)
    assert refused.value.mount_errno == errno.ENOENT


def test_as_deep_as_there_are_directories_is_no_circle(monkeypatch: pytest.MonkeyPatch) -> None:
    """A walk of more than a million steps was called damage, whatever the image held."""
    volume = new_volume()
    monkeypatch.setattr(directories, "STEPS_MIN", 3)
    chain = [ROOT_INODE]
    for _ in range(9):
        chain.append(namespace.mkdir(volume, chain[-1], b"d", 0o755, 0, 0))
    assert list(directories.ancestors(volume, chain[-1])) == chain[::-1]


def test_a_circle_of_directories_is_damage_and_not_an_endless_walk(monkeypatch: pytest.MonkeyPatch) -> None:
    volume = new_volume()
    monkeypatch.setattr(directories, "STEPS_MIN", 100)
    monkeypatch.setattr(directories, "parent_of", lambda _, directory: 5 - directory)
    with pytest.raises(CorruptImage, match="does not lead to the root"):
        list(directories.ancestors(volume, InodeNo(2)))
