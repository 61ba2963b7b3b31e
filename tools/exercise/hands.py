"""Doing a step on a mount and on the model, and comparing: what is read, how long a file is, how many blocks it takes.

The model of a file is a bytearray. Invariants: after each step the mount has the model's contents, whichever way they are read
(read, a mapping that has been there for long, a direct read, a descriptor of a file that has no name any more); behind the end
of a file the last page of a mapping is zeros.
"""

import errno
import mmap
import os
from collections.abc import Callable
from pathlib import Path

from tests.mount.mounts import RENAME_EXCHANGE, renameat2
from tools.exercise.mapping import Mapping
from tools.exercise.steps import PAGE_BYTES, SECTOR_BYTES, Step, contents

WAYS = {
    "plain": os.O_RDWR,
    "append": os.O_WRONLY | os.O_APPEND,
    "direct": os.O_RDWR | os.O_DIRECT,
    "synced": os.O_RDWR | os.O_DSYNC,
}


class Mismatch(Exception):
    """The mount and the model differ."""

    def __init__(self, file: int, offset: int, story: str) -> None:
        super().__init__(story)
        self.file = file
        self.offset = offset


class Slot:
    """One file: its path, what it should hold, and what is open of it."""

    def __init__(self, path: Path) -> None:
        """Make an empty file at *path*."""
        self.path = path
        self.model = bytearray()
        self._descriptors: dict[str, int] = {}
        self._mapping: Mapping | None = None
        self._mapped_bytes = 0
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644))

    def descriptor(self, way: str = "plain") -> int:
        """Return a descriptor that stays open until close()."""
        if way not in self._descriptors:
            self._descriptors[way] = os.open(self.path, WAYS[way])
        return self._descriptors[way]

    def mapping(self, bytes_wanted: int) -> Mapping:
        """Return a shared mapping from the file's start; an old one if it reaches far enough. New ones reach further."""
        if self._mapping is None or self._mapped_bytes < bytes_wanted:
            self.unmap()
            self._mapped_bytes = 2 * bytes_wanted + -2 * bytes_wanted % PAGE_BYTES
            self._mapping = Mapping(self.descriptor(), self._mapped_bytes)
        return self._mapping

    def flush_mapping(self) -> None:
        """msync(2) what is mapped and still there."""
        if self._mapping is not None and self.model:
            self._mapping.flush(0, min(self._mapped_bytes, len(self.model)))

    def unmap(self) -> None:
        """Let the mapping go, if there is one."""
        if self._mapping is not None:
            self._mapping.close()
            self._mapping = None

    def close(self) -> None:
        """Close everything that is open of it."""
        self.unmap()
        for descriptor in self._descriptors.values():
            os.close(descriptor)
        self._descriptors.clear()

    def put(self, offset: int, data: bytes) -> None:
        """Write into the model."""
        if offset > len(self.model):
            self.model.extend(bytes(offset - len(self.model)))
        self.model[offset : offset + len(data)] = data


class Hands:
    """Does steps on the files of one directory."""

    def __init__(self, folder: Path, file_count: int, record_bytes: int) -> None:
        """Make *file_count* empty files in *folder*, on a filesystem with records of *record_bytes*."""
        self._folder = folder
        self._record_bytes = record_bytes
        self._born = file_count
        self.slots = [Slot(folder / f"file-{number}") for number in range(file_count)]
        self._ways: dict[str, Callable[[Slot, Step], None]] = {
            "read": self._read,
            "write": lambda slot, step: self._write(slot, step, "plain", contents(step.value, step.length)),
            "append": self._append,
            "zeros": lambda slot, step: self._write(slot, step, "plain", bytes(step.length)),
            "synced-write": lambda slot, step: self._write(slot, step, "synced", contents(step.value, step.length)),
            "truncate": self._truncate,
            "mapped-read": self._mapped_read,
            "mapped-write": self._mapped_write,
            "private-write": self._private_write,
            "msync": lambda slot, _: slot.flush_mapping(),
            "direct-read": self._direct_read,
            "direct-write": self._direct_write,
            "copy": self._copy,
            "allocate": self._allocate,
            "seek": self._seek,
            "fsync": lambda slot, _: os.fsync(slot.descriptor()),
            "fdatasync": lambda slot, _: os.fdatasync(slot.descriptor()),
            "evict": self._evict,
            "reopen": lambda slot, _: slot.close(),
            "empty": self._empty,
            "verify": lambda slot, step: self.verify(step.file),
            "unlink": self._unlink,
            "replace": self._replace,
            "exchange": self._exchange,
        }

    @property
    def sizes(self) -> list[int]:
        """How long each file is."""
        return [len(slot.model) for slot in self.slots]

    def do(self, step: Step) -> None:
        """Do *step* and compare. Raises Mismatch; OSError if the mount refuses what it should do."""
        self._ways[step.kind](self.slots[step.file], step)
        self._check_status(step.file)
        if step.kind in ("copy", "replace", "exchange") and step.other != step.file:
            self._check_status(step.other)

    def verify(self, file: int) -> None:
        """Compare a whole file by reading it."""
        slot = self.slots[file]
        self._same(slot, 0, _read_all(slot.descriptor(), 0, len(slot.model) + 1), bytes(slot.model))

    def verify_all(self) -> None:
        """Compare all files, and the directory."""
        names = sorted(entry.name for entry in os.scandir(self._folder))
        wanted = sorted(slot.path.name for slot in self.slots)
        if names != wanted:
            raise Mismatch(0, 0, f"the directory has {names}, expected {wanted}")
        for file in range(len(self.slots)):
            self.verify(file)
            self._check_status(file)

    def close(self) -> None:
        """Close everything; the next step opens it again."""
        for slot in self.slots:
            slot.close()

    # Steps

    def _read(self, slot: Slot, step: Step) -> None:
        self._same(slot, step.offset, os.pread(slot.descriptor(), step.length, step.offset), self._model(slot, step))

    def _write(self, slot: Slot, step: Step, way: str, data: bytes) -> None:
        written = os.pwrite(slot.descriptor(way), data, step.offset)
        self._whole(slot, step, written)
        if data:
            slot.put(step.offset, data)

    def _append(self, slot: Slot, step: Step) -> None:
        data = contents(step.value, step.length)
        self._whole(slot, step, os.write(slot.descriptor("append"), data))
        slot.put(len(slot.model), data)

    def _truncate(self, slot: Slot, step: Step) -> None:
        if step.offset % 2:
            os.truncate(slot.path, step.offset)
        else:
            os.ftruncate(slot.descriptor(), step.offset)
        del slot.model[step.offset :]
        slot.put(step.offset, b"")

    def _empty(self, slot: Slot, step: Step) -> None:
        if step.value % 2:
            slot.close()
        os.close(os.open(slot.path, os.O_WRONLY | os.O_TRUNC))
        slot.model.clear()

    def _mapped_read(self, slot: Slot, step: Step) -> None:
        end = min(step.offset + step.length, len(slot.model))
        if step.offset >= end:
            return
        mapping = slot.mapping(end)
        self._same(slot, step.offset, mapping.read(step.offset, end), bytes(slot.model[step.offset : end]))
        if end == len(slot.model):
            tail = mapping.read(end, end + -end % PAGE_BYTES)
            self._same(slot, end, tail, bytes(len(tail)))

    def _mapped_write(self, slot: Slot, step: Step) -> None:
        end = min(step.offset + step.length, len(slot.model))
        if step.offset >= end:
            return
        data = contents(step.value, end - step.offset)
        mapping = slot.mapping(end)
        mapping.write(step.offset, data)
        slot.put(step.offset, data)
        if step.value % 4 == 0:
            mapping.flush(step.offset - step.offset % PAGE_BYTES, end)

    def _private_write(self, slot: Slot, step: Step) -> None:
        """What is written to a private mapping is nobody else's."""
        end = min(step.offset + step.length, len(slot.model))
        if step.offset >= end:
            return
        with mmap.mmap(slot.descriptor(), end, access=mmap.ACCESS_COPY) as mapping:
            mapping[step.offset : end] = contents(step.value, end - step.offset)
        self._read(slot, step)

    def _direct_read(self, slot: Slot, step: Step) -> None:
        with mmap.mmap(-1, max(step.length, PAGE_BYTES)) as buffer, memoryview(buffer) as view:
            with view[: step.length] as part:
                count = os.preadv(slot.descriptor("direct"), [part], step.offset)
            self._same(slot, step.offset, bytes(view[:count]), self._model(slot, step))

    def _direct_write(self, slot: Slot, step: Step) -> None:
        length = step.length - step.length % SECTOR_BYTES
        if not length:
            return
        data = contents(step.value, length)
        with mmap.mmap(-1, length) as buffer, memoryview(buffer) as view:
            view[:] = data
            written = os.pwritev(slot.descriptor("direct"), [view], step.offset)
        if written != length:
            raise Mismatch(step.file, step.offset, f"a direct write of {length} bytes wrote {written}")
        slot.put(step.offset, data)

    def _copy(self, slot: Slot, step: Step) -> None:
        target = self.slots[step.other]
        length = min(step.length, len(slot.model) - step.offset)
        if length <= 0 or (step.file == step.other and abs(step.offset - step.other_offset) < length):
            return
        done = 0
        while done < length:
            count = os.copy_file_range(
                slot.descriptor(), target.descriptor(), length - done, step.offset + done, step.other_offset + done
            )
            if not count:
                raise Mismatch(step.file, step.offset + done, f"copy_file_range copied {done} of {length} bytes")
            done += count
        target.put(step.other_offset, bytes(slot.model[step.offset : step.offset + length]))

    def _allocate(self, slot: Slot, step: Step) -> None:
        if step.length:
            os.posix_fallocate(slot.descriptor(), step.offset, step.length)
            slot.put(max(len(slot.model), step.offset + step.length), b"")

    def _seek(self, slot: Slot, step: Step) -> None:
        """What is said to be a hole must read as zeros."""
        size = len(slot.model)
        try:
            data = os.lseek(slot.descriptor(), step.offset, os.SEEK_DATA)
        except OSError as refused:
            if refused.errno != errno.ENXIO:
                raise
            data = size
        if any(slot.model[step.offset : data]):
            raise Mismatch(step.file, step.offset, f"SEEK_DATA says that a hole reaches to byte {data}")
        if step.offset < size and not step.offset <= os.lseek(slot.descriptor(), step.offset, os.SEEK_HOLE) <= size:
            raise Mismatch(step.file, step.offset, "SEEK_HOLE found no place within the file")

    def _evict(self, slot: Slot, step: Step) -> None:
        """Have the kernel forget what it has cached of the contents."""
        os.fsync(slot.descriptor())
        os.posix_fadvise(slot.descriptor(), 0, 0, os.POSIX_FADV_DONTNEED)

    def _unlink(self, slot: Slot, step: Step) -> None:
        """Remove the name; the open file lives on, and can be written."""
        descriptor = slot.descriptor()
        os.unlink(slot.path)
        data = contents(step.value, 3000)
        os.pwrite(descriptor, data, len(slot.model))
        slot.put(len(slot.model), data)
        self._bury(step.file)

    def _replace(self, slot: Slot, step: Step) -> None:
        """Rename one file over another."""
        if step.file == step.other:
            return
        replaced = self.slots[step.other]
        replaced.descriptor()
        os.rename(slot.path, replaced.path)
        slot.path, old_path = replaced.path, slot.path
        self._bury(step.other)
        assert not old_path.exists()

    def _exchange(self, slot: Slot, step: Step) -> None:
        other = self.slots[step.other]
        renameat2(slot.path, other.path, RENAME_EXCHANGE)
        if slot is not other:
            slot.path, other.path = other.path, slot.path

    def _bury(self, file: int) -> None:
        """The file has lost its name: look at what is left of it once more, and put a new one in its slot."""
        slot = self.slots[file]
        self.verify(file)
        links = os.fstat(slot.descriptor()).st_nlink
        if links:
            raise Mismatch(file, 0, f"a file without a name has {links} links")
        slot.close()
        self.slots[file] = Slot(self._folder / f"file-{self._born}")
        self._born += 1

    # Comparing

    def _model(self, slot: Slot, step: Step) -> bytes:
        return bytes(slot.model[step.offset : step.offset + step.length])

    def _whole(self, slot: Slot, step: Step, written: int) -> None:
        if written != step.length:
            raise Mismatch(step.file, step.offset, f"a write of {step.length} bytes wrote {written}")

    def _same(self, slot: Slot, offset: int, found: bytes, wanted: bytes) -> None:
        if found == wanted:
            return
        file = self.slots.index(slot)
        if len(found) != len(wanted):
            raise Mismatch(file, offset + min(len(found), len(wanted)), f"{len(found)} bytes read, expected {len(wanted)}")
        bad = [at for at, (one, other) in enumerate(zip(found, wanted, strict=True)) if one != other]
        first, last = bad[0], bad[-1]
        raise Mismatch(
            file,
            offset + first,
            f"{slot.path.name}: {len(bad)} bytes differ, the first at {offset + first}, the last at {offset + last} "
            f"(of {len(slot.model)}): found {found[first : first + 16].hex()}, expected {wanted[first : first + 16].hex()}",
        )

    def _check_status(self, file: int) -> None:
        """Compare size and blocks with what can be said of them."""
        slot = self.slots[file]
        status = os.stat(slot.path)
        size = len(slot.model)
        if status.st_size != size:
            raise Mismatch(file, min(size, status.st_size), f"{slot.path.name}: st_size {status.st_size}, expected {size}")
        most = -(-size // self._record_bytes) * self._record_bytes // SECTOR_BYTES
        if not min(size, 1) <= status.st_blocks <= max(most, 1):
            raise Mismatch(file, 0, f"{slot.path.name}: st_blocks {status.st_blocks} of a file of {size} bytes")


def _read_all(descriptor: int, offset: int, length: int) -> bytes:
    """Read until the end or *length* bytes, whatever comes at once."""
    pieces = []
    while length:
        piece = os.pread(descriptor, length, offset)
        if not piece:
            break
        pieces.append(piece)
        offset += len(piece)
        length -= len(piece)
    return b"".join(pieces)
