"""Populating: entries of a source become files of a volume, one after another.

Invariants: the order of the entries is the order of everything in the image, so the same entries give the same bytes; threads may
compress, but nothing here depends on when they finish. A directory gets its times when everything is in it. A file gets the
attributes and access control lists that its entry has and no others: a default list would open what was closed in the source.
"""

import errno
import stat
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from razortools.engine import acls, attributes, directories, files, namespace, xattrs
from razortools.engine.attributes import AttributeChange
from razortools.engine.populate.entry import Entry, SourceFailed, show_path, split_path
from razortools.errors import OutOfSpace, PosixError
from razortools.file_counts import FileCounts
from razortools.format.compression import Policy
from razortools.format.inode import ROOT_INODE
from razortools.units import InodeNo, format_size

if TYPE_CHECKING:
    from razortools.engine.volume import Volume

IMPLIED_MODE = 0o755  # of directories that a tarball does not mention


def populate(
    volume: "Volume",
    source: str,
    entries: Iterable[Entry],
    notice: Callable[[Entry], None] = lambda entry: None,
    into: InodeNo = ROOT_INODE,
) -> FileCounts:
    """Put *entries* below the directory *into*; *notice* is told of each before it is read. *source* names them in messages.

    Directories that exist already take in what is new. What is put in is durable after the volume's next commit. Raises
    SourceFailed, or OutOfSpace if it does not fit.
    """
    writer = _Writer(volume, source, into)
    for entry in entries:
        notice(entry)
        try:
            writer.put(entry)
        except OutOfSpace as full:
            raise OutOfSpace(
                f"{source} does not fit: the image of {_image_size(volume)} is full at {show_path(entry.path)}; make it larger"
            ) from full
        except PosixError as refused:
            raise SourceFailed(f"{source}: {show_path(entry.path)} cannot be kept: {refused}") from refused
    writer.finish()
    return writer.done


def _image_size(volume: "Volume") -> str:
    return format_size(volume.store.superblock.block_count * volume.block_bytes)


class _Writer:
    """Puts entries into a volume. Knows the directories made so far, by path."""

    def __init__(self, volume: "Volume", source: str, into: InodeNo) -> None:
        self.volume = volume
        self.source = source
        self.done = FileCounts()  # the root is not counted
        self._directories: dict[bytes, InodeNo] = {b"": into}
        self._described: dict[InodeNo, Entry] = {}  # directories whose attributes are set at the end
        self._policies: dict[InodeNo, Policy | None] = {}  # directories whose attribute, or one above, was asked for

    def put(self, entry: Entry) -> None:
        """Put one entry in. An entry whose name exists takes its place, as in tar(1)."""
        if not entry.path:
            if not entry.is_directory:
                raise SourceFailed(f"{self.source}: / cannot be kept: it would be the root, and is no directory")
            self._describe(self._directories[b""], entry)
            return
        parent_path, name = split_path(entry.path)
        parent = self._directory(parent_path)
        if entry.is_directory:
            self._put_directory(parent, name, entry)
            return
        try:
            self._put_other(parent, name, entry)
        except PosixError as refused:
            if refused.mount_errno != errno.EEXIST:
                raise
            if entry.link_to == entry.path:
                return
            self._make_way(parent, name, entry.path)
            self._put_other(parent, name, entry)

    def finish(self) -> None:
        """Give the directories their attributes, which every new name in them has changed."""
        for ino, entry in self._described.items():
            attributes.setattr(self.volume, ino, _attributes(entry))
        files.flush_all(self.volume)

    def _directory(self, path: bytes) -> InodeNo:
        """Return the directory *path*, made if no entry told of it."""
        missing: list[bytes] = []
        while path not in self._directories:  # no recursion: an archive may be deeper than the interpreter's stack
            missing.append(path)
            path = split_path(path)[0]
        for one in reversed(missing):
            self._imply_directory(one)
        return self._directories[missing[0] if missing else path]

    def _imply_directory(self, path: bytes) -> InodeNo:
        """Make a directory that no entry told of, in one that is known."""
        parent_path, name = split_path(path)
        parent = self._directories[parent_path]
        root = self.volume.inodes.get(ROOT_INODE)
        try:
            made = namespace.mkdir(self.volume, parent, name, IMPLIED_MODE, root.uid, root.gid, inherits=False)
        except PosixError as refused:
            if refused.mount_errno == errno.EEXIST:
                raise PosixError(errno.ENOTDIR, f"{show_path(path)} is not a directory") from refused
            raise
        self.done.directories += 1
        self._directories[path] = made
        return made

    def _put_directory(self, parent: InodeNo, name: bytes, entry: Entry) -> None:
        ino = self._directories.get(entry.path)
        if ino is None:
            try:
                ino = self._make_directory(parent, name, entry)
            except PosixError as refused:
                if refused.mount_errno != errno.EEXIST:
                    raise
                ino = self._existing_directory(parent, name)
            if ino is None:
                self._make_way(parent, name, entry.path)
                ino = self._make_directory(parent, name, entry)
            self.done.directories += 1
            self._directories[entry.path] = ino
        self._describe(ino, entry)

    def _make_directory(self, parent: InodeNo, name: bytes, entry: Entry) -> InodeNo:
        mode = stat.S_IMODE(entry.mode)
        return namespace.mkdir(self.volume, parent, name, mode, entry.uid, entry.gid, inherits=False)

    def _existing_directory(self, parent: InodeNo, name: bytes) -> InodeNo | None:
        """Return the inode of *name* if it is a directory."""
        ino = namespace.lookup(self.volume, parent, name)
        return ino if self.volume.inodes.get(ino).is_directory else None

    def _describe(self, ino: InodeNo, entry: Entry) -> None:
        self._set_xattrs(ino, entry)
        self._described[ino] = entry
        if any(name == xattrs.COMPRESSION for name, _ in entry.xattrs):
            self._policies.clear()  # it may be in a tar behind what lies in the directory

    def _put_other(self, parent: InodeNo, name: bytes, entry: Entry) -> None:
        """Make anything but a directory. Raises PosixError(EEXIST) before anything was read from the source."""
        volume, mode, done = self.volume, stat.S_IMODE(entry.mode), self.done
        if entry.link_to is not None:
            namespace.link(volume, self._linked(entry), parent, name)
            done.hard_links += 1
            return
        if stat.S_ISREG(entry.mode):
            ino = namespace.create(volume, parent, name, mode, entry.uid, entry.gid, inherits=False)
            self._follow_policy(parent, ino)
            self._set_xattrs(ino, entry)  # before the contents: one of them may tell how to compress
            self._write(ino, entry)
            done.files += 1
            done.total_bytes += entry.size
        elif stat.S_ISLNK(entry.mode):
            ino = namespace.symlink(volume, parent, name, entry.target, entry.uid, entry.gid)
            self._set_xattrs(ino, entry)
            done.symlinks += 1
        else:
            ino = namespace.mknod(volume, parent, name, entry.mode, entry.rdev, entry.uid, entry.gid, inherits=False)
            self._set_xattrs(ino, entry)
            done.specials += 1
        attributes.setattr(volume, ino, _attributes(entry))

    def _linked(self, entry: Entry) -> InodeNo:
        """Return the file that a hard link names."""
        assert entry.link_to is not None
        parent_path, name = split_path(entry.link_to)
        try:
            return namespace.lookup(self.volume, self._directories[parent_path], name)
        except (KeyError, PosixError):
            where = f"{show_path(entry.path)} is a hard link to {show_path(entry.link_to)}"
            raise SourceFailed(f"{self.source}: {where}, which does not come before it") from None

    def _make_way(self, parent: InodeNo, name: bytes, path: bytes) -> None:
        """Remove what has the name of a later entry. Raises PosixError(ENOTEMPTY) for a directory that is in use."""
        if path in self._directories:
            namespace.rmdir(self.volume, parent, name)
            self._described.pop(self._directories.pop(path), None)
            self.done.directories -= 1
        else:
            namespace.unlink(self.volume, parent, name)

    def _set_xattrs(self, ino: InodeNo, entry: Entry) -> None:
        for name, value in entry.xattrs:
            if name in acls.NAMES:
                acls.set(self.volume, ino, name, value)
            else:
                xattrs.set(self.volume, ino, name, value)

    def _follow_policy(self, parent: InodeNo, ino: InodeNo) -> None:
        """Let a new file be stored as the nearest directory above it wants that has the attribute of compression.

        Who sets it at the top of a tree means all below, as it is with what is made in a mount. But the attribute does not
        come with it: the file in the source has none, and a copy of the copy shall have none either.
        """
        way: list[InodeNo] = []
        policy: Policy | None = None
        for directory in directories.ancestors(self.volume, parent):
            if directory in self._policies:
                policy = self._policies[directory]
                break
            way.append(directory)
            policy = xattrs.policy_of(self.volume, directory)
            if policy is not None:
                break
        self._policies.update(dict.fromkeys(way, policy))
        if policy is not None:
            xattrs.keep_as(self.volume, ino, policy)

    def _write(self, ino: InodeNo, entry: Entry) -> None:
        """Write the contents of a regular file, its holes left out."""
        volume = self.volume
        # A record at a time: what is dirty must be promised room as if nothing shrank, and a small image cannot promise much.
        piece_bytes = volume.inodes.get(ino).record_bytes
        end = 0
        for offset, data in entry.chunks():
            view = memoryview(data)
            for at in range(0, len(data), piece_bytes):
                files.write(volume, ino, offset + at, bytes(view[at : at + piece_bytes]))
            end = offset + len(data)
        if end < entry.size:
            files.truncate(volume, ino, entry.size)


def _attributes(entry: Entry) -> AttributeChange:
    mode = None if stat.S_ISLNK(entry.mode) else stat.S_IMODE(entry.mode)
    return AttributeChange(mode=mode, uid=entry.uid, gid=entry.gid, atime_ns=entry.atime_ns, mtime_ns=entry.mtime_ns)
