"""Access control lists as archives write them: every program's way of it, and nothing that is none."""

import pwd

import pytest
from hypothesis import given
from hypothesis import strategies as st

from razortools.engine.populate.acl_text import parse_acl
from razortools.engine.populate.pax import pax_acls
from razortools.format.acl import AclEntry, Tag, encode_acl

WORDS = dict(zip(Tag, ("user", "user", "group", "group", "mask", "other"), strict=True))
EXPECTED = (
    AclEntry(Tag.OWNER, 7),
    AclEntry(Tag.USER, 4, 0),
    AclEntry(Tag.USER, 6, 1234),
    AclEntry(Tag.OWNING_GROUP, 5),
    AclEntry(Tag.GROUP, 1, 99),
    AclEntry(Tag.MASK, 7),
    AclEntry(Tag.OTHERS, 0),
)


def bits_of(permissions: int) -> str:
    return "".join(letter if permissions & bit else "-" for letter, bit in zip("rwx", (4, 2, 1), strict=True))


@given(
    users=st.dictionaries(st.integers(0, 0xFFFF_FFFE), st.integers(0, 7), max_size=4),
    groups=st.dictionaries(st.integers(0, 0xFFFF_FFFE), st.integers(0, 7), max_size=4),
    others=st.tuples(*[st.integers(0, 7)] * 4),
    data=st.data(),
)
def test_what_is_written_as_text_is_read_as_it_was(
    users: dict[int, int], groups: dict[int, int], others: tuple[int, ...], data: st.DataObject
) -> None:
    owner, group, mask, rest = others
    acl = (
        AclEntry(Tag.OWNER, owner),
        *(AclEntry(Tag.USER, bits, who) for who, bits in sorted(users.items())),
        AclEntry(Tag.OWNING_GROUP, group),
        *(AclEntry(Tag.GROUP, bits, who) for who, bits in sorted(groups.items())),
        AclEntry(Tag.MASK, mask),
        AclEntry(Tag.OTHERS, rest),
    )
    named = (Tag.USER, Tag.GROUP)
    lines = [f"{WORDS[one.tag]}:{one.who if one.tag in named else ''}:{bits_of(one.permissions)}" for one in acl]
    assert parse_acl(data.draw(st.sampled_from(["\n", ",", " , "])).join(data.draw(st.permutations(lines)))) == acl


@pytest.mark.parametrize(
    "text",
    [
        "user::rwx\nuser:root:r--\nuser:1234:rw-\ngroup::r-x\ngroup:99:--x\nmask::rwx\nother::---\n",  # GNU tar
        "user::rwx,group::r-x,mask::rwx,other::---,user:root:r--:0,user:1234:rw-:1234,group:not here:--x:99",  # star, bsdtar
        "u::rwx,u:0:r--,u:1234:rw-,g::r-x,g:99:--x,m::rwx,o::---",
        "user::rwx,user:0:r--,user:1234:rw-,group::r-x,group:99:--x,mask:rwx,other:---",  # Solaris
        "default:user::rwx,d:user:0:r--,d:u:1234:rw-\t#effective:rw-\ndefault:group::r-x,d:g:99:--x,d:m::rwx,default:other::---",
        "user::rwx,user:r\\157ot:r--,user:1234:rw-,group::r-x,group:99:--x,mask::rwx,other::---",
    ],
)
def test_each_program_writes_lists_in_its_own_way(text: str) -> None:
    assert parse_acl(text) == EXPECTED


@pytest.mark.parametrize(
    "text",
    ["user", "user::", "user::rwy", "user::rwx:1:2", "robot::rwx", "mask:5:rwx", "other:root:r--", "user::rwx\0", "user:-1:rwx",
     "user:4294967295:rwx", "user::rwx,group::r-x", "user::r--,group::r--,other::r--,user:5:rwx", "u::rwx,u::rwx,g::---,o::---"],
)  # fmt: skip
def test_what_is_no_list_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"access control list|a list has"):
        parse_acl(text)


def test_a_name_is_looked_up_here_as_the_owner_of_a_file_would_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pwd, "getpwnam", lambda name: {"anna": pwd.struct_passwd(("anna", "", 77, 1, "", "", ""))}[name])
    text = "user::rwx,user:{}:r--,group::---,mask::r--,other::---"
    assert parse_acl(text.format("anna"))[1] == AclEntry(Tag.USER, 4, 77)
    with pytest.raises(ValueError, match="no user 'bert' here"):
        parse_acl(text.format("bert"))


def test_numbers_win_over_names_and_what_a_mode_says_is_no_list() -> None:
    value = encode_acl(EXPECTED).decode("utf-8", "surrogateescape")
    both = {"SCHILY.acl.access": "user::rwx,user:bert whom nobody knows:rwx", "SCHILY.xattr.system.posix_acl_access": value}
    assert pax_acls(both) == {}
    assert pax_acls({"SCHILY.acl.access": "user::rwx\ngroup::r-x\nother::r-x\n", "SCHILY.acl.default": ""}) == {}
    assert list(pax_acls({"SCHILY.acl.default": "user::rwx,group::r-x,other::r-x"})) == [b"system.posix_acl_default"]
