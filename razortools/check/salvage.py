"""Salvage: everything that can be read of an image is copied out to a directory of the host. The image is not written to.

The tree is made readable in memory (salvage_view), then copied from the root down. What no name leads to any more goes into the
directory lost+found, under the last name that is known of it. Invariants: a file that is not whole keeps its size, and what is
missing of it is told range by range; nothing is copied twice, whatever the names say.
"""

import os
from array import array
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from typing import Any

from razortools.check.facts import find_number
from razortools.check.findings import Progress
from razortools.check.host_copy import HostCopy, write_but_zeros
from razortools.check.paths import Paths
from razortools.check.salvage_view import View, readable_view
from razortools.check.steps import PARTS, scaled
from razortools.check.stored_file import attributes_of, parts_of
from razortools.check.tree import kinds_mask
from razortools.engine.store.device import Device
from razortools.errors import CorruptImage, UsageError
from razortools.format.directory import NAME_BYTES_MAX, DirectoryEntry
from razortools.format.inode import ROOT_INODE, FileType, Inode, Orphan, OrphanReason
from razortools.format.keys import Kind, Table, inode_key, kind_range, object_of, table_range
from razortools.printable import printable
from razortools.units import InodeNo

TOLD_MAX = 10_000  # of each list in the report; what comes after is counted
LOST_AND_FOUND = b"lost+found"
VIEWED = 300  # of PARTS, once the image can be read


@dataclass(frozen=True, slots=True)
class Unreadable:
    """Bytes of a file that could not be read; in the copy they are zeros."""

    path: str
    first: int
    behind: int
    reason: str


@dataclass(slots=True)
class SalvageReport:
    """What was copied out, and what was not."""

    files: int = 0
    directories: int = 0
    symlinks: int = 0
    hard_links: int = 0
    specials: int = 0
    total_bytes: int = 0  # sizes of the files
    found_again: int = 0  # files and directories in lost+found
    mended_records: int = 0  # in which one flipped bit was turned back
    unreadable: list[Unreadable] = field(default_factory=list)
    unreadable_count: int = 0
    not_copied: list[tuple[str, str]] = field(default_factory=list)  # path, reason
    not_copied_count: int = 0
    older: list[str] = field(default_factory=list)  # paths that may be in an older state, without their last changes
    not_kept: list[str] = field(default_factory=list)  # kinds of attributes that the host refused
    remarks: list[str] = field(default_factory=list)

    @property
    def is_whole(self) -> bool:
        """Whether everything that the image is known to hold was copied."""
        return not (self.unreadable_count or self.not_copied_count or self.older or self.remarks or self.found_again)

    @property
    def is_nothing(self) -> bool:
        """Whether not even a name below the root could be copied, although something should have been."""
        copied = self.files + self.symlinks + self.hard_links + self.specials + max(self.directories - 1, 0)
        return not self.is_whole and not copied

    def as_json(self) -> dict[str, Any]:
        """Return the report as plain values."""
        names = (
            "files", "directories", "symlinks", "hard_links", "specials", "total_bytes", "found_again", "mended_records",
            "unreadable_count", "not_copied_count", "older", "not_kept", "remarks",
        )  # fmt: skip
        told: dict[str, Any] = {name: getattr(self, name) for name in names}
        told["unreadable"] = [
            {"path": part.path, "first_byte": part.first, "last_byte": part.behind - 1, "reason": part.reason}
            for part in self.unreadable
        ]
        told["not_copied"] = [{"path": path, "reason": reason} for path, reason in self.not_copied]
        return told


def salvage(device: Device, into: str) -> Generator[Progress, None, SalvageReport]:
    """Copy what can be read of *device* into the directory *into*, which is made, or is there and empty.

    Raises UsageError if it cannot be used, NotAnImage if nothing tells how the image is laid out, UnsupportedFormat for newer
    ones, DeviceFailed if the host is full.
    """
    _make_ready(into)
    view = yield from scaled(readable_view(device), 0, VIEWED)
    copier = _Copier(view, os.fsencode(into))
    yield from scaled(copier.copy_all(), VIEWED, PARTS)
    return copier.report


def _make_ready(into: str) -> None:
    try:
        os.makedirs(into, 0o700, exist_ok=True)
        if os.listdir(into):
            raise UsageError(f"{into}: is not empty; name a new directory, so that nothing is mixed up or overwritten")
    except OSError as refused:
        raise UsageError(f"{into}: cannot be used to copy files into: {refused.strerror}") from None


class _Copier:
    """Copies one view. *_done* has a flag for each inode that was copied."""

    def __init__(self, view: View, into: bytes) -> None:
        self.report = SalvageReport(remarks=list(view.remarks))
        self._tree = view.tree
        self._paths = Paths(view.tree)
        self._into = into
        self._host = HostCopy()
        self._numbers = array("Q", self._inode_numbers())
        self._done = bytearray(len(self._numbers))
        self._first_paths: dict[int, bytes] = {}  # of files with several names
        self._older = frozenset(view.rebuilt.older_inodes) if view.rebuilt is not None else frozenset()
        self._finished: list[tuple[Inode, InodeNo, bytes, str]] = []
        self._count = 0

    def _inode_numbers(self) -> Iterator[int]:
        for _, (keys, _) in self._tree.leaves(kinds_mask(Kind.INODE)):
            yield from (object_of(key) for key in keys if key[9] == Kind.INODE and key[0] == Table.FILES)

    def copy_all(self) -> Generator[Progress, None, None]:
        """Copy what names lead to, then the rest."""
        yield from self._copy_below(ROOT_INODE, self._into, "/")
        deleted = {
            object_of(key)
            for key, value in self._tree.range_items(*table_range(Table.ORPHANS))
            if value == Orphan(OrphanReason.UNLINKED).encode()
        }
        left = [InodeNo(number) for number, done in zip(self._numbers, self._done, strict=True) if not done]
        left = [number for number in left if number not in deleted and number != ROOT_INODE]
        tops = [number for number in left if not self._is_in_another(number)]
        for number in [*tops, *left]:  # directories that contain each other have no top
            if not self._done[find_number(self._numbers, number)]:
                yield from self._copy_lost(number)
        self.report.not_kept = sorted(self._host.not_kept)
        while self._finished:  # the times of directories, when everything is in them
            self._describe(*self._finished.pop())

    def _is_in_another(self, number: InodeNo) -> bool:
        """Whether a directory that was not copied either has an entry for this inode: then it comes with it."""
        link = self._paths.first_link(number)
        place = find_number(self._numbers, link.parent) if link is not None else -1
        if link is None or place < 0 or self._done[place] or link.parent == number:
            return False
        return any(child == number for _, child in self._entries(InodeNo(link.parent), ""))

    def _copy_lost(self, number: InodeNo) -> Generator[Progress, None, None]:
        """Copy what no name leads to into lost+found."""
        if not os.path.lexists(os.path.join(self._into, LOST_AND_FOUND)):
            os.mkdir(os.path.join(self._into, LOST_AND_FOUND), 0o700)
        known = os.fsencode(self._paths.of(number)).strip(b"/").replace(b"/", b"+")
        name = b"#%d" % number if known.startswith(b"<inode") else known
        name = name[:NAME_BYTES_MAX]
        target = os.path.join(self._into, LOST_AND_FOUND, name)
        if not name or os.path.lexists(target):
            target = os.path.join(self._into, LOST_AND_FOUND, (b"#%d+%s" % (number, name))[:NAME_BYTES_MAX])
        self.report.found_again += 1
        yield from self._copy_below(number, target, os.fsdecode(os.path.join(b"/", LOST_AND_FOUND, os.path.basename(target))))

    def _copy_below(self, number: InodeNo, target: bytes, path: str) -> Generator[Progress, None, None]:
        """Copy a file or, with a list instead of recursion because depth has no bound, a tree."""
        waiting = [(number, target, path)]
        while waiting:
            number, target, path = waiting.pop()
            self._count += 1
            yield Progress(min(self._count, len(self._numbers)), len(self._numbers))
            inode = self._inode(number)
            if inode is None:
                if number == ROOT_INODE:  # its entries may still be there
                    waiting += self._children(number, target, path)
                else:
                    self._not_copied(path, f"its inode {number} is lost")
            elif inode.is_directory:
                if self._copy_directory(number, inode, target, path):
                    waiting += self._children(number, target, path)
            else:
                yield from self._copy_file(number, inode, target, path)

    def _inode(self, number: InodeNo) -> Inode | None:
        value = self._tree.get(inode_key(number))
        try:
            return Inode.decode(value) if value is not None else None
        except CorruptImage:
            return None

    def _first_time(self, number: InodeNo) -> bool:
        place = find_number(self._numbers, number)
        before, self._done[place] = self._done[place], 1
        if number in self._older and not before:
            self.report.older.append(self._paths.of(number))
        return not before

    def _children(self, number: InodeNo, target: bytes, path: str) -> list[tuple[InodeNo, bytes, str]]:
        """Return what is in a directory, the last name first. Of equal names the later ones get a number."""
        children = []
        taken: set[bytes] = set()
        for name, child in sorted(self._entries(number, path)):
            again = 2
            wanted = name
            while name in taken:
                name = wanted[: NAME_BYTES_MAX - 8] + b"~%d" % again
                again += 1
            taken.add(name)
            children.append((child, os.path.join(target, name), os.path.join(path, os.fsdecode(name))))
        return children[::-1]

    def _entries(self, number: InodeNo, path: str) -> Iterator[tuple[bytes, InodeNo]]:
        """Yield (name, inode) of a directory; names that the host cannot have are told."""
        for _, value in self._tree.range_items(*kind_range(number, Kind.DIRECTORY_ENTRY)):
            try:
                entry = DirectoryEntry.decode(value)
            except CorruptImage:
                continue
            name = self._paths.text(entry.name_id)
            if name is None:
                continue  # the inode is found when the rest is copied, by its number
            if name in (b"", b".", b"..") or b"/" in name or b"\0" in name or len(name) > NAME_BYTES_MAX:
                if path:
                    self._not_copied(path, f"an entry with the impossible name {printable(os.fsdecode(name))}")
                continue
            yield name, InodeNo(entry.inode)

    def _copy_directory(self, number: InodeNo, inode: Inode, target: bytes, path: str) -> bool:
        if not self._first_time(number):
            self._not_copied(path, "a directory has only one name, and this is another one of it")
            return False
        if target != self._into:
            reason = self._host.make(target, lambda: os.mkdir(target, 0o700))
            if reason:
                self._not_copied(path, reason)
                return False
        self.report.directories += 1
        self._finished.append((inode, number, target, path))
        return True

    def _copy_file(self, number: InodeNo, inode: Inode, target: bytes, path: str) -> Generator[Progress, None, None]:
        if not self._first_time(number):
            first = self._first_paths.get(number)
            reason = "it was copied under another name" if first is None else ""
            if first is not None:
                reason = self._host.make(target, lambda: os.link(first, target, follow_symlinks=False))
            if reason:
                self._not_copied(path, reason)
            else:
                self.report.hard_links += 1
            return
        if inode.is_regular:
            reason = yield from self._copy_contents(number, inode, target, path)
        elif inode.is_symlink:
            reason = self._copy_symlink(number, inode, target)
        else:
            reason = self._copy_special(inode, target)
        if reason:
            self._not_copied(path, reason)
            return
        if inode.link_count > 1:
            self._first_paths[number] = target
        self._describe(inode, number, target, path)

    def _copy_contents(self, number: InodeNo, inode: Inode, target: bytes, path: str) -> Generator[Progress, None, str]:
        """Copy a regular file; return why it could not be made, or an empty string."""
        opened: list[int] = []
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
        reason = self._host.make(target, lambda: opened.append(os.open(target, flags, 0o600)))
        if reason:
            return reason
        descriptor = opened[0]
        try:
            reason = self._host.make(target, lambda: os.ftruncate(descriptor, inode.size))
            if reason:  # it becomes as long as its data reach
                self._not_copied(path, f"the host takes no file of {inode.size} bytes: {reason}")
            for part in parts_of(self._tree, number, inode):
                yield Progress(min(self._count, len(self._numbers)), len(self._numbers))
                self.report.mended_records += part.mended
                data, first = part.data, part.first
                if data is None:
                    self._unreadable(path, part.first, part.behind, part.reason)
                elif data and (reason := self._host.make(target, lambda: write_but_zeros(descriptor, first, data))):  # noqa: B023
                    return reason
        finally:
            os.close(descriptor)
        self.report.files += 1
        self.report.total_bytes += inode.size
        return ""

    def _copy_symlink(self, number: InodeNo, inode: Inode, target: bytes) -> str:
        parts = list(parts_of(self._tree, number, inode))
        leads_to = b"".join(part.data or b"" for part in parts)
        if any(part.data is None for part in parts) or len(leads_to) != inode.size:
            return "where the symbolic link leads to cannot be read"
        reason = self._host.make(target, lambda: os.symlink(leads_to, target))
        self.report.symlinks += not reason
        return reason

    def _copy_special(self, inode: Inode, target: bytes) -> str:
        if inode.mode >> 12 not in set(FileType):
            return f"its type is not known: {inode.mode:#o}"
        reason = self._host.make(target, lambda: os.mknod(target, inode.mode & ~0o7777 | 0o600, inode.rdev))
        self.report.specials += not reason
        return reason

    def _describe(self, inode: Inode, number: InodeNo, target: bytes, path: str) -> None:
        attributes = []
        for name, value in attributes_of(self._tree, number):
            if value is None:
                self._not_copied(f"{path} ({printable(os.fsdecode(name))})", "the extended attribute cannot be read")
            else:
                attributes.append((name, value))
        for name, reason in self._host.describe(inode, attributes, target):
            self._not_copied(f"{path} ({printable(os.fsdecode(name))})", f"the host refuses the extended attribute: {reason}")

    def _unreadable(self, path: str, first: int, behind: int, reason: str) -> None:
        self.report.unreadable_count += 1
        if len(self.report.unreadable) < TOLD_MAX:
            self.report.unreadable.append(Unreadable(path, first, behind, reason))

    def _not_copied(self, path: str, reason: str) -> None:
        self.report.not_copied_count += 1
        if len(self.report.not_copied) < TOLD_MAX:
            self.report.not_copied.append((path, reason))
