"""Trees on the host with a bit of everything, and pictures of trees: as the host shows them, and as a volume does."""

import os
import stat
import subprocess
from dataclasses import dataclass
from pathlib import Path

from razortools.engine import directories, files, namespace, xattrs
from razortools.engine.store.device import open_image
from razortools.engine.volume import Volume, open_volume
from razortools.format.inode import ROOT_INODE
from razortools.units import InodeNo

LONG_NAME = b"n" * 255
ODD_NAME = b"\xff\xfe line\nbreak \\ \" ' \x01"


@dataclass(frozen=True, slots=True)
class Picture:
    """One file, without the times that every copy sets anew (ctime, atime)."""

    mode: int
    uid: int
    gid: int
    mtime_ns: int
    rdev: int
    contents: bytes  # of a file; target of a symlink
    xattrs: tuple[tuple[bytes, bytes], ...]
    names: tuple[bytes, ...]  # all paths of this file, sorted


def make_tree(place: Path) -> Path:
    """Make a tree at *place* with every kind of file that an ordinary user may make, and return it."""
    place.mkdir()
    root = os.fsencode(place)
    _write(root + b"/plain", b"some text\n" * 1000)
    _write(root + b"/empty", b"")
    _write(root + b"/small", b"x")
    _write(root + b"/random", bytes((number * 7919 + number // 251) % 256 for number in range(300_001)))
    _write(root + b"/" + LONG_NAME, b"long")
    _write(root + b"/" + ODD_NAME, b"odd")
    _sparse(root + b"/sparse", 5 << 20)
    os.symlink(b"plain", root + b"/link")
    os.symlink(b"t" * 4000, root + b"/long link")
    os.link(root + b"/plain", root + b"/zz other name")
    os.mkfifo(root + b"/fifo", 0o640)
    deep = root
    for level in range(40):
        deep += b"/level %d" % level
        os.mkdir(deep)
    _write(deep + b"/bottom", b"deep down")
    os.mkdir(root + b"/sticky")
    os.link(root + b"/plain", root + b"/sticky/third name")
    _decorate(root)
    return place


def _decorate(root: bytes) -> None:
    """Give modes, attributes and times, the directories last."""
    os.setxattr(root + b"/plain", b"user.comment", b"a\0b\nc=d%3D\xff")
    os.setxattr(root + b"/plain", b"user.percent%and=equals", b"1")
    os.setxattr(root + b"/small", b"user.large", bytes(range(256)) * 12)
    os.setxattr(root + b"/sticky", b"user.on.directory", b"")
    os.chmod(root + b"/plain", 0o4755)
    os.chmod(root + b"/small", 0o2640)
    os.chmod(root + b"/empty", 0o600)
    os.chmod(root + b"/sticky", 0o1777)
    paths = [os.path.join(directory, name) for directory, below, names in os.walk(root) for name in (*below, *names)]
    for number, path in enumerate(sorted(paths, reverse=True)):
        time_ns = 1_600_000_000_123_456_789 + number * 1_000_000_007
        os.utime(path, ns=(time_ns + 5, time_ns), follow_symlinks=False)
    os.utime(root + b"/empty", ns=(0, -1_500_000_000))  # before 1970
    os.utime(root, ns=(1, 1_500_000_000_000_000_001))


def _write(path: bytes, data: bytes) -> None:
    with open(path, "wb") as file:
        file.write(data)


def _sparse(path: bytes, size: int) -> None:
    """Write a file with holes at its start, in the middle and at its end."""
    with open(path, "wb") as file:
        file.seek(1 << 20)
        file.write(b"a" * 5000)
        file.seek(3 << 20)
        file.write(b"b" * 200_000)
        file.truncate(size)


def host_pictures(place: Path) -> dict[bytes, Picture]:
    """Return what the host shows below *place*, by path; the root's path is empty."""
    root = os.fsencode(place)
    paths = [b""]
    for directory, below, names in os.walk(root):
        here = directory.removeprefix(root).lstrip(b"/")
        paths += [here + b"/" + name if here else name for name in (*below, *names)]
    identities: dict[tuple[int, int], list[bytes]] = {}
    for path in paths:
        facts = os.lstat(root + b"/" + path)
        identities.setdefault((facts.st_dev, facts.st_ino), []).append(path)
    return {path: _host_picture(root + b"/" + path, identities) for path in paths}


def _host_picture(path: bytes, identities: dict[tuple[int, int], list[bytes]]) -> Picture:
    facts = os.lstat(path)
    contents = b""
    if stat.S_ISREG(facts.st_mode):
        with open(path, "rb") as file:
            contents = file.read()
    elif stat.S_ISLNK(facts.st_mode):
        contents = os.readlink(path)
    names = os.listxattr(path, follow_symlinks=False)
    pairs = sorted((os.fsencode(name), os.getxattr(path, name, follow_symlinks=False)) for name in names)
    rdev = facts.st_rdev if stat.S_ISCHR(facts.st_mode) or stat.S_ISBLK(facts.st_mode) else 0
    together = tuple(sorted(identities[facts.st_dev, facts.st_ino]))
    return Picture(facts.st_mode, facts.st_uid, facts.st_gid, facts.st_mtime_ns, rdev, contents, tuple(pairs), together)


def volume_pictures(image: Path) -> dict[bytes, Picture]:
    """Return what the engine shows in *image*, by path; the root's path is empty."""
    with open_image(image, writable=False) as device:
        volume = open_volume(device, read_only=True)
        found: dict[bytes, InodeNo] = {b"": ROOT_INODE}
        todo = [b""]
        while todo:
            path = todo.pop()
            for _, name, entry in directories.entries(volume, found[path]):
                below = path + b"/" + name if path else name
                found[below] = InodeNo(entry.inode)
                if volume.inodes.get(InodeNo(entry.inode)).is_directory:
                    todo.append(below)
        together: dict[InodeNo, list[bytes]] = {}
        for path, ino in sorted(found.items()):
            together.setdefault(ino, []).append(path)
        return {path: _volume_picture(volume, ino, tuple(together[ino])) for path, ino in found.items()}


def _volume_picture(volume: Volume, ino: InodeNo, names: tuple[bytes, ...]) -> Picture:
    inode = volume.inodes.get(ino)
    assert inode.link_count == len(names) or inode.is_directory
    contents = b""
    if inode.is_regular:
        contents = files.read(volume, ino, 0, inode.size)
        assert len(contents) == inode.size
    elif inode.is_symlink:
        contents = namespace.readlink(volume, ino)
    pairs = tuple(sorted((name, xattrs.get(volume, ino, name)) for name in xattrs.names(volume, ino)))
    return Picture(inode.mode, inode.uid, inode.gid, inode.mtime_ns, inode.rdev, contents, pairs, names)


def tarred(place: Path, *options: str) -> bytes:
    """Return a tar of everything in *place* with all that GNU tar can keep, names in order."""
    command = ["tar", "--format=posix", "--sort=name", "--sparse", "--xattrs", "--xattrs-include=*", "--numeric-owner", *options]
    return subprocess.run([*command, "-C", str(place), "-cf", "-", "."], check=True, capture_output=True).stdout
