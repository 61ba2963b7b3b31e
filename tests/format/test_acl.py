"""Access control lists as the kernel has them: every list there can be comes back, everything else is refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from razortools.format.acl import NOBODY, Acl, AclEntry, Tag, decode_acl, encode_acl

PERMISSIONS = st.integers(0, 7)
NAMED = st.lists(st.tuples(PERMISSIONS, st.integers(0, NOBODY - 1)), max_size=5)


@st.composite
def acls(draw: st.DrawFn) -> Acl:
    users = [AclEntry(Tag.USER, *words) for words in draw(NAMED)]
    groups = [AclEntry(Tag.GROUP, *words) for words in draw(NAMED)]
    mask = [AclEntry(Tag.MASK, draw(PERMISSIONS))] if users or groups or draw(st.booleans()) else []
    owner, group, others = (AclEntry(tag, draw(PERMISSIONS)) for tag in (Tag.OWNER, Tag.OWNING_GROUP, Tag.OTHERS))
    return (owner, *users, group, *groups, *mask, others)


@given(acl=acls())
def test_every_list_comes_back(acl: Acl) -> None:
    assert decode_acl(encode_acl(acl)) == acl


def test_the_kernels_own_bytes_are_understood() -> None:
    value = bytes.fromhex("02000000 01000700ffffffff 02000700e9030000 04000500ffffffff 10000600ffffffff 20000400ffffffff")
    assert [(entry.tag.name, entry.permissions, entry.who) for entry in decode_acl(value)] == [
        ("OWNER", 7, NOBODY),
        ("USER", 7, 1001),
        ("OWNING_GROUP", 5, NOBODY),
        ("MASK", 6, NOBODY),
        ("OTHERS", 4, NOBODY),
    ]


@given(value=st.binary(max_size=60) | st.binary(max_size=56).map(lambda tail: b"\2\0\0\0" + tail))
def test_anything_else_is_refused_and_never_crashes(value: bytes) -> None:
    try:
        acl = decode_acl(value)
    except ValueError:
        return
    assert acl == () or {Tag.OWNER, Tag.OWNING_GROUP, Tag.OTHERS}.issubset(entry.tag for entry in acl)


@given(acl=acls(), data=st.data())
def test_a_list_without_one_of_its_three_pillars_is_refused(acl: Acl, data: st.DataObject) -> None:
    gone = data.draw(st.sampled_from((Tag.OWNER, Tag.OWNING_GROUP, Tag.OTHERS)))
    with pytest.raises(ValueError, match="one entry each"):
        decode_acl(encode_acl(tuple(entry for entry in acl if entry.tag is not gone)))
