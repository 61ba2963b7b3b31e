"""Directories as items: entries lead from names to inodes, back links from inodes to their names.

Invariants: for each entry (directory, name) -> (inode, link number) there is one back link (inode, link number) -> (directory,
name), and the string table counts it; a directory's size is the number of its entries; the root has no back link and is its own
parent. Rules of POSIX are not here (namespace.py has them).
"""

import errno
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

from razortools.errors import CorruptImage, PosixError
from razortools.format.directory import NAME_BYTES_MAX, BackLink, DirectoryEntry, is_possible_name
from razortools.format.inode import ROOT_INODE, Inode
from razortools.format.keys import PROBE_WINDOW, Kind, back_link_key, entry_key, kind_range, object_of, offset_of
from razortools.units import InodeNo, NameId

if TYPE_CHECKING:
    from razortools.engine.volume import Volume

SHOWN_BYTES_MAX = 4096  # of a path in a log: PATH_MAX
STEPS_MIN = 1 << 20  # that a walk to the root may take, however few directories the volume counts

_entry_bytes = DirectoryEntry.STRUCT.pack
_entry_values: Callable[[bytes], tuple[InodeNo, NameId, int, int]] = DirectoryEntry.STRUCT.unpack
_link_bytes = BackLink.STRUCT.pack


def check_name(name: bytes) -> None:
    """Raise PosixError unless *name* can be a directory entry: EINVAL, or ENAMETOOLONG above 255 bytes."""
    if len(name) > NAME_BYTES_MAX:
        raise PosixError(errno.ENAMETOOLONG, f"a name of {len(name)} bytes is too long; the limit is {NAME_BYTES_MAX}")
    if not is_possible_name(name):
        raise PosixError(errno.EINVAL, f"{name!r} cannot be the name of a file")


def find(volume: "Volume", directory: InodeNo, name: bytes) -> tuple[bytes, DirectoryEntry] | None:
    """Return (key, entry) of *name* in *directory*, or None: for who takes it away, so nothing is kept."""
    key, value = _look(volume, directory, name, keep=False)
    return None if value is None else (key, DirectoryEntry(*_entry_values(value)))


def find_inode(volume: "Volume", directory: InodeNo, name: bytes) -> InodeNo | None:
    """Return the inode that *name* in *directory* leads to, or None."""
    value = _look(volume, directory, name)[1]
    return None if value is None else _entry_values(value)[0]


def probe(volume: "Volume", directory: InodeNo, name: bytes) -> tuple[bytes, DirectoryEntry | None]:
    """Return (key, entry) of *name* in *directory*; if it is absent, (the key that it would get, None).

    Raises PosixError(ENOSPC) if its probe window is full. That takes sixteen names whose 63-bit keyed hashes are equal: it does
    not happen to those who do not know the key.
    """
    key, value = _look(volume, directory, name)
    if value is not None:
        return key, DirectoryEntry(*_entry_values(value))
    if not key:
        raise PosixError(errno.ENOSPC, f"directory {directory} holds {PROBE_WINDOW} names whose hash is that of {name!r}")
    return key, None


def _look(volume: "Volume", directory: InodeNo, name: bytes, *, keep: bool = True) -> tuple[bytes, bytes | None]:
    """Return (key, value) of the entry *name*; if it is absent (the key that it would get, None), no key: its window is full."""
    names = volume.names
    name_hash, known_id = names.known(name)
    low = entry_key(directory, name_hash)
    kept = volume.looked_up.get(low)
    if kept is not None and kept[0] == name:
        return low, kept[1]
    window = volume.store.window(low, entry_key(directory, name_hash + PROBE_WINDOW - 1))
    free = name_hash
    for key, value in window:
        if len(value) != DirectoryEntry.FIXED_BYTES:
            DirectoryEntry.decode(value)  # says what is wrong
        name_id = _entry_values(value)[1]
        if name_id == known_id or names.matches(name_id, name):
            if keep and key == low:
                volume.looked_up.keep(low, name, value)
            return key, value
        if offset_of(key) == free:
            free += 1
    if free == name_hash:
        volume.looked_up.keep(low, name, None)
        return low, None
    return (entry_key(directory, free), None) if free < name_hash + PROBE_WINDOW else (b"", None)


def insert(volume: "Volume", directory: InodeNo, key: bytes, name: bytes, inode_no: InodeNo, inode: Inode) -> None:
    """Enter *name* for an inode at *key* (from probe): entry, back link, string. Part of the running operation.

    Changes the directory's size and the inode's next_link_no in memory: the caller changes what else there is (times, link
    counts) and puts both inodes.
    """
    parent = volume.inodes.get(directory)
    link_no = inode.next_link_no
    _put(volume, directory, key, inode_no, volume.names.intern(name), link_no, inode.mode >> 12)
    inode.next_link_no = link_no + 1
    parent.size += 1


def put_entry(volume: "Volume", key: bytes, entry: DirectoryEntry) -> None:
    """Write an entry and the back link that answers it. Part of the running operation; the string's count is the caller's."""
    _put(volume, object_of(key), key, entry.inode, entry.name_id, entry.link_no, entry.file_type)


def _put(volume: "Volume", directory: int, key: bytes, ino: int, name_id: int, link_no: int, file_type: int) -> None:
    put = volume.store.put
    volume.looked_up.drop(key, None)
    put(key, _entry_bytes(ino, name_id, link_no, file_type))
    put(back_link_key(InodeNo(ino), link_no), _link_bytes(directory, name_id))


def _delete(volume: "Volume", key: bytes) -> None:
    volume.looked_up.drop(key, None)
    volume.store.delete(key)


def remove(volume: "Volume", directory: Inode, key: bytes, entry: DirectoryEntry) -> None:
    """Take an entry out, and count its string. Part of the running operation.

    Changes the directory's size in memory: the caller puts the directory. The inode it led to is the caller's too, and the back
    link that lies beside it (orphans.drop_link).
    """
    _delete(volume, key)
    volume.names.release(NameId(entry.name_id))
    directory.size -= 1


def move(
    volume: "Volume",
    directory: InodeNo,
    key: bytes,
    entry: DirectoryEntry,
    new_directory: InodeNo,
    new_key: bytes,
    new_name: bytes,
) -> None:
    """Let *entry* at *key* become *new_name* of *new_directory*, at *new_key* (from probe).

    Part of the running operation. Changes the sizes of both directories in memory: the caller puts them.
    """
    old_parent, new_parent = volume.inodes.get(directory), volume.inodes.get(new_directory)
    _delete(volume, key)
    name_id = NameId(entry.name_id)
    if not volume.names.matches(name_id, new_name):
        volume.names.release(name_id)
        name_id = volume.names.intern(new_name)
    _put(volume, new_directory, new_key, entry.inode, name_id, entry.link_no, entry.file_type)
    old_parent.size -= 1
    new_parent.size += 1


def replace(
    volume: "Volume", directory: InodeNo, key: bytes, entry: DirectoryEntry, new_key: bytes, replaced: DirectoryEntry
) -> None:
    """Let the name of *replaced* at *new_key* lead where *entry* at *key* does, which goes. Part of the running operation.

    Changes the size of *directory*, in which *entry* was, in memory: the caller puts it. The string table keeps the name as it
    is. The back link of *replaced* is the caller's (orphans.drop_link).
    """
    parent = volume.inodes.get(directory)
    _delete(volume, key)
    volume.names.release(NameId(entry.name_id))
    put_entry(volume, new_key, DirectoryEntry(entry.inode, replaced.name_id, entry.link_no, entry.file_type))
    parent.size -= 1


def entries(volume: "Volume", directory: InodeNo, after_cookie: int = 0) -> Iterator[tuple[int, bytes, DirectoryEntry]]:
    """Yield (cookie, name, entry) of the entries behind *after_cookie*, without "." and "..".

    Cookies rise and belong to names, not to positions: entries that come or go meanwhile change nothing for the others, and each
    entry that is there all the time appears exactly once.
    """
    text = volume.names.text
    low, high = entry_key(directory, after_cookie + 1), kind_range(directory, Kind.DIRECTORY_ENTRY)[1]
    for key, value in volume.store.items(low, high):
        entry = DirectoryEntry.decode(value)
        yield offset_of(key), text(NameId(entry.name_id)), entry


def is_empty(volume: "Volume", directory: InodeNo) -> bool:
    """Tell whether a directory has no entries."""
    return volume.inodes.get(directory).size == 0


def links(volume: "Volume", ino: InodeNo) -> Iterator[BackLink]:
    """Yield the back links of an inode: one for each of its names."""
    for _, value in volume.store.items(*kind_range(ino, Kind.BACK_LINK)):
        yield BackLink.decode(value)


def parent_of(volume: "Volume", directory: InodeNo) -> InodeNo:
    """Return the parent of a directory, the root's is the root. Raises PosixError(ENOENT) if it was removed while open."""
    if directory == ROOT_INODE:
        return ROOT_INODE
    for link in links(volume, directory):
        return InodeNo(link.parent)
    raise PosixError(errno.ENOENT, f"directory {directory} has been removed")


def ancestors(volume: "Volume", directory: InodeNo) -> Iterator[InodeNo]:
    """Yield *directory*, its parent and so on up to the root. Raises CorruptImage if it is a circle.

    That is what has more steps than there are directories.
    """
    for _ in range(max(STEPS_MIN, volume.counters.directory_count)):
        yield directory
        if directory == ROOT_INODE:
            return
        directory = parent_of(volume, directory)
    raise CorruptImage(f"directory {directory} does not lead to the root; unmount and run razorfsck")


def paths(volume: "Volume", ino: InodeNo) -> list[bytes]:
    """Return every absolute path that leads to an inode, in the order in which the names were made; none for an orphan."""
    if ino == ROOT_INODE:
        return [b"/"]
    return [_absolute(_names_up(volume, link)) for link in links(volume, ino)]


def first_path(volume: "Volume", ino: InodeNo) -> bytes:
    """Return one of the paths that lead to an inode, for people; of a very long one the end, behind "...". Empty for an orphan.

    However many names the inode has, and however deep they lie, that is little work: strangers can make it be asked for.
    """
    if ino == ROOT_INODE:
        return b"/"
    link = next(links(volume, ino), None)
    parts: list[bytes] = []
    length = 0
    for name in () if link is None else _names_up(volume, link):
        parts.append(name)
        length += 1 + len(name)
        if length > SHOWN_BYTES_MAX:
            parts.append(b"...")
            return b"/".join(reversed(parts))
    return _absolute(parts) if parts else b""


def _names_up(volume: "Volume", link: BackLink) -> Iterator[bytes]:
    """Yield the name that *link* is about, that of the directory above it, and so on. Raises CorruptImage as ancestors() does."""
    text = volume.names.text
    yield text(NameId(link.name_id))
    for directory in ancestors(volume, InodeNo(link.parent)):
        if directory != ROOT_INODE:
            yield text(NameId(_first_link(volume, directory).name_id))


def _absolute(names_up: Iterable[bytes]) -> bytes:
    return b"/" + b"/".join(reversed([*names_up]))


def _first_link(volume: "Volume", directory: InodeNo) -> BackLink:
    for link in links(volume, directory):
        return link
    raise CorruptImage(f"directory {directory} has no back link; unmount and run razorfsck")
