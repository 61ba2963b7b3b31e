"""The protocol's layouts are those of the kernel's own header, as the C compiler sees them."""

import subprocess
from struct import Struct

import pytest

from razortools.service import wire
from razortools.service.wire import InitFlag, Opcode

# Our layout, the header's structure, and fields of it in our order.
LAYOUTS: tuple[tuple[Struct, str, tuple[str, ...]], ...] = (
    (wire.HEAD, "fuse_in_header", ("len", "opcode", "unique", "nodeid", "uid", "gid", "pid")),
    (wire.REPLY_HEAD, "fuse_out_header", ("len", "error", "unique")),
    (wire.FORGET, "fuse_forget_in", ("nlookup",)),
    (wire.BATCH_FORGET, "fuse_batch_forget_in", ("count",)),
    (wire.FORGET_ONE, "fuse_forget_one", ("nodeid", "nlookup")),
    (
        wire.SETATTR, "fuse_setattr_in",
        ("valid", "size", "atime", "mtime", "ctime", "atimensec", "mtimensec", "ctimensec", "mode", "unused4", "uid", "gid"),
    ),
    (wire.MKNOD, "fuse_mknod_in", ("mode", "rdev", "umask")),
    (wire.MKDIR, "fuse_mkdir_in", ("mode", "umask")),
    (wire.RENAME, "fuse_rename_in", ("newdir",)),
    (wire.RENAME2, "fuse_rename2_in", ("newdir", "flags")),
    (wire.LINK, "fuse_link_in", ("oldnodeid",)),
    (wire.READ, "fuse_read_in", ("offset", "size", "flags")),
    (wire.WRITE, "fuse_write_in", ("offset", "size", "write_flags", "flags")),
    (wire.GETXATTR, "fuse_getxattr_in", ("size",)),
    (wire.OPEN_OUT, "fuse_open_out", ("fh", "open_flags")),
    (wire.WRITE_OUT, "fuse_write_out", ("size",)),
    (
        wire.STATFS_OUT, "fuse_statfs_out",
        ("st.blocks", "st.bfree", "st.bavail", "st.files", "st.ffree", "st.bsize", "st.namelen", "st.frsize"),
    ),
    (wire.GETXATTR_OUT, "fuse_getxattr_out", ("size",)),
    (wire.NOTIFY_INVAL_INODE, "fuse_notify_inval_inode_out", ("ino", "off", "len")),
    (
        wire.ENTRY_OUT, "fuse_entry_out",
        (
            "nodeid", "generation", "entry_valid", "attr_valid", "entry_valid_nsec", "attr_valid_nsec",
            *(f"attr.{name}" for name in (
                "ino", "size", "blocks", "atime", "mtime", "ctime", "atimensec", "mtimensec", "ctimensec",
                "mode", "nlink", "uid", "gid", "rdev", "blksize",
            )),
        ),
    ),
    (wire.ATTRIBUTES_OUT, "fuse_attr_out", ("attr_valid", "attr_valid_nsec", "dummy", "attr.ino", "attr.size")),
)  # fmt: skip
UNEQUAL_SIZES = (  # ours end before fields that are never used, or that only newer kernels have
    (wire.READDIR, "fuse_read_in", ("fh", "offset", "size")),
    (wire.OPENDIR, "fuse_open_in", ("flags",)),
    (wire.RELEASEDIR, "fuse_release_in", ("fh",)),
    (wire.SETXATTR, "fuse_setxattr_in", ("size", "flags")),
    (wire.INIT_IN, "fuse_init_in", ("major", "minor", "max_readahead", "flags")),
    (
        wire.INIT_OUT, "fuse_init_out",
        ("major", "minor", "max_readahead", "flags", "max_background", "congestion_threshold", "max_write"),
    ),
    (wire.DIRENT, "fuse_dirent", ("ino", "off", "namelen", "type")),
)  # fmt: skip

NAMES, SHORTER = [name for _, name, _ in LAYOUTS], [name for _, name, _ in UNEQUAL_SIZES]


@pytest.fixture(scope="module")
def header(tmp_path_factory: pytest.TempPathFactory) -> dict[str, int]:
    """What the compiler says: sizes by structure, offsets by structure and field, values of constants."""
    asked = [f"sizeof(struct {name})" for _, name, _ in LAYOUTS + UNEQUAL_SIZES]
    asked += [f"offsetof(struct {name}, {field})" for _, name, fields in LAYOUTS + UNEQUAL_SIZES for field in fields]
    asked += [f"FUSE_{flag.name}" for flag in InitFlag] + [f"FUSE_{opcode.name}" for opcode in Opcode]
    asked += ["offsetof(struct fuse_init_out, max_pages)", "FUSE_WRITE_KILL_SUIDGID", "FUSE_NOTIFY_INVAL_INODE"]
    asked += [f"FOPEN_{flag.name}" for flag in wire.OpenFlag]
    asked += [f"FATTR_{field.name}" for field in wire.SetattrField] + ["FUSE_DIRENT_ALIGN(1)"]
    lines = "\n".join(f'printf("%s\\t%llu\\n", "{question}", (unsigned long long)({question}));' for question in asked)
    source = tmp_path_factory.mktemp("header") / "ask.c"
    source.write_text(
        f"#include <stddef.h>\n#include <stdio.h>\n#include <linux/fuse.h>\nint main(void) {{\n{lines}\nreturn 0; }}\n"
    )
    program = source.with_suffix("")
    subprocess.run(["gcc", "-o", program, source], check=True)
    answers = subprocess.run([program], check=True, capture_output=True, text=True).stdout
    return {question: int(value) for question, value in (line.split("\t") for line in answers.splitlines())}


def offsets(layout: Struct, count: int) -> list[int]:
    """Return where the first *count* fields of a layout begin: where a byte changes one value and no other."""
    plain = layout.unpack(bytes(layout.size))
    starts: list[int] = []
    for at in range(layout.size):
        changed = layout.unpack(bytes(at) + b"\x01" + bytes(layout.size - at - 1))
        moved = [number for number, value in enumerate(changed) if value != plain[number]]
        if moved and moved[0] == len(starts):
            starts.append(at)
    return starts[:count]


@pytest.mark.parametrize(("layout", "name", "fields"), LAYOUTS + UNEQUAL_SIZES, ids=NAMES + SHORTER)
def test_each_field_lies_where_the_kernel_has_it(
    header: dict[str, int], layout: Struct, name: str, fields: tuple[str, ...]
) -> None:
    assert offsets(layout, len(fields)) == [header[f"offsetof(struct {name}, {field})"] for field in fields]


@pytest.mark.parametrize(("layout", "name"), [row[:2] for row in LAYOUTS], ids=NAMES)
def test_each_structure_has_the_kernels_size(header: dict[str, int], layout: Struct, name: str) -> None:
    assert layout.size == header[f"sizeof(struct {name})"]


def test_numbers_are_the_kernels(header: dict[str, int]) -> None:
    assert {flag.name: header[f"FUSE_{flag.name}"] for flag in InitFlag} == {flag.name: flag.value for flag in InitFlag}
    assert {code.name: header[f"FUSE_{code.name}"] for code in Opcode} == {code.name: code.value for code in Opcode}
    assert {flag.name: header[f"FOPEN_{flag.name}"] for flag in wire.OpenFlag} == {
        flag.name: flag.value for flag in wire.OpenFlag
    }
    assert {field.name: header[f"FATTR_{field.name}"] for field in wire.SetattrField} == {
        field.name: field.value for field in wire.SetattrField
    }
    assert header["offsetof(struct fuse_init_out, max_pages)"] == wire.INIT_PAGES_AT
    assert header["FUSE_WRITE_KILL_SUIDGID"] == wire.WRITE_KILL_SUIDGID
    assert header["FUSE_NOTIFY_INVAL_INODE"] == wire.NOTIFY_INVAL_INODE_CODE
    assert header["FUSE_DIRENT_ALIGN(1)"] == wire.DIRENT_ALIGN


@pytest.mark.parametrize("length", range(1, 20))
def test_an_entry_of_a_directory_ends_where_the_next_may_begin(length: int) -> None:
    entry = wire.dirent(5, 6, b"n" * length, 8)
    assert len(entry) % wire.DIRENT_ALIGN == 0
    assert wire.DIRENT.size + length <= len(entry) < wire.DIRENT.size + length + wire.DIRENT_ALIGN
    assert entry[wire.DIRENT.size :].rstrip(b"\0") == b"n" * length
