"""Healthy images, made at random by the engine: every layout, everything that can be in one, and every honest way to leave it.

The life of an image is a few *chapters*. Each opens it, does something typical, and ends: closed, killed with a journal that
waits, or cut off by a power cut and recovered. Nothing here damages anything, so a check that finds more than a note is wrong.
"""

import random
import stat
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from razortools.engine import acls, directories, files, namespace, xattrs
from razortools.engine.create import create, plan_create
from razortools.engine.store.device import Device
from razortools.engine.store.pages import MemoryDevice
from razortools.engine.store.simulated import SimulatedDevice
from razortools.engine.volume import Volume, open_volume
from razortools.errors import DeviceFailed, OutOfSpace, PosixError, UsageError
from razortools.format.acl import Acl, AclEntry, Tag, encode_acl
from razortools.format.compression import Policy, parse_policy
from razortools.format.inode import ROOT_INODE, FileType
from razortools.units import KIB, MIB, InodeNo
from tests.check.samples import KeptDevice
from tests.workload import Clock, Workload, crash_at_flush

POLICIES = ("auto", "none", "zstd", "zstd:9", "zstd:-3", "lz4", "zlib", "zlib:1")
NAMES = (
    b"\xff\xfe not text", b"\xe4\xf6\xfc in latin-1", "ünïcødé 文件 🗄".encode(), b"new\nline", b"tab\tand \x1b[31mcolour", b" ",
    b"-rf", b"...", b"x" * 255, b"\x80" * 255, b"~", b"name~2", b"con", b"a" * 254 + b"\xcc", b"#1", b"lost+found", b"a+b+c",
    b"%2F", b"%s%n", b"\x7f",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Healthy:
    """A generated image, and how it came about."""

    device: Device
    features: tuple[str, ...]
    chapters: tuple[str, ...]

    def __str__(self) -> str:
        return "; ".join(self.chapters)


class Author:
    """What the chapters write with."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.clock = Clock()
        self.seed = seed

    def data(self, length: int) -> bytes:
        """Return contents: zeros, text, or noise."""
        kind = self.chance.random()
        if kind < 0.2:
            return bytes(length)
        return (b"line %d of it\n" % self.chance.randrange(99) * length)[:length] if kind < 0.6 else self.chance.randbytes(length)

    def name(self) -> bytes:
        """Return a name, often an odd one."""
        if self.chance.random() < 0.4:
            return self.chance.choice(NAMES)
        raw = self.chance.randbytes(self.chance.randrange(1, 40))
        plain = b"file %d" % self.chance.randrange(500)
        return raw.replace(b"/", b"_").replace(b"\0", b"_") if self.chance.random() < 0.5 else plain


Chapter = Callable[[Author, Volume], None]


def odd_names(author: Author, volume: Volume) -> None:
    """Names that are no text, the longest, and those that repair uses."""
    for _ in range(author.chance.randrange(5, 40)):
        with suppress(PosixError, OutOfSpace):
            if author.chance.random() < 0.3:
                namespace.mkdir(volume, ROOT_INODE, author.name(), 0o755, 1, 2)
            else:
                ino = namespace.create(volume, ROOT_INODE, author.name(), 0o644, 1, 2)
                files.write(volume, ino, 0, author.data(author.chance.choice((0, 10, 3000))))


def deep_tree(author: Author, volume: Volume) -> None:
    """Directories in directories, and a rename of one with all that is below."""
    with suppress(PosixError, OutOfSpace):
        top = at = namespace.mkdir(volume, ROOT_INODE, b"deep %d" % author.chance.randrange(9), 0o700, 1, 2)
        for level in range(author.chance.randrange(5, 120)):
            at = namespace.mkdir(volume, at, b"d%d" % level, 0o755, 1, 2)
        namespace.create(volume, at, b"bottom", 0o600, 1, 2)
        other = namespace.mkdir(volume, ROOT_INODE, b"elsewhere", 0o755, 1, 2)
        namespace.rename(volume, top, b"d0", other, b"moved")


def many_links(author: Author, volume: Volume) -> None:
    """One file under many names, some of them taken away again."""
    with suppress(PosixError, OutOfSpace):
        directory = namespace.mkdir(volume, ROOT_INODE, b"links %d" % author.chance.randrange(9), 0o755, 1, 2)
        ino = namespace.create(volume, directory, b"first", 0o644, 1, 2)
        files.write(volume, ino, 0, author.data(9000))
        count = author.chance.randrange(2, 300)
        for number in range(count):
            namespace.link(volume, ino, directory, b"link %d" % number)
        for number in range(0, count, author.chance.choice((2, 3, count))):
            namespace.unlink(volume, directory, b"link %d" % number)


def attributes(author: Author, volume: Volume) -> None:
    """Extended attributes, small, large, empty and taken away; access control lists, inherited ones too; owners, modes, times."""
    with suppress(PosixError, OutOfSpace):
        directory = namespace.mkdir(volume, ROOT_INODE, b"attributes %d" % author.chance.randrange(9), 0o2775, 1, 2)
        acls.set(volume, directory, xattrs.DEFAULT_ACL, encode_acl(_acl(author)))
        for number in range(author.chance.randrange(1, 12)):
            ino = namespace.create(volume, directory, b"a%d" % number, 0o664, number, 2)
            for _ in range(author.chance.randrange(6)):
                name = author.chance.choice((b"user.a", b"user.b", b"user." + b"n" * 240, b"trusted.t", b"security.s"))
                xattrs.set(volume, ino, name, author.data(author.chance.choice((0, 1, 300, 5000, 65536))))
            if author.chance.random() < 0.5:
                acls.set(volume, ino, xattrs.ACCESS_ACL, encode_acl(_acl(author)))
            if author.chance.random() < 0.3:
                xattrs.remove(volume, ino, b"user.a", missing_ok=True)
            namespace.setattr(volume, ino, namespace.AttributeChange(mode=author.chance.randrange(0o10000)))


def _acl(author: Author) -> Acl:
    users = [AclEntry(Tag.USER, author.chance.randrange(8), who) for who in sorted(author.chance.sample(range(5000), 3))]
    plain = {tag: AclEntry(tag, author.chance.randrange(8)) for tag in (Tag.OWNER, Tag.OWNING_GROUP, Tag.MASK, Tag.OTHERS)}
    return (plain[Tag.OWNER], *users, plain[Tag.OWNING_GROUP], plain[Tag.MASK], plain[Tag.OTHERS])


def sparse(author: Author, volume: Volume) -> None:
    """Holes, far ends, and truncations up and down."""
    for number in range(author.chance.randrange(1, 8)):
        with suppress(PosixError, OutOfSpace):
            ino = namespace.create(volume, ROOT_INODE, b"sparse %d" % number, 0o600, 1, 2)
            for _ in range(author.chance.randrange(1, 6)):
                at = author.chance.choice((0, 5000, MIB, 1 << 33, (1 << 62)))
                files.write(volume, ino, at + author.chance.randrange(9000), author.data(author.chance.choice((1, 700, 20_000))))
            files.truncate(volume, ino, author.chance.choice((0, 1, 4096, 12_345, MIB + 1, 1 << 40)))
            files.truncate(volume, ino, author.chance.choice((100, 70_000, 1 << 50)))


def special(author: Author, volume: Volume) -> None:
    """Pipes, sockets, devices, and symbolic links short and long."""
    for number in range(author.chance.randrange(2, 20)):
        with suppress(PosixError, OutOfSpace):
            kind = author.chance.choice((stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFCHR, stat.S_IFBLK))
            rdev = author.chance.randrange(1 << 20) if kind in (stat.S_IFCHR, stat.S_IFBLK) else 0
            namespace.mknod(volume, ROOT_INODE, b"special %d" % number, kind | 0o600, rdev, 1, 2)
            target = author.name() * author.chance.choice((1, 3, 15))
            namespace.symlink(volume, ROOT_INODE, b"symlink %d" % number, target[:4095], 1, 2)


def fragmented(author: Author, volume: Volume) -> None:
    """Many small files, every other one deleted, and large ones in what is left."""
    with suppress(PosixError, OutOfSpace):
        directory = namespace.mkdir(volume, ROOT_INODE, b"crumbs", 0o755, 1, 2)
        count = author.chance.randrange(20, 150)
        for number in range(count):
            ino = namespace.create(volume, directory, b"%d" % number, 0o644, 1, 2)
            files.write(volume, ino, 0, author.chance.randbytes(author.chance.choice((4096, 5000))))
        volume.commit()
        for number in range(0, count, 2):
            namespace.unlink(volume, directory, b"%d" % number)
        volume.checkpoint()
    with suppress(PosixError, OutOfSpace):
        ino = namespace.create(volume, ROOT_INODE, b"in pieces", 0o644, 1, 2)
        files.write(volume, ino, 0, author.chance.randbytes(300_000))


def full(author: Author, volume: Volume) -> None:
    """Until not even an empty file can be made."""
    with suppress(PosixError):  # it was filled before
        Workload(volume, author.chance.randrange(1 << 30), file_bytes_max=author.chance.choice((50_000, 300_000))).fill()


def mixed(author: Author, volume: Volume) -> None:
    """Random operations that meet."""
    work = Workload(volume, author.chance.randrange(1 << 30), file_bytes_max=60_000)
    for step in range(author.chance.randrange(20, 150)):
        work.step()
        if step % 40 == 39:
            volume.commit()


def remade(author: Author, volume: Volume) -> None:
    """Everything deleted, and something else made in its place."""
    _empty(volume, ROOT_INODE)
    work = Workload(volume, author.chance.randrange(1 << 30), file_bytes_max=60_000)
    for _ in range(author.chance.randrange(10, 60)):
        work.step()


def _empty(volume: Volume, directory: InodeNo) -> None:
    """Delete all that is in a directory."""
    for _, name, entry in list(directories.entries(volume, directory)):
        if entry.file_type == FileType.DIRECTORY:
            _empty(volume, InodeNo(entry.inode))
            namespace.rmdir(volume, directory, name)
        else:
            namespace.unlink(volume, directory, name)


def held_open(author: Author, volume: Volume) -> None:
    """Files deleted while they are open: how the chapter ends tells whether anybody finishes them."""
    with suppress(PosixError, OutOfSpace):
        for number in range(author.chance.randrange(1, 6)):
            ino = namespace.create(volume, ROOT_INODE, b"open %d" % number, 0o644, 1, 2)
            files.write(volume, ino, 0, author.data(author.chance.choice((0, 100, 50_000))))
            namespace.hold(volume, ino)
            namespace.unlink(volume, ROOT_INODE, b"open %d" % number)


CHAPTERS: dict[str, Chapter] = {
    "odd names": odd_names, "deep tree": deep_tree, "many links": many_links, "attributes": attributes, "sparse": sparse,
    "special": special, "fragmented": fragmented, "full": full, "mixed": mixed, "remade": remade, "held open": held_open,
}  # fmt: skip


def healthy_image(seed: int) -> Healthy:
    """Return the image that *seed* makes, the same one each time."""
    author = Author(seed)
    chance = author.chance
    device, features = _formatted(author)
    chapters: list[str] = []
    for _ in range(chance.randrange(1, 6)):
        name = chance.choice(list(CHAPTERS))
        ending = chance.choice(("closed", "closed", "killed", "checkpointed and killed", "power cut"))
        device = _chapter(author, device, CHAPTERS[name], ending)
        chapters.append(f"{name}, {ending}")
    told = {*features, *(part for chapter in chapters for part in chapter.split(", "))}
    return Healthy(device, tuple(sorted(told)), tuple(chapters))


def _formatted(author: Author) -> tuple[MemoryDevice, tuple[str, ...]]:
    """Return a device with an empty filesystem of a layout by chance, sometimes over the remains of another one."""
    chance = author.chance
    block_bytes = chance.choice((4096, 4096, 4096, 16384, 65536))
    size = max(chance.choice((MIB, 2 * MIB, 5 * MIB, 17 * MIB)), 320 * block_bytes)
    largest = MIB if size >= 16 * MIB else 128 * KIB  # what mkfs allows
    record_bytes = max(min(chance.choice((4 * KIB, 8 * KIB, 128 * KIB, MIB)), largest), block_bytes)
    copies, policy = chance.choice((1, 2)), chance.choice(POLICIES)
    device: MemoryDevice = KeptDevice(size)
    features = [f"blocks of {block_bytes}", f"copies {copies}", policy, "records of " + str(record_bytes)]
    if chance.random() < 0.2:
        features.append("over an older one")
        _make(author, device, block_bytes, record_bytes, copies, parse_policy(policy))
        with suppress(UsageError):
            device = _chapter(author, device, mixed, "closed")
    _make(author, device, block_bytes, record_bytes, copies, parse_policy(policy))
    return device, tuple(features)


def _make(author: Author, device: Device, block_bytes: int, record_bytes: int, copies: int, policy: Policy) -> None:
    create(
        device,
        plan_create(
            device.size_bytes, uuid=author.chance.randbytes(16), hash_seed=author.chance.randbytes(16), made_at_ns=author.clock(),
            block_bytes=block_bytes, record_bytes=record_bytes, metadata_copies=copies, compression=policy,
        ),
    )  # fmt: skip
    device.flush()


def _chapter(author: Author, device: MemoryDevice, write: Chapter, ending: str) -> MemoryDevice:
    """Let one chapter happen; return the device that is left."""
    if ending == "power cut":
        return _cut_off(author, device, write)
    kept = _copy(device)
    volume = open_volume(kept, clock=author.clock)
    write(author, volume)
    if ending == "closed":
        volume.close()
    elif ending == "killed":
        volume.commit()
    else:
        volume.checkpoint()
    return kept


def _cut_off(author: Author, device: MemoryDevice, write: Chapter) -> MemoryDevice:
    """Let the power go at some flush; return what is left once it was recovered and closed."""
    disk = SimulatedDevice.holding(device)
    survivors = crash_at_flush(disk, author.chance.randrange(1, 12), author.seed)
    with suppress(DeviceFailed, PosixError, OutOfSpace):
        volume = open_volume(disk, clock=author.clock)
        for _ in range(6):
            write(author, volume)
            volume.commit()
    left = _copy(author.chance.choice(survivors) if survivors else disk)
    open_volume(left, clock=author.clock).close()
    return left


def _copy(device: MemoryDevice) -> KeptDevice:
    kept = KeptDevice(device.size_bytes)
    kept._pages = {number: bytearray(page) for number, page in device._pages.items()}
    return kept
