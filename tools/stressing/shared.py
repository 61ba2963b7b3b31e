"""What clients do in the directory that all of them share, where anybody may have been faster.

So names may be there or not, but contents describe themselves: a published file never changes, and says how long it is and what
its bytes are; a record of the journal that everybody appends to has a checksum; a counter is changed under a lock; each client
has a stripe of one file. Invariants, judged when all have ended: every published file is whole, the journal has as many records
as were appended, the counter has counted every turn.
"""

import errno
import fcntl
import hashlib
import os
import random
import struct
import zlib
from contextlib import suppress

from tools.stressing.own import Wrong, expect_whole, opened, read_all, write_all

NAMES = 200
DIRECTORIES = 8
STRIPE_BYTES = 64 << 10
RECORD = struct.Struct("<4sIQ44sI")  # magic, client, number, filling, CRC-32; 64 bytes, so no page ends within one
HEAD = struct.Struct("<4sIQQ32s")  # magic, client, number, bytes that follow, their SHA-256
BODY_BYTES_MAX = 96 << 10


class Shared:
    """The shared directory, as one client uses it."""

    def __init__(self, root: str, client: int, source: random.Random) -> None:
        """Work in *root*, which prepare() has made."""
        self._root = root
        self._client = client
        self._random = source
        self._stripe = bytearray(STRIPE_BYTES)
        self._number = 0
        self.appended = 0
        self.turns = 0
        self.steps = [
            *[self.publish] * 6, *[self.consume] * 8, *[self.unlink] * 3, *[self.rename] * 2, *[self.link] * 2,
            *[self.append] * 4, *[self.count] * 2, *[self.stripe] * 4, *[self.directories] * 3, self.read_directory,
        ]  # fmt: skip

    def _path(self) -> str:
        return f"{self._root}/p{self._random.randrange(NAMES)}"

    def publish(self) -> None:
        """Write a file and move it to a name where others find it whole."""
        self._number += 1
        body = self._random.randbytes(64) * self._random.randrange(BODY_BYTES_MAX // 64)
        head = HEAD.pack(b"PUBL", self._client, self._number, len(body), hashlib.sha256(body).digest())
        draft = f"{self._root}/draft-{self._client}"
        try:
            with opened(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY) as descriptor:
                write_all(descriptor, head + body, 0)
            os.rename(draft, self._path())
        except OSError:  # the image is full
            with suppress(FileNotFoundError):
                os.unlink(draft)
            raise

    def consume(self) -> None:
        """Read a file that somebody has published."""
        path = self._path()
        try:
            descriptor = os.open(path, os.O_RDONLY)
        except FileNotFoundError:
            return
        try:
            judge_published(path, read_all(descriptor))
        finally:
            os.close(descriptor)

    def unlink(self) -> None:
        """Remove a name, if it is there."""
        with suppress(FileNotFoundError):
            os.unlink(self._path())

    def rename(self) -> None:
        """Move a published file over another."""
        with suppress(FileNotFoundError):
            os.rename(self._path(), self._path())

    def link(self) -> None:
        """Give a published file a second name."""
        with suppress(FileNotFoundError, FileExistsError):
            os.link(self._path(), self._path())

    def read_directory(self) -> None:
        """Read the directory: no name twice, and what nobody removes is there."""
        names = os.listdir(self._root)
        if len(set(names)) != len(names) or not {"journal", "counter", "stripes"} <= set(names):
            raise Wrong(f"{self._root}: reads as {sorted(names)}")
        for name in names[:20]:
            with suppress(FileNotFoundError):
                os.stat(f"{self._root}/{name}")

    def append(self) -> None:
        """Append a record to what all append to."""
        data = record(self._client, self.appended)
        with opened(f"{self._root}/journal", os.O_WRONLY | os.O_APPEND) as descriptor:
            expect_whole(os.write(descriptor, data), len(data))
        self.appended += 1

    def count(self) -> None:
        """Add one to a number, under a lock."""
        with opened(f"{self._root}/counter", os.O_RDWR) as descriptor:
            fcntl.lockf(descriptor, fcntl.LOCK_EX)
            value = int.from_bytes(os.pread(descriptor, 8, 0), "little")
            os.pwrite(descriptor, (value + 1).to_bytes(8, "little"), 0)
        self.turns += 1

    def stripe(self) -> None:
        """Write and read one's own part of a file that all write."""
        start = self._random.randrange(STRIPE_BYTES)
        data = self._random.randbytes(self._random.randrange(6000))[: STRIPE_BYTES - start]
        before = bytes(self._stripe)
        self._stripe[start : start + len(data)] = data
        first = self._client * STRIPE_BYTES
        with opened(f"{self._root}/stripes", os.O_RDWR) as descriptor:
            try:
                write_all(descriptor, data, first + start)
            except OSError:  # the image is full: some pages may have been written, whole ones
                found = os.pread(descriptor, STRIPE_BYTES, first)
                pairs = zip(found, before, self._stripe, strict=True)
                if not all(byte in (old, new) for byte, old, new in pairs):
                    raise Wrong("a stripe holds what nobody wrote") from None
                self._stripe[:] = found
                raise
            if os.pread(descriptor, STRIPE_BYTES, first) != self._stripe:
                raise Wrong("a stripe holds something else than was written")

    def directories(self) -> None:
        """Make and remove directories that others make, fill and remove too."""
        path = f"{self._root}/d{self._random.randrange(DIRECTORIES)}"
        kind = self._random.randrange(3)
        if kind == 0:
            with suppress(FileExistsError):
                os.mkdir(path)
        elif kind == 1:
            with suppress(FileNotFoundError), opened(f"{path}/{self._client}", os.O_CREAT | os.O_WRONLY):
                pass
            with suppress(FileNotFoundError):
                os.unlink(f"{path}/{self._client}")
        else:
            try:
                os.rmdir(path)
            except OSError as failed:
                if failed.errno not in (errno.ENOENT, errno.ENOTEMPTY):
                    raise

    def summary(self) -> dict[str, object]:
        """Return what this client has done here, for judge()."""
        return {"appended": self.appended, "turns": self.turns, "stripe": hashlib.sha256(self._stripe).hexdigest()}


def prepare(root: str, client_count: int) -> None:
    """Make the shared directory."""
    os.mkdir(root)
    for name, size in (("journal", 0), ("counter", 8), ("stripes", client_count * STRIPE_BYTES)):
        with opened(f"{root}/{name}", os.O_CREAT | os.O_EXCL | os.O_WRONLY) as descriptor:
            os.ftruncate(descriptor, size)


def record(client: int, number: int) -> bytes:
    """Return a record for the journal."""
    start = RECORD.pack(b"RECD", client, number, b"*" * 44, 0)[:-4]
    return start + zlib.crc32(start).to_bytes(4, "little")


def judge_published(path: str, data: bytes) -> None:
    """Raise Wrong unless *data* is a whole published file."""
    if len(data) < HEAD.size:
        raise Wrong(f"{path}: {len(data)} bytes, less than a published file has")
    magic, client, number, length, digest = HEAD.unpack_from(data)
    body = data[HEAD.size :]
    if magic != b"PUBL" or len(body) != length or hashlib.sha256(body).digest() != digest:
        raise Wrong(f"{path}: file {number} of client {client} is not what was published: {len(body)} of {length} bytes")


def judge(root: str, done: list[dict[str, object]]) -> None:
    """Compare the shared directory with what the clients have *done*. Raises Wrong."""
    with opened(f"{root}/journal", os.O_RDONLY) as descriptor:
        journal = read_all(descriptor)
    found = sorted(RECORD.unpack_from(journal, start)[1:3] for start in range(0, len(journal), RECORD.size))
    wanted = [(client, number) for client, one in enumerate(done) for number in range(int(str(one["appended"])))]
    if found != wanted or any(
        zlib.crc32(journal[start : start + RECORD.size - 4]) != RECORD.unpack_from(journal, start)[4]
        for start in range(0, len(journal), RECORD.size)
    ):
        raise Wrong(f"the shared journal has {len(found)} records, expected {len(wanted)}, or they are not whole")
    with opened(f"{root}/counter", os.O_RDONLY) as descriptor:
        counted = int.from_bytes(os.pread(descriptor, 8, 0), "little")
    turns = sum(int(str(one["turns"])) for one in done)
    if counted != turns:
        raise Wrong(f"the shared counter says {counted}, expected {turns}")
    with opened(f"{root}/stripes", os.O_RDONLY) as descriptor:
        stripes = read_all(descriptor)
    for client, one in enumerate(done):
        stripe = stripes[client * STRIPE_BYTES : (client + 1) * STRIPE_BYTES]
        if hashlib.sha256(stripe).hexdigest() != one["stripe"]:
            raise Wrong(f"the stripe of client {client} is not what it wrote")
    for name in os.listdir(root):
        if name.startswith("p"):
            with opened(f"{root}/{name}", os.O_RDONLY) as descriptor:
                judge_published(name, read_all(descriptor))
