"""Paths: the name of an inode for people, found from its back links. Always gives an answer, whatever is damaged."""

from razortools.check.tree import TreeIndex
from razortools.errors import RazorError
from razortools.format.directory import BackLink
from razortools.format.inode import ROOT_INODE
from razortools.format.keys import Kind, kind_range, name_key
from razortools.format.name import Name
from razortools.units import InodeNo, NameId

DEPTH_MAX = 4096  # PATH_MAX of Linux in the shortest names possible, twice
CACHED_DIRECTORIES = 10_000


class Paths:
    """Finds paths in a tree. Bytes that are no UTF-8 come out as lone surrogates."""

    def __init__(self, tree: TreeIndex) -> None:
        """Look into *tree*, whose walk must be complete."""
        self._tree = tree
        self._known: dict[int, str] = {ROOT_INODE: "/"}
        self._endless: set[int] = set()  # inodes whose way up was found to lead around a cycle

    def of(self, inode: int) -> str:
        """Return a path of *inode*, or ``<inode 12>``, which may also stand in front: ``<inode 12>/name``."""
        names: list[str] = []
        at = inode
        visited: set[int] = set()
        while at not in self._known:
            if at in visited and len(self._endless) < CACHED_DIRECTORIES:
                self._endless |= visited
            if at in visited or at in self._endless or len(names) > DEPTH_MAX:
                return self._keep(inode, f"<inode {inode}>")
            visited.add(at)
            link = self.first_link(at)
            if link is None:
                return self._keep(inode, "/".join([f"<inode {at}>", *reversed(names)]))
            names.append(self.name(link.name_id))
            at = link.parent
        return self._keep(inode, join(self._known[at], *reversed(names)))

    def child(self, directory: int, name_id: int) -> str:
        """Return the path of a name in a directory."""
        return join(self.of(directory), self.name(name_id))

    def name(self, name_id: int) -> str:
        """Return the string of *name_id*, or ``<name 12>``."""
        value = self._tree.get(name_key(NameId(name_id)))
        try:
            text = Name.decode(value or b"").text
        except RazorError:
            return f"<name {name_id}>"
        return text.decode("utf-8", "surrogateescape") or f"<name {name_id}>"

    def text(self, name_id: int) -> bytes | None:
        """Return the bytes of the string, or None."""
        value = self._tree.get(name_key(NameId(name_id)))
        try:
            return Name.decode(value or b"").text
        except RazorError:
            return None

    def first_link(self, inode: int) -> BackLink | None:
        """Return the first back link of *inode* that can be read, or None."""
        for _, value in self._tree.range_items(*kind_range(InodeNo(inode), Kind.BACK_LINK)):
            try:
                return BackLink.decode(value)
            except RazorError:
                continue
        return None

    def _keep(self, inode: int, path: str) -> str:
        if len(self._known) < CACHED_DIRECTORIES:
            self._known[inode] = path
        return path


def join(directory: str, *names: str) -> str:
    """Return the path of *names* below *directory*."""
    return "/".join([directory.rstrip("/"), *names]) if names else directory
