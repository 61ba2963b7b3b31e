"""Writing rescued files to the host, with everything that the host lets us keep.

What is made is named by its directory and its name there, never by a path: the image decides both what a name leads to and what
it is called, and the kernel would follow a symlink in the middle of a path to anywhere on the host. A directory is entered name
by name, from the one before it, and only if it is one (O_NOFOLLOW, O_DIRECTORY). The way back up is "..": what was entered cannot
have been moved, for until everything is in it, nobody but its maker may write to it.

Invariants: nothing that exists is overwritten and no symlink is followed, so nothing outside of the target is touched; runs of
zeros become holes; what the host refuses of one file's attributes is noted and does not end the work, but a host that is full or
broken does.
"""

import errno
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from razortools.errors import DeviceFailed
from razortools.format.directory import is_possible_name
from razortools.format.inode import Inode

HOLE_BYTES = 4096  # runs of zeros of at least this many bytes are not written
_ZEROS = bytes(HOLE_BYTES)
_DIRECTORY = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NO_USE_GOING_ON = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EMFILE, errno.ENFILE)


@dataclass(frozen=True, slots=True, eq=False)
class Place:
    """A name in a directory below the target, or, without a directory, the target itself."""

    directory: "Place | None" = None
    name: bytes = b"."
    depth: int = 0

    def child(self, name: bytes) -> "Place":
        """Return the place of *name* in this directory."""
        assert is_possible_name(name)
        return Place(self, name, self.depth + 1)

    @property
    def path(self) -> str:
        """The path for people, from the target on."""
        names: list[bytes] = []
        at = self
        while at.directory is not None:
            names.append(at.name)
            at = at.directory
        return "/" + os.fsdecode(b"/".join(reversed(names)))


class HostCopy:
    """Makes files below one directory of the host, the target. To be closed."""

    def __init__(self, target: str) -> None:
        """Take the directory *target*, also by a symlink: the user named it. Raises OSError."""
        self.top = Place()
        self.not_kept: set[str] = set()  # what the host refused to keep
        self._top = os.open(target, _DIRECTORY & ~os.O_NOFOLLOW)
        self._here = self.top
        self._here_descriptor = os.dup(self._top)

    def close(self) -> None:
        """Give the target back."""
        os.close(self._here_descriptor)
        os.close(self._top)

    def make(self, place: Place, action: Callable[[int], object]) -> str:
        """Do *action*, which makes *place* in the directory whose descriptor it gets.

        Returns why it could not be done, or an empty string. Raises DeviceFailed.
        """
        try:
            action(self._enter(place.directory or place))
        except OSError as refused:
            if refused.errno in _NO_USE_GOING_ON:
                raise DeviceFailed(f"{place.path}: {refused.strerror}; name a place with more room") from None
            return refused.strerror or str(refused)
        except (ValueError, OverflowError) as refused:  # a name or a number that no host takes
            return str(refused)
        return ""

    def make_directory(self, place: Place) -> str:
        """Make a directory, closed to others until it gets its attributes. Returns as make() does."""
        return self.make(place, lambda at: os.mkdir(place.name, 0o700, dir_fd=at))

    def make_file(self, place: Place) -> tuple[int, str]:
        """Make a regular file. Returns (descriptor to write to it, why it could not be made, or an empty string)."""
        opened: list[int] = []
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
        reason = self.make(place, lambda at: opened.append(os.open(place.name, flags, 0o600, dir_fd=at)))
        return opened[0] if opened else -1, reason

    def make_link(self, first: Place, place: Place) -> str:
        """Make another name of the file at *first*. Returns as make() does."""
        sources: list[int] = []
        reason = self.make(first, lambda at: sources.append(os.dup(at)))
        if reason:
            return reason
        try:
            return self.make(
                place, lambda at: os.link(first.name, place.name, src_dir_fd=sources[0], dst_dir_fd=at, follow_symlinks=False)
            )
        finally:
            os.close(sources[0])

    def mode(self, place: Place) -> int:
        """Return the mode of what is at *place*, 0 if nothing is."""
        try:
            return os.stat(place.name, dir_fd=self._enter(place.directory or place), follow_symlinks=False).st_mode
        except OSError:
            return 0

    def describe(self, inode: Inode, attributes: list[tuple[bytes, bytes]], place: Place) -> list[tuple[bytes, str]]:
        """Give what was made its attributes. Returns (name, reason) for each extended attribute that the host refused."""
        refused: list[tuple[bytes, str]] = []
        if self.make(place, lambda at: refused.extend(self._describe_in(at, place.name, inode, attributes))):
            self.not_kept |= {"owners", "modes", "times"}
        return refused

    def _describe_in(
        self, at: int, name: bytes, inode: Inode, attributes: list[tuple[bytes, bytes]]
    ) -> Iterator[tuple[bytes, str]]:  # fmt: skip
        """Do so in the directory *at*: the owner first, because chown takes set-id bits away; the times last."""
        self._keep("owners", partial(os.chown, name, inode.uid, inode.gid, dir_fd=at, follow_symlinks=False))
        # No call of Linux for it takes a directory: the descriptor's own link stands for that, and the name is not followed.
        named = b"/proc/self/fd/%d/%s" % (at, name)
        for attribute, value in attributes:
            reason = self._keep("extended attributes", partial(os.setxattr, named, attribute, value, follow_symlinks=False))
            if reason:
                yield attribute, reason
        if not inode.is_symlink:  # what was made is none either: there is nothing to follow
            self._keep("modes", partial(os.chmod, name, stat.S_IMODE(inode.mode), dir_fd=at))
        times = (inode.atime_ns, inode.mtime_ns)
        self._keep("times", partial(os.utime, name, ns=times, dir_fd=at, follow_symlinks=False))

    def _enter(self, directory: Place) -> int:
        """Go to a directory that was made here; return its descriptor, good until the next call. Raises OSError."""
        if directory is self._here:
            return self._here_descriptor
        descriptor = os.dup(self._here_descriptor)
        try:
            for name in _way(self._here, directory):
                following = os.open(name, _DIRECTORY, dir_fd=descriptor)
                os.close(descriptor)
                descriptor = following
        except OSError:
            os.close(descriptor)
            raise
        os.close(self._here_descriptor)
        self._here, self._here_descriptor = directory, descriptor
        return descriptor

    def _keep(self, what: str, action: Callable[[], object]) -> str:
        """Do what the host may refuse; "no space" is a refusal, too: some hosts have little of it for attributes."""
        try:
            action()
        except (OSError, OverflowError, ValueError) as refused:
            self.not_kept.add(what)
            return str(getattr(refused, "strerror", None) or refused)
        return ""


def _way(start: Place, end: Place) -> list[bytes]:
    """Return what leads from one directory to another: up to the one that they have in common, and down."""
    up: list[bytes] = []
    down: list[bytes] = []
    while start is not end:
        start_is_deeper = start.depth > end.depth
        if start_is_deeper:
            up.append(b"..")
        else:
            down.append(end.name)
        above = (start if start_is_deeper else end).directory
        assert above is not None
        start, end = (above, end) if start_is_deeper else (start, above)
    return up + down[::-1]


def write_but_zeros(descriptor: int, offset: int, data: bytes) -> None:
    """Write *data* at *offset*, leaving out blocks of zeros: the file has its size already, they are holes."""
    if data.count(0) < HOLE_BYTES and len(data) >= HOLE_BYTES:
        _write_all(descriptor, offset, memoryview(data))  # no whole block of zeros is in it
        return
    start = 0
    for at in range(0, len(data), HOLE_BYTES):
        block = data[at : at + HOLE_BYTES]
        if block == _ZEROS[: len(block)]:
            _write_all(descriptor, offset + start, memoryview(data)[start:at])
            start = at + len(block)
    _write_all(descriptor, offset + start, memoryview(data)[start:])


def _write_all(descriptor: int, offset: int, view: memoryview) -> None:
    while view:
        written = os.pwrite(descriptor, view, offset)
        view = view[written:]
        offset += written
