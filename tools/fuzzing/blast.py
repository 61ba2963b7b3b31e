"""The blast radius of damage: which files may be hurt by it, worked out from the undamaged image and from what was touched.

Contents may be hurt of files whose items or blocks were touched. Paths may be hurt of those, and of all that lies below them.
Whatever is outside must be the same after a repair, bit for bit. Invariants: a node with a good copy hurts nobody, an inner node
hurts nobody (its leaves describe themselves), nor does a superblock or the space map: all of these follow from something else.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

from razortools.check.image import Image
from razortools.check.journal_pass import recovered_view
from razortools.check.scan import node_at, read_items
from razortools.engine.store.device import Device
from razortools.engine.store.pages import PAGE_BYTES
from razortools.format.directory import BackLink, DirectoryEntry
from razortools.format.items import owned_record
from razortools.format.journal import Operation
from razortools.format.keys import KIND_AT, Kind, Table, object_of
from razortools.format.node import decode_header, decode_items
from tests.check.editing import image_of, journal_entries
from tools.fuzzing.sites import Container, node_containers


@dataclass(slots=True)
class Terrain:
    """The undamaged image by place: which inodes depend on which page."""

    leaves: list[tuple[tuple[range, ...], frozenset[int]]] = field(default_factory=list)  # pages of each copy, inodes in it
    inner: list[tuple[range, ...]] = field(default_factory=list)  # pages of each copy of an inner node
    data: dict[int, set[int]] = field(default_factory=lambda: defaultdict(set))  # page -> inodes
    journal: range = range(0)
    waiting: frozenset[int] = frozenset()  # inodes that the waiting journal changes
    last: frozenset[int] = frozenset()  # inodes that its last transaction changes
    last_data: frozenset[int] = frozenset()  # pages of the data that this one names
    parents: dict[int, set[int]] = field(default_factory=lambda: defaultdict(set))
    users: dict[int, set[int]] = field(default_factory=lambda: defaultdict(set))  # name id -> inodes

    def below(self, directories: set[int]) -> set[int]:
        """Return *directories* and all inodes with a path through one of them."""
        found = set(directories)
        while True:
            more = {ino for ino, parents in self.parents.items() if parents & found} - found
            if not more:
                return found
            found |= more


def terrain_of(device: Device) -> Terrain:
    """Survey the undamaged image on *device*."""
    terrain = Terrain()
    on_device = image_of(device)
    image, _ = recovered_view(on_device)
    scale = image.block_bytes // PAGE_BYTES
    geometry = image.geometry
    terrain.journal = range(geometry.journal_start * scale, (geometry.journal_start + geometry.journal_blocks) * scale)
    items = [*_leaf_items(image.device, list(node_containers(image)))]
    for _, pairs in items:
        for key, value in pairs:
            _note_names(terrain, key, value)
    for _, pairs in items:
        for key, value in pairs:
            for page in _pages_of(image, key, value):
                terrain.data[page].add(object_of(key))
    # The nodes that lie on the device are those of the last checkpoint.
    nodes = list(node_containers(on_device))
    terrain.inner = [_pages_of_node(node) for node in nodes if decode_header(device.read(node.offset, node.length)).level]
    for copies, pairs in _leaf_items(device, nodes):
        terrain.leaves.append((copies, frozenset(ino for key, value in pairs for ino in concerned(terrain, key, value))))
    waiting: set[int] = set()
    last: set[int] = set()
    last_data: set[int] = set()
    entries = journal_entries(on_device)
    commits = [number for number, entry in enumerate(entries) if entry.head.operation == Operation.COMMIT]
    for number, entry in enumerate(entries):
        is_of_last = len(commits) < 2 or number > commits[-2]
        for value in filter(None, (entry.undo, entry.redo)):
            if entry.head.key[0] in set(Table):
                found = concerned(terrain, entry.head.key, value)
                waiting |= found
                last |= found if is_of_last else set()
        if is_of_last and entry.redo:
            last_data.update(_pages_of(image, entry.head.key, entry.redo))
    terrain.waiting, terrain.last, terrain.last_data = frozenset(waiting), frozenset(last), frozenset(last_data)
    return terrain


def _pages_of(image: Image, key: bytes, value: bytes) -> Iterator[int]:
    """Yield the pages of the blocks that an item owns."""
    scale = image.block_bytes // PAGE_BYTES
    record = owned_record(key, value) if key[KIND_AT] in (Kind.DATA_RECORD, Kind.XATTR) else None
    for first, count in record.runs(image.block_bytes) if record is not None else ():
        yield from range(first * scale, (first + count) * scale)


def _leaf_items(device: Device, nodes: list) -> Iterable[tuple[tuple[range, ...], list[tuple[bytes, bytes]]]]:  # type: ignore[type-arg]
    for node in nodes:
        raw = device.read(node.offset, node.length)
        header = decode_header(raw)
        if header.level == 0:
            yield _pages_of_node(node), list(zip(*decode_items(raw, header), strict=True))


def _pages_of_node(node: Container) -> tuple[range, ...]:
    """Return the pages of each of its copies."""
    return tuple(range(at // PAGE_BYTES, (at + node.length) // PAGE_BYTES) for at in (node.offset, *node.mirrors))


def _note_names(terrain: Terrain, key: bytes, value: bytes) -> None:
    if key[KIND_AT] == Kind.DIRECTORY_ENTRY:
        entry = DirectoryEntry.decode(value)
        terrain.parents[entry.inode].add(object_of(key))
        terrain.users[entry.name_id].add(entry.inode)


def concerned(terrain: Terrain, key: bytes, value: bytes) -> set[int]:
    """Return the inodes that an item is about."""
    kind = key[KIND_AT]
    if kind == Kind.NAME:
        return set(terrain.users.get(object_of(key), ()))
    if kind == Kind.COUNTERS:
        return set()
    found = {object_of(key)}
    if kind == Kind.DIRECTORY_ENTRY and len(value) == DirectoryEntry.FIXED_BYTES:
        found.add(DirectoryEntry.decode(value).inode)
    if kind == Kind.BACK_LINK and len(value) == BackLink.FIXED_BYTES:
        found.add(BackLink.decode(value).parent)
    return found


def _is_lost(copies: Iterable[range], wrong: set[int]) -> bool:
    """Return whether a node has no good copy left."""
    return all(wrong.intersection(copy) for copy in copies)


def named_again(terrain: Terrain, image: Image, device: Device, pages: Iterable[int]) -> set[int]:
    """Return the inodes to which an older name may come back, as *device* has these *pages* otherwise than the undamaged *image*.

    Where a leaf is lost and the node above it as well, an older leaf answers in its place. That it is older a newer leaf of its
    range, or the space map, may know; if these are lost too, nobody tells the names that were removed since from those that are
    current, and a name more is no loss.
    """
    wrong, found = set(pages), set[int]()
    leaves = [copies for copies, _ in terrain.leaves]
    if not all(any(_is_lost(copies, wrong) for copies in nodes) for nodes in (terrain.inner, leaves)):
        return found
    damaged = replace(image, device=device)
    for block in range(min(device.size_bytes // image.block_bytes, image.geometry.block_count)):
        node = node_at(damaged, block)
        if node is not None and node.level == 0:
            items = zip(*read_items(damaged, block, node.pointer), strict=True)
            found |= {DirectoryEntry.decode(value).inode for key, value in items if key[KIND_AT] == Kind.DIRECTORY_ENTRY}
    return found


def touched_by(terrain: Terrain, pages: Iterable[int]) -> set[int]:
    """Return the inodes whose contents may be hurt when these pages of the image are not what they were."""
    wrong = set(pages)
    found: set[int] = set()
    for page in wrong:
        found |= terrain.data.get(page, set())
        if page in terrain.journal:
            found |= terrain.waiting
    if wrong & terrain.last_data:  # it may have been torn off, with all that it changed: what a crash before it leaves
        found |= terrain.last
    for copies, inodes in terrain.leaves:
        if _is_lost(copies, wrong):
            found |= inodes
    return found
