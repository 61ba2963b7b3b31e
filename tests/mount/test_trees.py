"""Whole trees go in and come out unchanged, by the programs that people use for it."""

import os
import random
import stat
import subprocess
from pathlib import Path

import pytest

from tests.mount.mounts import Mounted

pytestmark = pytest.mark.mount

Seen = dict[bytes, tuple[object, ...]]


def plant(root: Path, seed: int = 7, file_count: int = 150) -> None:
    """Fill the directory *root* with every kind of thing, the same each time."""
    source = random.Random(seed)
    folders = [root]
    for number in range(20):
        folders.append(source.choice(folders) / f"d{number}")
        folders[-1].mkdir()
    for number in range(file_count):
        path = source.choice(folders) / f"f{number}"
        path.write_bytes(contents(source))
        os.chmod(path, source.choice([0o644, 0o600, 0o755, 0o4711, 0o000]))
        os.chown(path, source.choice([0, 1000, 70_000]), source.choice([0, 1000]), follow_symlinks=False)
    plant_oddities(root)
    for folder in reversed(folders):
        os.utime(folder, ns=(source.randrange(1 << 60), source.randrange(1 << 60)))


def contents(source: random.Random) -> bytes:
    """Return the contents of some file: empty, small, text, noise, long."""
    kind = source.randrange(5)
    if kind == 0:
        return b""
    if kind == 1:
        return source.randbytes(source.randrange(1, 100))
    if kind == 2:
        return b"a line of text that is repeated\n" * source.randrange(1, 20_000)
    if kind == 3:
        return source.randbytes(source.randrange(300_000))
    return bytes(source.randrange(200_000)) + source.randbytes(50)


def plant_oddities(root: Path) -> None:
    """Add links, nodes, a sparse file, attributes and odd names."""
    for target in ("f0", "../nowhere", "t" * 4000):
        os.symlink(target, root / f"to {target[:9].replace('/', '_')}")
    (root / "linked").write_text("one of two")
    os.link(root / "linked", root / "d0" / "linked too")
    os.mkfifo(root / "fifo")
    os.mknod(root / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    with open(root / "sparse", "wb") as file:
        file.seek(3 << 20)
        file.write(b"end")
    for name, value in (("user.comment", b"said"), ("user.long", bytes(range(256)) * 15), ("trusted.own", b"\0")):
        os.setxattr(root / "linked", name, value)
    os.setxattr(root / "d0", "user.of a directory", b"yes")
    for odd in (b"n" * 255, b"\xff\xfe", b"new\nline"):
        Path(os.fsdecode(os.path.join(os.fsencode(root), odd))).write_bytes(odd)
    os.utime(root / "linked", ns=(1, 999_999_999_999_999_999))
    os.utime(root / "to f0", ns=(5, 1_234_567_891), follow_symlinks=False)


def look(root: Path) -> Seen:
    """Return what must survive of everything below *root*: mode, owner, mtime, size, links, contents, attributes, by path."""
    top = os.fsencode(root)
    seen: Seen = {}
    first_name: dict[int, bytes] = {}
    for folder, folders, files in os.walk(top):
        for name in sorted([*folders, *files]):
            path = os.path.join(folder, name)
            status = os.lstat(path)
            relative = os.path.relpath(path, top)
            is_folder = stat.S_ISDIR(status.st_mode)
            if stat.S_ISLNK(status.st_mode):
                body: object = os.readlink(path)
            else:
                body = Path(os.fsdecode(path)).read_bytes() if stat.S_ISREG(status.st_mode) else status.st_rdev
            names = os.listxattr(path, follow_symlinks=False)
            seen[relative] = (
                status.st_mode, status.st_uid, status.st_gid, status.st_mtime_ns, None if is_folder else status.st_size,
                None if is_folder else status.st_nlink, body,
                {name: os.getxattr(path, name, follow_symlinks=False) for name in names},
            )  # fmt: skip
            if status.st_nlink > 1 and not is_folder:
                seen[relative] += (first_name.setdefault(status.st_ino, relative),)
    return seen


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A tree on the host."""
    root = tmp_path / "tree"
    root.mkdir()
    plant(root)
    return root


def copy_with_cp(source: Path, target: Path) -> None:
    subprocess.run(["cp", "-a", "--sparse=auto", f"{source}/.", f"{target}/"], check=True)


def copy_with_tar(source: Path, target: Path) -> None:
    options = "--sparse --xattrs --xattrs-include=* --numeric-owner --format=posix"
    subprocess.run(
        f"tar -C '{source}' {options} -c . | tar -C '{target}' {options} -xp", shell=True, check=True, executable="/bin/bash"
    )


@pytest.mark.parametrize("copy", [copy_with_cp, copy_with_tar])
def test_a_tree_goes_in_and_comes_out_unchanged(mounted: Mounted, tree: Path, tmp_path: Path, copy: object) -> None:
    assert callable(copy)
    expected = look(tree)
    (mounted.path / "in").mkdir()
    copy(tree, mounted.path / "in")
    assert look(mounted.path / "in") == expected
    mounted.remount()
    assert look(mounted.path / "in") == expected
    assert (mounted.path / "in" / "sparse").stat().st_blocks * 512 < 1 << 20
    (tmp_path / "out").mkdir()
    copy(mounted.path / "in", tmp_path / "out")
    assert look(tmp_path / "out") == expected


def test_a_tree_planted_on_the_mount_is_the_one_planted_on_the_host(mounted: Mounted, tree: Path) -> None:
    plant(mounted.path)


    def without_mtime(seen: Seen) -> Seen:  # what was given no time has that of its making
        return {path: fields[:3] + fields[4:] for path, fields in seen.items()}

    assert without_mtime(look(mounted.path)) == without_mtime(look(tree))
    mounted.remount()
    subprocess.run(["rm", "-rf", *map(str, mounted.path.iterdir())], check=True)
    assert os.listdir(mounted.path) == []
    mounted.remount()
    assert os.statvfs(mounted.path).f_files - os.statvfs(mounted.path).f_ffree == 1


@pytest.mark.slow
@pytest.mark.parametrize("file_count", [1000, 10_000])
def test_thousands_of_files_survive_a_remount(unmounted: Mounted, file_count: int) -> None:
    unmounted.mount()
    source = random.Random(file_count)
    expected = {}
    for number in range(file_count):
        folder = unmounted.path / f"{number % 100}"
        if number < 100:
            folder.mkdir()
        expected[folder / f"{number}"] = source.randbytes(source.randrange(200))
        (folder / f"{number}").write_bytes(expected[folder / f"{number}"])
    unmounted.remount()
    found = {Path(folder) / name for folder, _, names in os.walk(unmounted.path) for name in names}
    assert found == set(expected)
    assert all(path.read_bytes() == data for path, data in expected.items())
