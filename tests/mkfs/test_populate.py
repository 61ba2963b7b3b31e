"""What goes in is what is there: directories, tarballs, streams."""

import bz2
import gzip
import io
import lzma
import os
import stat
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from razortools.engine import directories, namespace, xattrs
from razortools.engine.store.device import open_image
from razortools.engine.volume import open_volume
from razortools.format.acl import AclEntry, Tag, encode_acl
from tests.mkfs.conftest import Mkfs
from tests.mkfs.trees import Picture, host_pictures, make_tree, tarred, volume_pictures


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return make_tree(tmp_path / "tree")


def test_a_directory_arrives_as_it_is(run_mkfs: Mkfs, image: Path, tree: Path) -> None:
    assert run_mkfs(image, "32M", "-d", tree).code == 0
    assert volume_pictures(image) == host_pictures(tree)


def test_a_tar_on_stdin_arrives_as_the_directory_it_was_made_of(run_mkfs: Mkfs, image: Path, tree: Path) -> None:
    assert run_mkfs(image, "32M", "-d", "-", stdin=tarred(tree)).code == 0
    assert volume_pictures(image) == host_pictures(tree)


@pytest.mark.parametrize("compress", [bytes, gzip.compress, bz2.compress, lzma.compress])
def test_a_tarball_arrives_in_every_compression(
    run_mkfs: Mkfs, image: Path, tree: Path, compress: Callable[[bytes], bytes]
) -> None:
    tarball = image.with_name("some tar")
    tarball.write_bytes(compress(tarred(tree)))
    assert run_mkfs(image, "32M", "-d", tarball).code == 0
    assert volume_pictures(image) == host_pictures(tree)


def test_sockets_devices_and_owners_arrive(run_mkfs: Mkfs, image: Path, tmp_path: Path) -> None:
    tree = tmp_path / "special"
    tree.mkdir()
    tree.chmod(0o2755)
    (tree / "shared").mkdir()
    (tree / "shared" / "file").write_bytes(b"in a set-gid directory")
    os.mknod(tree / "socket", 0o777 | stat.S_IFSOCK)
    if os.geteuid() == 0:  # what only root makes; tars bring it for everybody
        os.chown(tree / "shared", 1, 4_294_967_294)
        os.chown(tree / "shared" / "file", 1234, 5678)
        os.mknod(tree / "character", 0o600 | stat.S_IFCHR, os.makedev(4, 300))
        os.mknod(tree / "block", 0o660 | stat.S_IFBLK, os.makedev(253, 70_000))
        os.setxattr(tree / "character", "trusted.mark", b"yes")
    (tree / "shared").chmod(0o2775)
    assert run_mkfs(image, "8M", "-d", tree).code == 0
    assert volume_pictures(image) == host_pictures(tree)


def test_holes_stay_holes_and_zeros_become_holes(run_mkfs: Mkfs, image: Path, tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    with (tmp_path / "tree" / "holes").open("wb") as file:
        file.seek(3 << 30)
        file.write(b"the end")
    with (tmp_path / "tree" / "zeros").open("wb") as file:
        file.write(bytes(8 << 20))
    run = run_mkfs(image, "4M", "-d", tmp_path / "tree", "--json")
    assert run.code == 0
    assert run.document["populated"]["total_bytes"] == (3 << 30) + 7 + (8 << 20)
    assert run.document["populated"]["stored_bytes"] <= 128 << 10


def test_a_sparse_member_of_a_tar_costs_what_it_holds(run_mkfs: Mkfs, image: Path, tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    with (tmp_path / "tree" / "holes").open("wb") as file:
        file.seek(64 << 30)
        file.write(b"the end")
    archive = tarred(tmp_path / "tree")
    assert len(archive) < 1 << 20
    run = run_mkfs(image, "4M", "-d", "-", "--json", stdin=archive)
    assert run.code == 0
    assert run.document["populated"]["total_bytes"] == (64 << 30) + 7


def test_thousands_of_files_arrive(run_mkfs: Mkfs, image: Path, tmp_path: Path) -> None:
    for number in range(1000):
        directory = tmp_path / "tree" / f"{number % 30}"
        directory.mkdir(parents=True, exist_ok=True)
        (directory / f"file {number}").write_bytes(b"%d " % number * (number % 200))
    assert run_mkfs(image, "64M", "-d", tmp_path / "tree").code == 0
    assert volume_pictures(image) == host_pictures(tmp_path / "tree")


def test_the_image_itself_is_left_out_of_its_own_directory(run_mkfs: Mkfs, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"contents")
    (tmp_path / "old.img").write_bytes(bytes(2 << 20))
    assert run_mkfs(tmp_path / "old.img", "-d", tmp_path).code == 0
    assert set(volume_pictures(tmp_path / "old.img")) == {b"", b"file"}


def test_an_image_that_is_new_in_its_own_directory_is_left_out_of_it(run_mkfs: Mkfs, tmp_path: Path) -> None:
    tree, new = tmp_path / "tree", tmp_path / "tree" / "below" / "new.img"
    new.parent.mkdir(parents=True)
    (tree / "file").write_bytes(os.urandom(3 << 20))
    assert run_mkfs(new, "4M", "-d", tree).code == 0  # twice the file would not fit
    assert set(volume_pictures(new)) == {b"", b"below", b"file"}


def test_root_options_win_over_the_source(run_mkfs: Mkfs, image: Path, tree: Path) -> None:
    run = run_mkfs(image, "32M", "-d", tree, "--root-owner", "77:88", "--root-mode", "1770", "--json")
    assert run.document["root"] == {"uid": 77, "gid": 88, "mode": "1770"}
    root = volume_pictures(image)[b""]
    assert (root.uid, root.gid, root.mode) == (77, 88, stat.S_IFDIR | 0o1770)


def test_verbose_names_each_file_on_stderr(run_mkfs: Mkfs, image: Path, tree: Path) -> None:
    run = run_mkfs(image, "32M", "-d", tree, "-v")
    assert "sticky/third name" in run.err.splitlines()
    assert "sticky/third name" not in run.out


def test_a_compression_attribute_decides_how_files_are_kept(run_mkfs: Mkfs, image: Path, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "raw").mkdir(parents=True)
    os.setxattr(tree / "raw", "user.razorfs.compression", b"none")
    (tree / "raw" / "deep" / "down").mkdir(parents=True)
    (tree / "raw" / "packed").mkdir()
    os.setxattr(tree / "raw" / "packed", "user.razorfs.compression", b"zlib")
    for name in ("file", "deep/down/file", "packed/file"):
        (tree / "raw" / name).write_bytes(b"a" * 1_000_000)
    assert run_mkfs(image, "8M", "-d", tree).code == 0
    with open_image(image, writable=False) as device:
        volume = open_volume(device, read_only=True)
        for path, blocks in ((b"/raw/file", 245), (b"/raw/deep/down/file", 245), (b"/raw/packed/file", 8)):
            ino = namespace.resolve(volume, path)
            assert volume.inodes.get(ino).stored_blocks == blocks, path
            assert xattrs.names(volume, ino) == []


LISTED = encode_acl(
    (
        AclEntry(Tag.OWNER, 7),
        AclEntry(Tag.USER, 7, 1234),
        AclEntry(Tag.OWNING_GROUP, 5),
        AclEntry(Tag.MASK, 7),
        AclEntry(Tag.OTHERS, 5),
    )
)


@pytest.mark.parametrize("archived", [False, True])
def test_a_source_gets_no_more_than_it_has_where_a_directory_would_hand_something_down(
    run_mkfs: Mkfs, image: Path, tmp_path: Path, archived: bool
) -> None:
    tree = tmp_path / "tree"
    (tree / "shared" / "below").mkdir(parents=True)
    (tree / "shared" / "below" / "private").write_bytes(b"secret")
    (tree / "shared" / "secret").write_bytes(b"secret")
    os.mkfifo(tree / "shared" / "fifo")
    os.symlink("secret", tree / "shared" / "link")
    for name, mode in (("below/private", 0o600), ("secret", 0o640), ("fifo", 0o640), ("below", 0o750)):
        (tree / "shared" / name).chmod(mode)
    os.setxattr(tree / "shared", "user.razorfs.compression", b"none")
    os.setxattr(tree / "shared", "system.posix_acl_default", LISTED)  # when all that lies in it had been made
    there = host_pictures(tree)
    run = run_mkfs(image, "8M", "-d", "-", stdin=tarred(tree)) if archived else run_mkfs(image, "8M", "-d", tree)
    assert run.code == 0
    assert volume_pictures(image) == there
    assert dict(there[b"shared/secret"].xattrs) == {}


def test_a_list_that_is_none_is_refused(run_mkfs: Mkfs, image: Path) -> None:
    for kind in ("access", "default"):
        headers = {f"SCHILY.xattr.system.posix_acl_{kind}": "rubbish"}
        run = run_mkfs(image, "4M", "-d", "-", stdin=tar_of((member("d", tarfile.DIRTYPE, pax_headers=headers), b"")))
        assert (run.code, "d cannot be kept" in run.err) == (1, True)


# Tars as other programs write them


def tar_of(*members: tuple[tarfile.TarInfo, bytes], tar_format: int = tarfile.PAX_FORMAT) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=tar_format) as archive:
        for member, data in members:
            member.size = len(data) if member.isreg() else 0
            archive.addfile(member, io.BytesIO(data))
    return made.getvalue()


def member(name: str, kind: bytes = tarfile.REGTYPE, **fields: object) -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type = kind
    made.mode = 0o644
    made.mtime = 1_000_000_000
    for field, value in fields.items():
        setattr(made, field, value)
    return made


def picture_of(image: Path, path: bytes) -> Picture:
    return volume_pictures(image)[path]


def test_a_path_that_is_deeper_than_the_interpreters_stack_is_kept(run_mkfs: Mkfs, image: Path) -> None:
    assert run_mkfs(image, "16M", "-d", "-", stdin=tar_of((member("a/" * 3000 + "f"), b""))).code == 0


def test_device_numbers_that_linux_has_are_kept(run_mkfs: Mkfs, image: Path) -> None:
    device = member("dev", tarfile.CHRTYPE, devmajor=0xFFF, devminor=0xFFFFF)
    assert run_mkfs(image, "16M", "-d", "-", stdin=tar_of((device, b""), tar_format=tarfile.GNU_FORMAT)).code == 0


@pytest.mark.parametrize(
    ("hostile", "sentence"),
    [
        (member("a/" * 9000 + "f"), "has a path of 18001 bytes"),
        (member("dev", tarfile.CHRTYPE, devmajor=2**40, devminor=5), "dev is the device 1099511627776:5"),
        (member("dev", tarfile.BLKTYPE, devmajor=8, devminor=2**31), "dev is the device 8:2147483648"),
        (member("f", pax_headers={"SCHILY.acl.access": " " * 2_000_000 + "x"}), "cannot be kept"),  # took hours
    ],
    ids=["deep", "major", "minor", "blanks"],
)
def test_a_tar_that_is_made_to_hurt_is_refused_in_a_sentence(
    run_mkfs: Mkfs, image: Path, hostile: tarfile.TarInfo, sentence: str
) -> None:
    tar_format = tarfile.GNU_FORMAT if hostile.isdev() else tarfile.PAX_FORMAT
    run = run_mkfs(image, "16M", "-d", "-", stdin=tar_of((hostile, b""), tar_format=tar_format))
    assert run.code and sentence in run.err and "internal error" not in run.err and len(run.err) < 5_000
    assert not image.exists()


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME], ids=["pax", "global", "long name"])
def test_a_header_that_would_fill_the_memory_is_not_read(run_mkfs: Mkfs, image: Path, kind: bytes) -> None:
    head = member("x", kind, size=1 << 40).tobuf(tarfile.GNU_FORMAT)
    run = run_mkfs(image, "16M", "-d", "-", stdin=head + bytes(10_240))
    assert run.code and f"{1 << 40} bytes are said about one member" in run.err and not image.exists()


@pytest.mark.parametrize("tar_format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_every_dialect_of_tar_is_read(run_mkfs: Mkfs, image: Path, tar_format: int) -> None:
    name = "d/" * 20 + "x" * (50 if tar_format == tarfile.USTAR_FORMAT else 200)
    data = tar_of(
        (member("d", tarfile.DIRTYPE, mode=0o711), b""),
        (member(name), b"contents"),
        (member("dev", tarfile.CHRTYPE, devmajor=5, devminor=1), b""),
        (member("disk", tarfile.BLKTYPE, devmajor=8, devminor=17), b""),
        (member("pipe", tarfile.FIFOTYPE), b""),
        (member("again", tarfile.LNKTYPE, linkname=name), b""),
        (member("points", tarfile.SYMTYPE, linkname="../elsewhere"), b""),
        tar_format=tar_format,
    )
    assert run_mkfs(image, "4M", "-d", "-", stdin=data).code == 0
    found = volume_pictures(image)
    assert found[b"d"].mode == stat.S_IFDIR | 0o711
    assert found[name.encode()].contents == b"contents"
    assert found[name.encode()].names == (b"again", name.encode())
    assert found[b"dev"].rdev == os.makedev(5, 1)
    assert found[b"disk"].rdev == os.makedev(8, 17)
    assert found[b"points"].contents == b"../elsewhere"
    assert found[b"pipe"].mtime_ns == 1_000_000_000 * 10**9


def test_directories_that_a_tar_does_not_mention_are_made(run_mkfs: Mkfs, image: Path) -> None:
    data = tar_of((member("a/b/c/file"), b"x"), (member("a/b", tarfile.DIRTYPE, mode=0o700), b""))
    assert run_mkfs(image, "4M", "-d", "-", "--root-owner", "5:6", stdin=data).code == 0
    found = volume_pictures(image)
    assert (found[b"a"].mode, found[b"a"].uid, found[b"a"].gid) == (stat.S_IFDIR | 0o755, 5, 6)
    assert found[b"a/b"].mode == stat.S_IFDIR | 0o700


def test_a_later_member_replaces_an_earlier_one(run_mkfs: Mkfs, image: Path) -> None:
    data = tar_of(
        (member("file"), b"old"),
        (member("dir", tarfile.DIRTYPE), b""),
        (member("name", tarfile.SYMTYPE, linkname="dir"), b""),
        (member("file"), b"new"),
        (member("dir"), b"was a directory"),
        (member("name", tarfile.DIRTYPE, mode=0o750), b""),
    )
    assert run_mkfs(image, "4M", "-d", "-", stdin=data).code == 0
    found = volume_pictures(image)
    assert found[b"file"].contents == b"new"
    assert found[b"dir"].contents == b"was a directory"
    assert found[b"name"].mode == stat.S_IFDIR | 0o750


def test_absolute_and_dotted_names_are_taken_as_relative(run_mkfs: Mkfs, image: Path) -> None:
    data = tar_of((member("/etc//passwd"), b"1"), (member("./././etc/./group"), b"2"))
    assert run_mkfs(image, "4M", "-d", "-", stdin=data).code == 0
    assert set(volume_pictures(image)) == {b"", b"etc", b"etc/passwd", b"etc/group"}


def test_attributes_of_libarchive_are_read(run_mkfs: Mkfs, image: Path) -> None:
    headers = {"LIBARCHIVE.xattr.user.a%20b": "AAEC/w", "SCHILY.xattr.user.c": "d"}
    assert run_mkfs(image, "4M", "-d", "-", stdin=tar_of((member("file", pax_headers=headers), b""))).code == 0
    assert picture_of(image, b"file").xattrs == ((b"user.a b", b"\0\1\2\xff"), (b"user.c", b"d"))


@pytest.mark.parametrize("options", [("--acls", "--xattrs-exclude=system.*"), ("--acls",)], ids=["text", "text and numbers"])
def test_access_control_lists_of_a_tar_arrive(run_mkfs: Mkfs, image: Path, tmp_path: Path, options: tuple[str, ...]) -> None:
    tree = tmp_path / "tree"
    (tree / "shared" / "below").mkdir(parents=True)
    (tree / "shared" / "file").write_bytes(b"x")
    os.setxattr(tree / "shared", "system.posix_acl_default", LISTED)
    os.setxattr(tree / "shared", "system.posix_acl_access", LISTED)
    os.setxattr(tree / "shared" / "file", "system.posix_acl_access", LISTED)
    assert run_mkfs(image, "8M", "-d", "-", stdin=tarred(tree, *options)).code == 0
    assert volume_pictures(image) == host_pictures(tree)


def test_an_archive_with_nothing_in_it_gives_an_empty_volume(run_mkfs: Mkfs, image: Path) -> None:
    assert run_mkfs(image, "4M", "-d", "-", stdin=bytes(10240)).code == 0
    assert set(volume_pictures(image)) == {b""}


def test_times_are_what_access_and_change_should_be(run_mkfs: Mkfs, image: Path, tree: Path) -> None:
    before = os.stat(tree / "small")
    assert run_mkfs(image, "32M", "-d", tree).code == 0
    with open_image(image, writable=False) as device:
        volume = open_volume(device, read_only=True)
        inode = volume.inodes.get(namespace.resolve(volume, b"/small"))
        made = volume.store.superblock.made_at_ns
        assert inode.atime_ns == before.st_atime_ns
        assert inode.ctime_ns == inode.btime_ns == made
        assert len(list(directories.entries(volume, namespace.resolve(volume, b"/")))) == len(os.listdir(tree))
