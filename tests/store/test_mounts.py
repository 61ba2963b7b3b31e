"""The kernel's mount table: whatever users call their mounts, each is read as it is, and hides no other."""

from hypothesis import given
from hypothesis import strategies as st

from razortools.engine.store.mounts import parsed

ESCAPED = b" \t\n\\#"  # by the kernel: mangle() in fs/proc_namespace.c; "#" not everywhere
ENDS = ["\r", "\x0b", "\x0c", "\x1c", "\x1d", "\x1e", "\x85", "\xa0", "\u2028", "\u2029"]  # of lines or words, for Python
PARTS = [*map(str.encode, ENDS), b"\x85", b"\xff", b" ", b"\n", b" - ", b"\\040", b"#", b"a"]
names = st.lists(st.sampled_from(PARTS), max_size=9).map(b"".join) | st.binary(max_size=20)


def as_the_kernel_writes(name: bytes) -> bytes:
    return b"".join(b"\\%03o" % byte if byte in ESCAPED else b"%c" % byte for byte in name)


def line(number: int, place: bytes, source: bytes = b"/dev/sda1", kind: bytes = b"ext4") -> bytes:
    root, place, source, kind = map(as_the_kernel_writes, (b"/" + place, place, source, kind))
    return b"%d 1 8:%d %b /%b rw,nosuid shared:1 - %b %b ro\n" % (number, number, root, place, kind, source)


@given(place=names, source=names, subtype=names)
def test_every_name_is_read_as_it_is_and_hides_no_other(place: bytes, source: bytes, subtype: bytes) -> None:
    """A carriage return in the name of a mount point, which any user may choose, ended the daemons of all mounts."""
    found = parsed(line(1, b"before") + line(2, place, source, b"fuse." + subtype) + line(3, b"behind"))
    assert [mount.path for mount in found] == [b"/before", b"/" + place, b"/behind"]
    one = found[1]
    assert (one.mount_id, one.device, one.root, one.source, one.is_fuse) == (2, (8, 2), b"/" + place, source, True)
    assert (one.options, one.shared_options) == ({"rw", "nosuid"}, {"ro"})


def test_a_line_that_cannot_be_understood_hides_no_other() -> None:
    nonsense = b"garbage\n- -\n\n1 2 / / / rw - ext4 x rw\n1 1 8:x / / rw - ext4 x rw\n"
    assert [mount.path for mount in parsed(nonsense + line(1, b"a") + nonsense)] == [b"/a"]
