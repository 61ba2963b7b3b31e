"""Salvage: everything that can be read of an image is copied out to a directory of the host. The image is not written to.

The tree is made readable in memory (salvage_view), then copied from the root down. What no name leads to any more goes into the
directory lost+found, under the last name that is known of it. Invariants: a file that is not whole keeps its size, and what is
missing of it is told range by range; nothing is copied twice, whatever the names say; nothing is written outside of the
directory, whatever the image holds: host_copy sees to that, here there are no paths, only places. lost+found is a directory, the
image's own or a new one; where the image has something else of that name, it gets another.
"""

import os
import stat
from array import array
from collections.abc import Generator, Iterator
from contextlib import closing

from razortools.check.facts import find_number
from razortools.check.findings import Progress
from razortools.check.host_copy import HostCopy, Place, write_but_zeros
from razortools.check.name_hash import may_stand_under, unflipped
from razortools.check.paths import DEPTH_MAX, Paths
from razortools.check.record_lengths import lengths_of
from razortools.check.salvage_report import TOLD_MAX, SalvageReport
from razortools.check.salvage_view import View, readable_view
from razortools.check.steps import PARTS, scaled
from razortools.check.stored_file import attributes_of, parts_of
from razortools.check.tree import kinds_mask
from razortools.engine.store.device import Device
from razortools.errors import CorruptImage, UsageError
from razortools.format.data import RECORD_LOG2
from razortools.format.directory import NAME_BYTES_MAX, DirectoryEntry, is_possible_name
from razortools.format.inode import ROOT_INODE, FileType, Inode, Orphan, OrphanReason
from razortools.format.keys import Kind, Table, inode_key, kind_range, object_of, orphan_key, table_range
from razortools.printable import printable_name
from razortools.units import InodeNo

LOST_AND_FOUND = b"lost+found"
ELSEWHERE = "what only this name leads to is in lost+found"
AGAIN = "it is tried again under its other names, or in lost+found"
VIEWED = 300  # of PARTS, once the image can be read


def salvage(device: Device, into: str) -> Generator[Progress, None, SalvageReport]:
    """Copy what can be read of *device* into the directory *into*, which is made, or is there and empty.

    Raises UsageError if it cannot be used, NotAnImage if nothing tells how the image is laid out, UnsupportedFormat for newer
    ones, DeviceFailed if the host is full.
    """
    with closing(_ready(into)) as host:
        view = yield from scaled(readable_view(device), 0, VIEWED)
        copier = _Copier(view, host)
        yield from scaled(copier.copy_all(), VIEWED, PARTS)
        return copier.report


def _ready(into: str) -> HostCopy:
    try:
        os.makedirs(into, 0o700, exist_ok=True)
        if os.listdir(into):
            raise UsageError(f"{into}: is not empty; name a new directory, so that nothing is mixed up or overwritten")
        return HostCopy(into)
    except OSError as refused:
        raise UsageError(f"{into}: cannot be used to copy files into: {refused.strerror}") from None


class _Copier:
    """Copies one view. *_done* has a flag for each inode that was copied."""

    def __init__(self, view: View, host: HostCopy) -> None:
        self.report = SalvageReport(remarks=list(view.remarks))
        self._tree = view.tree
        self._paths = Paths(view.tree)
        self._host = host
        self._lost_and_found: Place | None = None
        self._numbers = array("Q", self._inode_numbers())
        self._done = bytearray(len(self._numbers))
        self._first_places: dict[int, Place] = {}  # of files with several names
        self._refused: set[int] = set()  # numbers to which the host did not give the name that they had
        self._hopeless: dict[int, str] = {}  # those that cannot be made under any name, and why
        self._older = frozenset(view.rebuilt.older_inodes) if view.rebuilt is not None else frozenset()
        self._finished: list[tuple[Inode, InodeNo, Place]] = []
        self._count = 0

    def _inode_numbers(self) -> Iterator[int]:
        for _, (keys, _) in self._tree.leaves(kinds_mask(Kind.INODE)):
            yield from (object_of(key) for key in keys if key[9] == Kind.INODE and key[0] == Table.FILES)

    def copy_all(self) -> Generator[Progress, None, None]:
        """Copy what names lead to, then the rest."""
        yield from self._copy_below(ROOT_INODE, self._host.top)
        deleted = {
            object_of(key)
            for key, value in self._tree.range_items(*table_range(Table.ORPHANS))
            if value == Orphan(OrphanReason.UNLINKED).encode()
        }
        left = [InodeNo(number) for number, done in zip(self._numbers, self._done, strict=True) if not done]
        left = [number for number in left if number not in deleted and number != ROOT_INODE]
        inside = self._inside(left)
        tops = [number for number in left if not inside[find_number(self._numbers, number)]]
        for number in dict.fromkeys([*tops, *left]):  # directories that contain each other have no top
            if not self._done[find_number(self._numbers, number)]:
                yield from self._copy_lost(number)
        self.report.not_kept = sorted(self._host.not_kept)
        while self._finished:  # the times of directories, when everything is in them
            self._describe(*self._finished.pop())

    def _inside(self, left: list[InodeNo]) -> bytearray:
        """Return a flag for each inode: 1 if a directory among those that are left has it, so that it comes with that."""
        inside = bytearray(len(self._numbers))
        for number in left:
            for _, child in self._entries(number, None):
                place = find_number(self._numbers, child)
                if place >= 0 and child != number:
                    inside[place] = 1
        return inside

    def _copy_lost(self, number: InodeNo) -> Generator[Progress, None, None]:
        """Copy what no name leads to into lost+found."""
        if self._lost_and_found is None:
            self._lost_and_found = self._make_lost_and_found()
        known = os.fsencode(self._paths.of(number)).strip(b"/").replace(b"/", b"+")
        name = b"" if known.startswith(b"<inode") or known in (b".", b"..") else known.replace(b"\0", b"\\x00")
        names = [name] if name and number not in self._refused else []
        names += [b"#%d+%s" % (number, name) if names else b"#%d" % number]
        yield from self._copy_below(number, self._free_place(self._lost_and_found, names))
        self.report.found_again += self._done[find_number(self._numbers, number)]

    def _make_lost_and_found(self) -> Place:
        """Return the directory for what no name leads to: the image's own one, or a new one."""
        place, again = self._host.top.child(LOST_AND_FOUND), 2
        while (mode := self._host.mode(place)) and not stat.S_ISDIR(mode):
            place = self._host.top.child(LOST_AND_FOUND + b"~%d" % again)
            again += 1
        if again > 2:
            self.report.remarks.append(f"what no name leads to is in {place.path}: the image's lost+found is no directory")
        if not mode:
            self._host.make_directory(place)  # if the host refuses it, so it does what is to go there, and that is told
        return place

    def _free_place(self, directory: Place, names: list[bytes]) -> Place:
        """Return the place in *directory* of the first of *names* that is free, or of the last one with a number."""
        for name in names:
            place = directory.child(name[:NAME_BYTES_MAX])
            if not self._host.mode(place):
                return place
        again = 2
        while self._host.mode(place):
            place = directory.child(numbered(names[-1], again))
            again += 1
        return place

    def _copy_below(self, number: InodeNo, place: Place) -> Generator[Progress, None, None]:
        """Copy a file or, with a list instead of recursion because depth has no bound, a tree."""
        waiting = [(number, place)]
        while waiting:
            number, place = waiting.pop()
            self._count += 1
            yield Progress(min(self._count, len(self._numbers)), len(self._numbers))
            inode = self._inode(number)
            if place.depth > DEPTH_MAX:
                self.report.tell_not_copied(place.path, f"it lies more than {DEPTH_MAX} directories deep; {ELSEWHERE}")
            elif inode is None:
                if place is self._host.top:  # its entries may still be there
                    waiting += self._children(number, place)
                else:
                    self.report.tell_not_copied(place.path, f"its inode {number} is lost")
            elif inode.is_directory:
                if self._copy_directory(number, inode, place):
                    waiting += self._children(number, place)
            else:
                yield from self._copy_file(number, inode, place)

    def _inode(self, number: InodeNo) -> Inode | None:
        value = self._tree.get(inode_key(number))
        try:
            return Inode.decode(value) if value is not None else None
        except CorruptImage:
            return None

    def _first_time(self, number: InodeNo) -> bool:
        place = find_number(self._numbers, number)
        before, self._done[place] = self._done[place], 1
        if number in self._older and not before and number not in self._refused:
            self.report.older.append(self._paths.of(number))
        return not before

    def _children(self, number: InodeNo, directory: Place) -> list[tuple[InodeNo, Place]]:
        """Return what is in a directory, the last name first. Of equal names the later ones get a number."""
        children = []
        taken: set[bytes] = set()
        wanted, again = b"", 2
        for name, child in sorted(self._entries(number, directory)):
            if name != wanted:  # equal ones follow one another: each goes on counting where the one before it stopped
                wanted, again = name, 2
            while name in taken:
                name = numbered(wanted, again)
                again += 1
            taken.add(name)
            children.append((child, directory.child(name)))
        return children[::-1]

    def _entries(self, number: InodeNo, place: Place | None) -> Iterator[tuple[bytes, InodeNo]]:
        """Yield (name, inode) of a directory; names that the host cannot have are told."""
        for key, value in self._tree.range_items(*kind_range(number, Kind.DIRECTORY_ENTRY)):
            try:
                entry = DirectoryEntry.decode(value)
            except CorruptImage:
                continue
            name = self._paths.text(entry.name_id)
            if name is None:
                continue  # the inode is found when the rest is copied, by its number
            name = self._as_filed(key, name, place)
            if not is_possible_name(name) or len(name) > NAME_BYTES_MAX:
                if place is not None:
                    impossible = f"an entry with the impossible name {printable_name(name)}"
                    self.report.tell_not_copied(place.path, f"{impossible}; {ELSEWHERE}")
                continue
            yield name, InodeNo(entry.inode)

    def _as_filed(self, key: bytes, name: bytes, place: Place | None) -> bytes:
        """Return the name of an entry; one with one wrong bit as the hash says that it was, which is told."""
        seed = self._tree.image.superblock.hash_seed
        right = None if may_stand_under(key, name, seed) else unflipped(key, name, seed)
        if right is not None and place is not None and len(self.report.remarks) < TOLD_MAX:
            wrong = f"has one wrong bit in its name, {printable_name(name)}"
            self.report.remarks.append(f"{place.child(right).path}: the entry {wrong}; its hash tells the right one")
        return name if right is None else right

    def _copy_directory(self, number: InodeNo, inode: Inode, place: Place) -> bool:
        if not self._first_time(number):
            self.report.tell_not_copied(place.path, "a directory has only one name, and this is another one of it")
            return False
        if place is not self._host.top:
            reason = self._host.make_directory(place)
            if reason:
                self._refuse(number, place, reason)
                return False
        self.report.directories += 1
        self._finished.append((inode, number, place))
        return True

    def _copy_file(self, number: InodeNo, inode: Inode, place: Place) -> Generator[Progress, None, None]:
        if number in self._hopeless:
            self.report.tell_not_copied(place.path, self._hopeless[number])
            return
        if not self._first_time(number):
            first = self._first_places.get(number)
            reason = "it was copied under another name" if first is None else self._host.make_link(first, place)
            if reason:
                self.report.tell_not_copied(place.path, reason)
            else:
                self.report.hard_links += 1
            return
        self._find_record_size(number, inode, place)
        if inode.is_regular:
            reason = yield from self._copy_contents(number, inode, place)
        elif inode.is_symlink:
            reason = self._copy_symlink(number, inode, place)
        else:
            reason = self._copy_special(number, inode, place)
        if reason:
            self._refuse(number, place, reason)
            return
        if inode.link_count > 1:
            self._first_places[number] = place
        self._describe(inode, number, place)

    def _refuse(self, number: InodeNo, place: Place, reason: str) -> None:
        """Tell that a name was not made; what it leads to may still be copied under another one, in lost+found at last."""
        if number not in self._hopeless:
            self._done[find_number(self._numbers, number)] = 0
            if number not in self._refused:
                reason = f"{reason}; {AGAIN}"
            self._refused.add(number)
        self.report.tell_not_copied(place.path, reason)

    def _find_record_size(self, number: InodeNo, inode: Inode, place: Place) -> None:
        """Give an inode whose record size cannot be the one that a repair would, and one whose records contradict it theirs.

        It is told where data depend on it. Records that wait to be cut off contradict nothing.
        """
        lengths = lengths_of(self._tree, number)
        told = inode.record_log2
        if told not in RECORD_LOG2:
            inode.record_log2 = lengths.fitting_log2(inode.size)
            remark = f"2^{told} bytes, is not possible; {inode.record_bytes} bytes fit its data best"
        elif lengths.contradict(told, inode.size) and self._tree.get(orphan_key(number)) is None:
            agreed = lengths.agreed_log2(inode.size)
            inode.record_log2 = told if agreed is None else agreed
            remark = f"{1 << told} bytes, contradicts its records; with {inode.record_bytes} bytes they agree"
        if inode.record_log2 != told and lengths.last[0] > 0 and len(self.report.remarks) < TOLD_MAX:
            self.report.remarks.append(f"{place.path}: its record size, {remark}")

    def _copy_contents(self, number: InodeNo, inode: Inode, place: Place) -> Generator[Progress, None, str]:
        """Copy a regular file; return why it could not be made, or an empty string."""
        descriptor, reason = self._host.make_file(place)
        if reason:
            return reason
        try:
            reason = self._host.make(place, lambda _: os.ftruncate(descriptor, inode.size))
            if reason:  # it becomes as long as its data reach
                self.report.tell_not_copied(place.path, f"the host takes no file of {inode.size} bytes: {reason}")
            for part in parts_of(self._tree, number, inode):
                yield Progress(min(self._count, len(self._numbers)), len(self._numbers))
                self.report.mended_records += part.mended
                data, first = part.data, part.first
                if data is None:
                    self.report.tell_unreadable(place.path, part.first, part.behind, part.reason)
                elif data and (reason := self._host.make(place, lambda _: write_but_zeros(descriptor, first, data))):  # noqa: B023
                    self.report.tell_not_copied(place.path, f"the host takes nothing of it from byte {first} on: {reason}")
                    break
        finally:
            os.close(descriptor)
        self.report.files += 1
        self.report.total_bytes += inode.size
        return ""

    def _copy_symlink(self, number: InodeNo, inode: Inode, place: Place) -> str:
        parts = list(parts_of(self._tree, number, inode))
        leads_to = b"".join(part.data or b"" for part in parts)
        if any(part.data is None for part in parts) or len(leads_to) != inode.size:
            self._hopeless[number] = "where the symbolic link leads to cannot be read"
            return self._hopeless[number]
        reason = self._host.make(place, lambda at: os.symlink(leads_to, place.name, dir_fd=at))
        self.report.symlinks += not reason
        return reason

    def _copy_special(self, number: InodeNo, inode: Inode, place: Place) -> str:
        if inode.mode >> 12 in set(FileType):
            mode = inode.mode & ~0o7777 | 0o600
            reason = self._host.make(place, lambda at: os.mknod(place.name, mode, inode.rdev, dir_fd=at))
        else:
            reason = f"its type is not known: {inode.mode:#o}"
        if reason:  # in most cases because only root may make them
            self._hopeless[number] = reason
        self.report.specials += not reason
        return reason

    def _describe(self, inode: Inode, number: InodeNo, place: Place) -> None:
        attributes = []
        for name, value in attributes_of(self._tree, number, inode):
            if value is None:
                self._attribute_not_copied(place, name, "the extended attribute cannot be read")
            else:
                attributes.append((name, value))
        for name, reason in self._host.describe(inode, attributes, place):
            self._attribute_not_copied(place, name, f"the host refuses the extended attribute: {reason}")

    def _attribute_not_copied(self, place: Place, name: bytes, reason: str) -> None:
        self.report.tell_not_copied(f"{place.path} ({printable_name(name)})", reason)


def numbered(name: bytes, number: int) -> bytes:
    """Return *name* as it is called where it is taken."""
    return name[: NAME_BYTES_MAX - 8] + b"~%d" % number
