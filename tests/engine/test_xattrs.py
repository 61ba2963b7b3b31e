"""Extended attributes: every size, every refusal, and the one that the filesystem itself understands."""

import errno
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from razortools.engine import namespace, xattrs
from razortools.engine.volume import Volume
from razortools.errors import CorruptImage, PosixError
from razortools.format.compression import Algorithm
from razortools.format.inode import ROOT_INODE
from razortools.format.keys import HASH_MIN
from razortools.units import MIB, InodeNo
from tests.engine.tree_rules import check_rules
from tests.engine.volumes import new_device, new_volume, open_again

R = ROOT_INODE
NOISE = random.Random(4711).randbytes(65536)


def new_file(volume: Volume, name: bytes = b"f", parent: InodeNo = R) -> InodeNo:
    return namespace.create(volume, parent, name, 0o644, 0, 0)


@pytest.mark.parametrize("size", [0, 1, 500, 2000, 2100, 4096, 4097, 65535, 65536])
@pytest.mark.parametrize("image_bytes", [8 * MIB, 32 * MIB])
def test_a_value_of_any_size_comes_back_and_goes_without_a_trace(size: int, image_bytes: int) -> None:
    device = new_device(image_bytes)
    with open_again(device) as volume:
        ino = new_file(volume)
        xattrs.set(volume, ino, b"user.value", NOISE[:size])
    with open_again(device) as volume:
        assert xattrs.get(volume, ino, b"user.value") == NOISE[:size]
        assert xattrs.names(volume, ino) == [b"user.value"]
        check_rules(volume)
        xattrs.remove(volume, ino, b"user.value")
        assert xattrs.names(volume, ino) == []
        assert volume.counters.data_blocks == 0
        check_rules(volume)


@given(sizes=st.lists(st.sampled_from([0, 10, 1000, 3000, 20_000, 65_536]), min_size=1, max_size=8))
def test_a_value_that_is_replaced_gives_its_blocks_back(sizes: list[int]) -> None:
    volume = new_volume(8 * MIB)
    ino = new_file(volume)
    for size in sizes:
        xattrs.set(volume, ino, b"user.value", NOISE[:size])
        check_rules(volume)
    assert xattrs.get(volume, ino, b"user.value") == NOISE[: sizes[-1]]


def test_large_values_are_compressed_when_that_saves_blocks() -> None:
    volume = new_volume()
    ino = new_file(volume)
    xattrs.set(volume, ino, b"user.text", b"the same again " * 4000)
    assert volume.inodes.get(ino).stored_blocks == 1
    assert xattrs.get(volume, ino, b"user.text") == b"the same again " * 4000


REFUSALS = [
    (b"user.there", b"", xattrs.XATTR_CREATE, errno.EEXIST),
    (b"user.absent", b"", xattrs.XATTR_REPLACE, errno.ENODATA),
    (b"", b"", 0, errno.ERANGE),
    (b"user." + b"n" * 251, b"", 0, errno.ERANGE),
    (b"user.value", b"v" * 65537, 0, errno.E2BIG),
    (b"user.value", b"", 4, errno.EINVAL),
    (b"nonsense.value", b"", 0, errno.EOPNOTSUPP),
    (b"user.", b"", 0, errno.EINVAL),
    (b"system.other", b"", 0, errno.EOPNOTSUPP),
    (xattrs.COMPRESSION, b"brotli", 0, errno.EINVAL),
    (xattrs.COMPRESSION, b"zstd:99", 0, errno.EINVAL),
    (xattrs.COMPRESSION, b"\xff", 0, errno.EINVAL),
]


@pytest.mark.parametrize(("name", "value", "flags", "number"), REFUSALS)
def test_what_is_refused_changes_nothing(name: bytes, value: bytes, flags: int, number: int) -> None:
    volume = new_volume()
    ino = new_file(volume)
    xattrs.set(volume, ino, b"user.there", b"1")
    before = volume.inodes.get(ino).encode()
    with pytest.raises(PosixError) as refused:
        xattrs.set(volume, ino, name, value, flags)
    assert refused.value.mount_errno == number
    assert volume.inodes.get(ino).encode() == before
    assert xattrs.names(volume, ino) == [b"user.there"]


def test_the_usual_namespaces_are_there() -> None:
    volume = new_volume()
    ino = new_file(volume)
    names = [b"user.a", b"trusted.overlay.opaque", b"security.capability", xattrs.ACCESS_ACL, xattrs.DEFAULT_ACL]
    for name in names:
        xattrs.set(volume, ino, name, b"v")
    assert sorted(xattrs.names(volume, ino)) == sorted(names)


def test_links_and_fifos_have_no_user_attributes_but_others() -> None:
    volume = new_volume()
    link = namespace.symlink(volume, R, b"l", b"target", 0, 0)
    with pytest.raises(PosixError) as refused:
        xattrs.set(volume, link, b"user.a", b"")
    assert refused.value.mount_errno == errno.EPERM
    xattrs.set(volume, link, b"security.selinux", b"label")
    assert xattrs.get(volume, link, b"security.selinux") == b"label"


def test_a_list_of_names_never_grows_beyond_what_can_be_read() -> None:
    volume = new_volume(32 * MIB)
    ino = new_file(volume)
    with pytest.raises(PosixError) as refused:
        for number in range(400):
            xattrs.set(volume, ino, b"user.%0250d" % number, b"")
    assert refused.value.mount_errno == errno.ENOSPC
    assert sum(len(name) + 1 for name in xattrs.names(volume, ino)) <= 65536
    xattrs.set(volume, ino, b"user.%0250d" % 0, b"old ones can still change")


def test_names_with_equal_hashes_live_side_by_side(monkeypatch: pytest.MonkeyPatch) -> None:
    volume = new_volume()
    ino = new_file(volume)
    monkeypatch.setattr(volume.names, "hash", lambda name: HASH_MIN)
    for number in range(16):
        xattrs.set(volume, ino, b"user.%d" % number, b"%d" % number)
    with pytest.raises(PosixError) as refused:
        xattrs.set(volume, ino, b"user.one more", b"")
    assert refused.value.mount_errno == errno.ENOSPC
    xattrs.remove(volume, ino, b"user.3")
    assert all(xattrs.get(volume, ino, b"user.%d" % number) == b"%d" % number for number in range(16) if number != 3)


def test_compression_is_handed_down_to_files_and_directories() -> None:
    volume = new_volume()
    top = namespace.mkdir(volume, R, b"top", 0o755, 0, 0)
    xattrs.set(volume, top, xattrs.COMPRESSION, b"zstd:9")
    below = namespace.mkdir(volume, top, b"below", 0o755, 0, 0)
    ino = new_file(volume, b"f", below)
    for inherited in (top, below, ino):
        inode = volume.inodes.get(inherited)
        assert (inode.compression, inode.compression_level) == (Algorithm.ZSTD, 9)
        assert xattrs.get(volume, inherited, xattrs.COMPRESSION) == b"zstd:9"
    assert xattrs.names(volume, namespace.symlink(volume, top, b"l", b"t", 0, 0)) == []
    xattrs.remove(volume, ino, xattrs.COMPRESSION)
    assert volume.inodes.get(ino).compression == volume.store.superblock.compression
    check_rules(volume)


def test_compression_with_the_end_that_some_tools_write_is_understood() -> None:
    volume = new_volume()
    ino = new_file(volume)
    xattrs.set(volume, ino, xattrs.COMPRESSION, b"lz4\0")
    assert volume.inodes.get(ino).compression == Algorithm.LZ4


def test_a_flipped_byte_in_a_large_value_is_an_error_and_never_a_value() -> None:
    device = new_device()
    with open_again(device) as volume:
        ino = new_file(volume)
        xattrs.set(volume, ino, b"user.large", NOISE[:5000])
        run = xattrs._find(volume, ino, b"user.large")
        assert run is not None
        record = run[1].out_of_line
        assert record is not None
    at = record.address * 4096 + 4999
    device.write(at, bytes([device.read(at, 1)[0] ^ 1]))
    with open_again(device) as volume, pytest.raises(CorruptImage, match="checksum"):
        xattrs.get(volume, ino, b"user.large")
