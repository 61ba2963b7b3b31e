"""Access control lists in the engine: one operation changes list and mode, and a full image stays whole.

What lists mean is compared with the host's filesystem in tests/mount/test_acls.py.
"""

import errno
import random
import stat

import pytest

from razortools.engine import acls, files, namespace, xattrs
from razortools.engine.namespace import AttributeChange
from razortools.engine.volume import Volume
from razortools.engine.xattrs import ACCESS_ACL, DEFAULT_ACL
from razortools.errors import OutOfSpace, PosixError
from razortools.format.acl import AclEntry, Tag, decode_acl, encode_acl
from razortools.format.inode import ROOT_INODE
from razortools.units import MIB, InodeNo
from tests.engine.tree_rules import check_rules
from tests.engine.volumes import new_volume

R = ROOT_INODE


def named(*uids: int) -> bytes:
    """Return a list that lets some users do everything, with a mask of rwx."""
    users = (AclEntry(Tag.USER, 7, uid) for uid in uids)
    owner, group, mask, others = (
        AclEntry(tag, bits) for tag, bits in ((Tag.OWNER, 7), (Tag.OWNING_GROUP, 5), (Tag.MASK, 7), (Tag.OTHERS, 0))
    )
    return encode_acl((owner, *users, group, mask, others))


def mode_of(volume: Volume, ino: InodeNo) -> int:
    return stat.S_IMODE(volume.inodes.get(ino).mode)


def test_a_list_that_fails_half_way_leaves_mode_and_list_as_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    volume = new_volume()
    ino = namespace.create(volume, R, b"file", 0o640, 1, 1)
    before = volume.inodes.get(ino).encode()

    def fail(*_: object) -> None:
        raise OSError(errno.EIO, "the last step fails")

    with monkeypatch.context() as broken:
        broken.setattr(type(volume.inodes), "put", fail)
        with pytest.raises(OSError, match="the last step fails"):
            acls.set(volume, ino, ACCESS_ACL, named(1001))
    assert volume.inodes.get(ino).encode() == before
    assert xattrs.names(volume, ino) == []


def test_a_mode_changes_the_mask_of_a_list_and_not_what_the_list_says_of_the_group() -> None:
    volume = new_volume()
    ino = namespace.create(volume, R, b"file", 0o640, 1, 1)
    acls.set(volume, ino, ACCESS_ACL, named(1001))
    assert mode_of(volume, ino) == 0o770
    namespace.setattr(volume, ino, AttributeChange(mode=0o604))
    found = {entry.tag: entry.permissions for entry in decode_acl(xattrs.get(volume, ino, ACCESS_ACL))}
    assert found == {Tag.OWNER: 6, Tag.USER: 7, Tag.OWNING_GROUP: 5, Tag.MASK: 0, Tag.OTHERS: 4}
    assert mode_of(volume, ino) == 0o604


def test_a_stored_default_list_that_is_none_refuses_new_files() -> None:
    volume = new_volume()
    xattrs.set(volume, R, DEFAULT_ACL, b"rubbish")  # as a tarball may bring it
    with pytest.raises(PosixError) as refused:
        namespace.create(volume, R, b"file", 0o644, 1, 1)
    assert refused.value.mount_errno == errno.EINVAL


@pytest.mark.parametrize("user_count", [1, 100, 500])  # in the tree, at its limit, in blocks of its own
def test_directories_that_hand_down_lists_fill_an_image_and_leave_it_whole(user_count: int) -> None:
    volume = new_volume(2 * MIB)
    acls.set(volume, R, DEFAULT_ACL, named(*range(1000, 1000 + user_count)))
    made = 0
    with pytest.raises(OutOfSpace):
        while True:
            namespace.mkdir(volume, R, b"%d" % made, 0o777, 1, 1)
            made += 1
    volume.checkpoint()
    check_rules(volume)
    assert made > 3
    for number in range(made):
        namespace.rmdir(volume, R, b"%d" % number)
    volume.checkpoint()
    check_rules(volume)


def test_lists_in_blocks_of_their_own_take_no_room_that_was_promised_to_data() -> None:
    volume = new_volume(2 * MIB)
    ino = namespace.create(volume, R, b"file", 0o644, 1, 1)
    acls.set(volume, R, DEFAULT_ACL, named(*range(1000, 1500)))
    contents = random.Random(1).randbytes(1 * MIB)  # shrinks by nothing: each promised block is needed
    written = 0
    with pytest.raises(OutOfSpace):
        while True:
            written += files.write(volume, ino, written, contents[written : written + 4096])
            namespace.mkdir(volume, R, b"%d" % written, 0o777, 1, 1)
    volume.commit()
    volume.checkpoint()
    assert files.read(volume, ino, 0, written) == contents[:written]
    check_rules(volume)


def test_the_room_asked_for_covers_what_lists_take() -> None:
    volume = new_volume(2 * MIB)
    value = named(*range(1000, 1500))
    acls.set(volume, R, DEFAULT_ACL, value)
    taken = volume.inodes.get(namespace.mkdir(volume, R, b"folder", 0o777, 1, 1)).stored_blocks
    assert 0 < taken <= xattrs.block_count(volume, [(ACCESS_ACL, value), (DEFAULT_ACL, value)])
    assert xattrs.block_count(volume, [(ACCESS_ACL, named(1001))]) == 0
