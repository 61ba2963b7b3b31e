"""A thousand times open, change, commit and close on one image: it is as a model of it says each time, and the check is clean."""

import random
import stat
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from razortools.check.runner import check_quietly
from razortools.engine import files, namespace, xattrs
from razortools.engine.store.pages import MemoryDevice
from razortools.engine.volume import Volume
from razortools.format.inode import ROOT_INODE
from razortools.units import KIB, MIB, InodeNo
from tests.workload import Clock, Seen, everything, formatted, opened

CYCLES = 1000
OPERATIONS_MAX = 6  # in a cycle
NAMES = [b"a", b"b", b"c", b"d", b"\xff\x01 e", b"f" * 255]
FILE_BYTES_MAX = 40 * KIB
ATTRIBUTES = [b"user.short", b"user.long", b"trusted.one"]


@dataclass(eq=False, slots=True)
class File:
    """A file, symbolic link or directory of the model."""

    mode: int
    uid: int
    gid: int
    data: bytearray = field(default_factory=bytearray)
    xattrs: dict[bytes, bytes] = field(default_factory=dict)
    entries: dict[bytes, "File"] = field(default_factory=dict)

    @property
    def is_directory(self) -> bool:
        return stat.S_ISDIR(self.mode)

    @property
    def is_regular(self) -> bool:
        return stat.S_ISREG(self.mode)


Picture = dict[bytes, tuple[int, int, int, int, bytes, dict[bytes, bytes], frozenset[bytes]]]


class Model:
    """What the image holds, in dicts, and operations that do the same to it and to a volume."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.root = File(stat.S_IFDIR | 0o755, 0, 0)

    def change(self, volume: Volume) -> None:
        """Do one operation that is possible now."""
        actions: list[Callable[[Volume], bool]] = [
            self._make, self._make, self._write, self._write, self._truncate, self._remove, self._rename, self._link, self._chmod,
            self._set_xattr, self._remove_xattr,
        ]  # fmt: skip
        while not self.chance.choice(actions)(volume):
            pass

    def picture(self) -> Picture:
        """Return everything by path: (mode, uid, gid, links, contents, attributes, all names)."""
        found: list[tuple[bytes, File]] = [(b"/", self.root)]
        for path, file in found:
            found += [(path.rstrip(b"/") + b"/" + name, below) for name, below in file.entries.items()]
        names: dict[int, set[bytes]] = {}
        for path, file in found:
            names.setdefault(id(file), set()).add(path)
        return {
            path: (
                file.mode, file.uid, file.gid, self._links(file, len(names[id(file)])), bytes(file.data), file.xattrs,
                frozenset(names[id(file)]),
            )
            for path, file in found
        }  # fmt: skip

    def _links(self, file: File, name_count: int) -> int:
        return 2 + sum(below.is_directory for below in file.entries.values()) if file.is_directory else name_count

    def _folder(self, volume: Volume) -> tuple[File, InodeNo]:
        """Return a directory, at most two levels below the root."""
        file, ino = self.root, ROOT_INODE
        for _ in range(self.chance.randrange(3)):
            below = [(name, child) for name, child in file.entries.items() if child.is_directory]
            if not below:
                break
            name, file = self.chance.choice(below)
            ino = namespace.lookup(volume, ino, name)
        return file, ino

    def _entry(self, volume: Volume) -> tuple[File, InodeNo, bytes, File] | None:
        folder, ino = self._folder(volume)
        if not folder.entries:
            return None
        name = self.chance.choice(list(folder.entries))
        return folder, ino, name, folder.entries[name]

    def _regular(self, volume: Volume) -> tuple[File, InodeNo] | None:
        entry = self._entry(volume)
        if entry is None or not entry[3].is_regular:
            return None
        return entry[3], namespace.lookup(volume, entry[1], entry[2])

    def _free_name(self, folder: File) -> bytes | None:
        free = [name for name in NAMES if name not in folder.entries]
        return self.chance.choice(free) if free else None

    def _make(self, volume: Volume) -> bool:
        folder, parent = self._folder(volume)
        name = self._free_name(folder)
        if name is None:
            return False
        kind = self.chance.choice((stat.S_IFREG, stat.S_IFREG, stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK))
        uid, gid, permissions = self.chance.randrange(5), self.chance.randrange(5), self.chance.randrange(0o1000)
        file = folder.entries[name] = File(kind | permissions, uid, gid)
        if kind == stat.S_IFREG:
            namespace.create(volume, parent, name, permissions, uid, gid)
        elif kind == stat.S_IFDIR:
            namespace.mkdir(volume, parent, name, permissions, uid, gid)
        else:
            file.mode = kind | 0o777
            file.data += self.chance.randbytes(self.chance.choice((1, 60, 3000))).replace(b"\0", b"/")
            namespace.symlink(volume, parent, name, bytes(file.data), uid, gid)
        return True

    def _write(self, volume: Volume) -> bool:
        found = self._regular(volume)
        if found is None:
            return False
        file, ino = found
        data = self._bytes(self.chance.choice((1, 100, 3000, 20_000)))
        offset = self.chance.choice((0, len(file.data), self.chance.randrange(FILE_BYTES_MAX)))
        if offset + len(data) > FILE_BYTES_MAX:
            return False
        file.data += bytes(max(offset - len(file.data), 0))
        file.data[offset : offset + len(data)] = data
        assert files.write(volume, ino, offset, data) == len(data)
        return True

    def _truncate(self, volume: Volume) -> bool:
        found = self._regular(volume)
        if found is None:
            return False
        file, ino = found
        size = self.chance.choice((0, len(file.data) // 2, self.chance.randrange(FILE_BYTES_MAX)))
        del file.data[size:]
        file.data += bytes(size - len(file.data))
        namespace.setattr(volume, ino, namespace.AttributeChange(size=size))
        return True

    def _remove(self, volume: Volume) -> bool:
        entry = self._entry(volume)
        if entry is None or entry[3].entries:
            return False
        folder, parent, name, file = entry
        del folder.entries[name]
        (namespace.rmdir if file.is_directory else namespace.unlink)(volume, parent, name)
        return True

    def _rename(self, volume: Volume) -> bool:
        entry = self._entry(volume)
        if entry is None or entry[3].is_directory:  # moving a directory: the tests of the namespace
            return False
        folder, parent, name, file = entry
        new_folder, new_parent = self._folder(volume)
        new_name = self.chance.choice(NAMES)
        replaced = new_folder.entries.get(new_name)
        if replaced is not None and (replaced.is_directory or replaced is file):
            return False
        del folder.entries[name]
        new_folder.entries[new_name] = file
        namespace.rename(volume, parent, name, new_parent, new_name)
        return True

    def _link(self, volume: Volume) -> bool:
        entry = self._entry(volume)
        folder, parent = self._folder(volume)
        name = self._free_name(folder)
        if entry is None or entry[3].is_directory or name is None:
            return False
        folder.entries[name] = entry[3]
        namespace.link(volume, namespace.lookup(volume, entry[1], entry[2]), parent, name)
        return True

    def _chmod(self, volume: Volume) -> bool:
        entry = self._entry(volume)
        if entry is None or stat.S_ISLNK(entry[3].mode):
            return False
        file = entry[3]
        file.mode = stat.S_IFMT(file.mode) | self.chance.randrange(0o1000)
        file.uid, file.gid = self.chance.randrange(70_000), self.chance.randrange(70_000)
        change = namespace.AttributeChange(mode=file.mode, uid=file.uid, gid=file.gid)
        namespace.setattr(volume, namespace.lookup(volume, entry[1], entry[2]), change)
        return True

    def _set_xattr(self, volume: Volume) -> bool:
        found = self._regular(volume)
        if found is None:
            return False
        name = self.chance.choice(ATTRIBUTES)
        value = self.chance.randbytes(self.chance.choice((0, 1, 200, 6000)))
        found[0].xattrs[name] = value
        xattrs.set(volume, found[1], name, value)
        return True

    def _remove_xattr(self, volume: Volume) -> bool:
        found = self._regular(volume)
        if found is None or not found[0].xattrs:
            return True  # rare at first: not worth waiting for
        name = self.chance.choice(sorted(found[0].xattrs))
        del found[0].xattrs[name]
        xattrs.remove(volume, found[1], name)
        return True

    def _bytes(self, length: int) -> bytes:
        kind = self.chance.random()
        if kind < 0.2:
            return bytes(length)
        return self.chance.randbytes(length) if kind < 0.4 else (b"line %d\n" % self.chance.randrange(100) * length)[:length]


def picture_of(seen: dict[bytes, Seen]) -> Picture:
    """Return what was seen in the form of Model.picture."""
    names: dict[int, set[bytes]] = {}
    for path, file in seen.items():
        names.setdefault(file.ino, set()).add(path)
    return {
        path: (*file.attributes[:4], file.data, dict(file.xattrs), frozenset(names[file.ino]))  # type: ignore[misc]
        for path, file in seen.items()
    }


@pytest.mark.slow
def test_a_thousand_cycles_lose_nothing_and_leave_nothing_wrong() -> None:
    device = formatted(MemoryDevice(8 * MIB))
    clock, model = Clock(), Model(seed=1000)
    at_the_end = None
    for cycle in range(CYCLES):
        volume = opened(device, clock)
        found = everything(volume)
        assert picture_of(found) == model.picture(), f"cycle {cycle}"
        assert at_the_end in (None, found), f"cycle {cycle}: times or numbers changed between closing and opening"
        for _ in range(model.chance.randrange(1, OPERATIONS_MAX)):
            model.change(volume)
        volume.commit()
        if model.chance.random() < 0.3:
            model.change(volume)
        at_the_end = everything(volume)
        volume.close()
        report = check_quietly(device)
        assert (report.findings, report.exit_code) == ((), 0), f"cycle {cycle}"
    assert volume.store.superblock.mount_count == CYCLES
    assert len(model.picture()) > 20


@pytest.mark.slow
def test_cycles_without_a_close_keep_what_was_committed() -> None:
    device = formatted(MemoryDevice(8 * MIB))
    clock, model = Clock(), Model(seed=2000)
    for cycle in range(CYCLES // 4):
        volume = opened(device, clock)
        assert picture_of(everything(volume)) == model.picture(), f"cycle {cycle}"
        for _ in range(model.chance.randrange(1, OPERATIONS_MAX)):
            model.change(volume)
        volume.commit()  # and nothing more: as a killed daemon leaves it
        report = check_quietly(device)
        assert report.clean, f"cycle {cycle}: {report.findings}"
