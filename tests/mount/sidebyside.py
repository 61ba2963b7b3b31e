"""Doing the same on two filesystems and comparing the answers: the calls, who makes them, and what is left in the end."""

import errno
import os
import random
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from razortools.format.acl import NOBODY, AclEntry, Tag, encode_acl
from tests.mount.mounts import renameat2

Story = Callable[[], Iterator[object]]  # makes calls in the working directory and yields what it is told

LONG_AGO_NS = 10**18  # a time that no clock shows any more
ACCESS, DEFAULT = "system.posix_acl_access", "system.posix_acl_default"
KEPT = ("user.", ACCESS, DEFAULT)

WHOLE_BYTES_MAX = 1 << 20  # of a longer file only the islands are looked at
ISLAND_BYTES = 320 << 10
ISLANDS = (0, 5 << 30, (16 << 40) - (1 << 20))  # where files with long holes have their data


@dataclass(frozen=True, slots=True)
class Person:
    """Who calls: user, group and further groups."""

    uid: int
    gid: int
    groups: tuple[int, ...] = ()


ROOT = Person(0, 0)
ANNA = Person(1001, 2001, (2003,))
BERT = Person(1002, 2002, (2003,))
EVERYBODY = (ROOT, ANNA, BERT)


def acl(text: str) -> bytes:
    """Return what the kernel takes for a list such as "u:rwx u1001:r-x g:r-- m:rwx o:---"."""
    tags = {"u": (Tag.OWNER, Tag.USER), "g": (Tag.OWNING_GROUP, Tag.GROUP), "m": (Tag.MASK,), "o": (Tag.OTHERS,)}
    entries = []
    for word in text.split():
        who, _, letters = word.partition(":")
        permissions = sum(bit for bit, letter in zip((4, 2, 1), letters, strict=True) if letter != "-")
        entries.append(AclEntry(tags[who[0]][bool(who[1:])], permissions, int(who[1:] or NOBODY)))
    return encode_acl(tuple(entries))


LISTS = tuple(map(acl, (
    "u:rwx g:r-x o:r--",
    "u:rw- g:--- o:---",
    "u:rwx u1001:rwx g:r-x m:rwx o:---",
    "u:rw- u1001:rw- u1002:r-- g:r-- g2003:rwx m:r-x o:r--",
    "u:r-x u1002:--- g:rwx g2001:-wx g2002:r-- m:-w- o:rwx",
    "u:rwx g:rwx m:r-- o:r-x",
    "",
)))  # fmt: skip


@contextmanager
def acting_as(person: Person) -> Iterator[None]:
    """Make calls on the filesystem as *person* makes them; root again afterwards."""
    groups = os.getgroups()
    os.setgroups(person.groups)
    os.setegid(person.gid)
    os.seteuid(person.uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups(groups)


@contextmanager
def working_in(folder: Path) -> Iterator[None]:
    """Work in *folder*, by relative names: nobody needs a right to the directories above it."""
    before = os.getcwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def tried(call: Callable[..., object], *words: object, **named: object) -> object:
    """Return what *call* returns, or the name of the errno that it fails with."""
    try:
        return call(*words, **named)
    except OSError as refused:
        assert refused.errno is not None
        return errno.errorcode[refused.errno]


def make(path: str, mode: int = 0o644, content: bytes = b"") -> None:
    """Make a file with exactly this mode."""
    descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    os.write(descriptor, content)
    os.fchmod(descriptor, mode)
    os.close(descriptor)


def append(path: str, content: bytes = b"more") -> None:
    """Write behind the end of a file."""
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK)  # a pipe would wait for a reader
    try:
        os.write(descriptor, content)
    finally:
        os.close(descriptor)


def opened(path: str, flags: int, mode: int = 0o666) -> str:
    """Open a file and close it again."""
    os.close(os.open(path, flags | os.O_NONBLOCK, mode))  # a pipe would wait for the other end
    return "opened"


def mode_of(path: str) -> str:
    """Return type, permissions, owner and group of a file, for people."""
    status = os.lstat(path)
    return f"{stat.filemode(status.st_mode)} {status.st_uid}:{status.st_gid}"


def picture() -> dict[str, object]:
    """Return everything below the working directory that both filesystems must show alike, and make all times old."""
    seen: dict[str, object] = {}
    for folder, folders, names in os.walk("."):
        for name in (".", *folders, *names):
            path = os.path.normpath(os.path.join(folder, name))
            status = os.lstat(path)
            seen[path] = (
                mode_of(path),
                status.st_nlink,
                status.st_rdev,
                status.st_mtime_ns == LONG_AGO_NS,
                _inside(path, status),
                {word: os.getxattr(path, word) for word in os.listxattr(path, follow_symlinks=False) if word.startswith(KEPT)},
            )
    for path in seen:
        os.utime(path, ns=(LONG_AGO_NS, LONG_AGO_NS), follow_symlinks=False)
    return seen


def _inside(path: str, status: os.stat_result) -> object:
    if stat.S_ISLNK(status.st_mode):
        return os.readlink(path)
    if not stat.S_ISREG(status.st_mode):
        return None
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return contents(lambda length, offset: os.pread(descriptor, length, offset), status.st_size)
    finally:
        os.close(descriptor)


def contents(read: Callable[[int, int], bytes], size_bytes: int) -> object:
    """Return what is in a file of *size_bytes*, which *read* (length, offset) reads; of a long one what is around the islands."""
    if size_bytes <= WHOLE_BYTES_MAX:
        return read(WHOLE_BYTES_MAX, 0)
    return size_bytes, [read(ISLAND_BYTES, island) for island in ISLANDS]


def played(story: Story, folder: Path) -> list[object]:
    """Return what *story* is told in *folder*."""
    folder.chmod(0o777)
    with working_in(folder):
        return list(story())


def random_steps(seed: int, count: int) -> Iterator[tuple[Person, Callable[..., object], tuple[object, ...]]]:
    """Yield (who, call, arguments): a random walk over few names, so that most steps meet what earlier ones left."""
    dice = random.Random(seed)
    modes = (0o777, 0o755, 0o750, 0o700, 0o1777, 0o2775, 0o4755, 0o2755, 0o6777, 0o2644, 0o666, 0o640, 0o400, 0o000)
    sizes = (0, 1, 5000, 131_073)
    # Never -1 for both: that request reaches no daemon (docs/POSIX.md).
    owners = tuple((uid, gid) for uid in (-1, 0, ANNA.uid, BERT.uid) for gid in (-1, 0, ANNA.gid, BERT.gid, 2003))[1:]

    def path() -> str:
        parts = dice.choices(("a", "b", "c", "d"), k=dice.choice((1, 1, 2, 2, 3)))
        if dice.random() < 0.05:
            parts.append(dice.choice((".", "..", "", "n" * 256)))
        return "/".join(parts)

    calls: tuple[Callable[[], tuple[Callable[..., object], tuple[object, ...]]], ...] = (
        lambda: (os.mkdir, (path(), dice.choice(modes))),
        lambda: (opened, (path(), os.O_CREAT | os.O_RDWR | dice.choice((0, os.O_EXCL, os.O_TRUNC)), dice.choice(modes))),
        lambda: (opened, (path(), dice.choice((os.O_RDONLY, os.O_WRONLY, os.O_RDWR)) | dice.choice((0, os.O_DIRECTORY)))),
        lambda: (os.mknod, (path(), dice.choice((stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFREG, stat.S_IFCHR)) | 0o666, 0x0103)),
        lambda: (os.symlink, (path(), path())),
        lambda: (os.link, (path(), path())),
        lambda: (os.unlink, (path(),)),
        lambda: (os.rmdir, (path(),)),
        lambda: (os.rename, (path(), path())),
        lambda: (os.rename, (path(), path())),
        lambda: (renameat2, (path(), path(), dice.choice((1, 2)))),
        lambda: (os.chmod, (path(), dice.choice(modes))),
        lambda: (os.chown, (path(), *dice.choice(owners))),
        lambda: (os.lchown, (path(), *dice.choice(owners))),
        lambda: (os.truncate, (path(), dice.choice(sizes))),
        lambda: (append, (path(), dice.randbytes(dice.choice(sizes)))),
        lambda: (os.utime, (path(), dice.choice((None, (1, 2))))),
        lambda: (os.readlink, (path(),)),
        lambda: (os.setxattr, (path(), "user." + dice.choice("xy"), dice.randbytes(4), dice.choice((0, 1, 2)))),
        lambda: (os.removexattr, (path(), "user." + dice.choice("xy"))),
        lambda: (os.setxattr, (path(), dice.choice((ACCESS, DEFAULT)), dice.choice(LISTS))),
        lambda: (os.setxattr, (path(), dice.choice((ACCESS, DEFAULT)), dice.choice(LISTS))),
        lambda: (os.removexattr, (path(), dice.choice((ACCESS, DEFAULT)))),
        lambda: (mode_of, (path(),)),
    )
    for _ in range(count):
        call, words = dice.choice(calls)()
        yield dice.choice(EVERYBODY), call, words
