"""Where the structures of an image lie, found from the catalogue of the format, and how to change one byte of them properly.

A *site* is one structure in the image. It lies in a *container*: a superblock, a tree node, a page of the space map or an entry
of the journal. A container knows its checksum and where other containers keep it, so a change can be *sealed*: every checksum up
to the superblocks is right again, and only the meaning is wrong. Invariants: sealing an unchanged container changes nothing; the
sites of an image cover every record of the catalogue that can occur in it.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import crc32c

from razortools.check.image import Image
from razortools.check.journal_pass import recovered_view
from razortools.check.journal_rules import Ring, read_entries
from razortools.check.map_rules import map_pages
from razortools.engine.store.device import Device
from razortools.engine.store.journal_reader import journal_seed
from razortools.format.admin import ADMIN_ENTRY_BYTES, ADMIN_SECTOR_BYTES, ADMIN_SECTORS, AdminEntry, AdminSector
from razortools.format.data import SecondChecksum
from razortools.format.items import ITEMS, owned_record
from razortools.format.journal import ENTRY_HEAD_BYTES, JournalCommit, JournalEntry, Operation
from razortools.format.keys import KEY_BYTES, KIND_AT, Key
from razortools.format.late_pages import LatePages
from razortools.format.node import NODE_HEADER_BYTES, VALUE_END_BYTES, ChildPointer, NodeHeader, decode_header, decode_items
from razortools.format.record import Record
from razortools.format.spacemap import SpaceMapEntry
from razortools.format.superblock import SLOT_COUNT, SUPERBLOCK_BYTES, Superblock
from razortools.format.xattr import Xattr
from tests.check.editing import image_of

CHILD_CHECKSUM_AT = ChildPointer.FIXED_BYTES - 4
_PLACES = {field.name: field.offset for field in Superblock.FIELDS}
_ROOT_AT, _MAP_TOP_AT = _PLACES["root"], _PLACES["spacemap_top"]


@dataclass(frozen=True, slots=True)
class Container:
    """Bytes under one checksum. *own_at*: where the checksum stands in it, -1: nowhere; *kept*: where others keep it."""

    offset: int
    length: int
    checked_from: int
    own_at: int
    seed: int = 0
    mirrors: tuple[int, ...] = ()
    kept: tuple[tuple["Container", int], ...] = ()

    def seal(self, device: Device) -> None:
        """Make the checksum right, here, in the second copy and wherever it is kept, up to the superblocks."""
        raw = device.read(self.offset, self.length)
        checksum = crc32c.crc32c(raw[self.checked_from :], self.seed).to_bytes(4, "little")
        if self.own_at >= 0:
            raw = raw[: self.own_at] + checksum + raw[self.own_at + 4 :]
            device.write(self.offset, raw)
        for mirror in self.mirrors:
            device.write(mirror, raw)
        for container, at in self.kept:
            device.write(container.offset + at, checksum)
            container.seal(device)


@dataclass(frozen=True, slots=True)
class Site:
    """One structure. Several containers: it is changed in all of them alike (the copies of the superblock)."""

    structure: type[Record]
    at: int  # within each container
    length: int
    containers: tuple[Container, ...]
    owner: str = ""  # what it belongs to, for people
    key: bytes = b""  # of the item that it is, or that holds it
    role: str = ""  # what is special about its place, see harmless.ROLES

    def read(self, device: Device) -> bytes:
        """Return its bytes."""
        return device.read(self.containers[0].offset + self.at, self.length)

    def write(self, device: Device, offset: int, data: bytes, *, sealed: bool) -> None:
        """Put *data* at *offset* within it; *sealed*: with right checksums up to the superblocks."""
        assert offset + len(data) <= self.length
        for container in self.containers:
            device.write(container.offset + self.at + offset, data)
            for mirror in () if sealed else container.mirrors:
                device.write(mirror + self.at + offset, data)
            if sealed:
                container.seal(device)


def find_sites(device: Device) -> Iterator[Site]:
    """Yield every structure in the image on *device*, which must be in order."""
    image = image_of(device)
    superblocks = superblock_containers(image)
    newest = _newest(image, superblocks)
    yield Site(Superblock, 0, SUPERBLOCK_BYTES, newest, "all newest superblocks")
    for number, container in enumerate(superblocks):
        role = "backup" if number >= SLOT_COUNT else "" if container in newest else "older superblock"
        yield Site(Superblock, 0, SUPERBLOCK_BYTES, (container,), f"superblock at byte {container.offset}", role=role)
    yield Site(ChildPointer, _ROOT_AT, ChildPointer.FIXED_BYTES, newest, "root pointer")
    yield Site(SpaceMapEntry, _MAP_TOP_AT, SpaceMapEntry.FIXED_BYTES, newest, "top of the space map")
    for field in ("admin_last", "admin_before"):
        yield Site(AdminEntry, _PLACES[field], ADMIN_ENTRY_BYTES, newest, f"{field} of all newest superblocks")
    for number in range(ADMIN_SECTORS):
        at = _PLACES["admin_history"] + number * ADMIN_SECTOR_BYTES
        yield Site(AdminSector, at, ADMIN_SECTOR_BYTES, newest, f"sector {number} of the admin history of all newest superblocks")
    replaced = _replaced_nodes(image)
    for node in node_containers(image, newest):
        role = "replaced node" if node.offset in replaced else ""
        yield from (replace(site, role=role) for site in _node_sites(device, node))
    yield from _map_sites(image, newest)
    yield from _journal_sites(image)


def superblock_containers(image: Image) -> list[Container]:
    """Return the slots and the backups."""
    size = image.block_bytes
    places = [*range(SLOT_COUNT), *image.geometry.backups]
    skipped = Superblock.skipped_bytes()
    return [Container(place * size, SUPERBLOCK_BYTES, skipped, skipped - 4) for place in places]


def _newest(image: Image, superblocks: list[Container]) -> tuple[Container, ...]:
    """Return the copies that hold the newest generation; the slot comes first."""
    found = []
    for container in superblocks:
        raw = image.device.read(container.offset, container.length)
        if any(raw) and Superblock.decode(raw).generation == image.superblock.generation:
            found.append(container)
    return tuple(found)


def node_containers(image: Image, newest: tuple[Container, ...] | None = None) -> Iterator[Container]:
    """Yield every node of the tree, parents first."""
    if newest is None:
        newest = _newest(image, superblock_containers(image))
    root = image.superblock.root
    pending = [(root, image.superblock.root_level, tuple((copy, _ROOT_AT + CHILD_CHECKSUM_AT) for copy in newest))]
    size, length = image.block_bytes, image.geometry.node_bytes
    while pending:
        pointer, level, kept = pending.pop()
        mirrors = (pointer.mirror * size,) if pointer.mirror else ()
        node = Container(pointer.address * size, length, 8, 4, 0, mirrors, kept)
        yield node
        if level:
            raw = image.device.read(node.offset, length)
            for at, child in _values_of(raw):
                pending.append((ChildPointer.decode(child), level - 1, ((node, at + CHILD_CHECKSUM_AT),)))


def _replaced_nodes(image: Image) -> set[int]:
    """Return where the nodes lie that the recovered image has no use for."""
    there = {node.offset for node in node_containers(image)}
    return there - {node.offset for node in node_containers(recovered_view(image)[0])}


def _values_of(raw: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield (offset in the node, value) of each item."""
    header = decode_header(raw)
    at = NODE_HEADER_BYTES + header.item_count * (KEY_BYTES + VALUE_END_BYTES)
    for value in decode_items(raw, header)[1]:
        yield at, value
        at += len(value)


def _node_sites(device: Device, node: Container) -> Iterator[Site]:
    raw = device.read(node.offset, node.length)
    header = decode_header(raw)
    keys, _ = decode_items(raw, header)
    owner = f"node of level {header.level} at byte {node.offset}"
    yield Site(NodeHeader, 0, NODE_HEADER_BYTES, (node,), owner)
    for number, (key, (at, value)) in enumerate(zip(keys, _values_of(raw), strict=True)):
        yield Site(Key, NODE_HEADER_BYTES + number * KEY_BYTES, KEY_BYTES, (node,), f"key {number} of {owner}", key)
        if header.level:
            yield Site(ChildPointer, at, len(value), (node,), f"child {number} of {owner}", key)
            continue
        structure = ITEMS[key[KIND_AT]]
        yield Site(structure, at, len(value), (node,), f"item {key.hex()}", key)
        outside = Xattr.decode(value).out_of_line if structure is Xattr else None
        if outside is not None:
            length = len(outside.encode())
            yield Site(type(outside), at + len(value) - length, length, (node,), f"large value of item {key.hex()}", key)
        owned = owned_record(key, value)
        if owned is not None and owned.second_checksum is not None:
            behind = at + len(value) - len(owned.more)
            yield Site(SecondChecksum, behind, SecondChecksum.FIXED_BYTES, (node,), f"item {key.hex()}", key)
        if owned is not None and (late := owned.late_pages) is not None:
            behind = at + len(value) - len(owned.further_runs) - late.encoded_bytes
            yield Site(LatePages, behind, late.encoded_bytes, (node,), f"item {key.hex()}", key)


def _map_sites(image: Image, newest: tuple[Container, ...]) -> Iterator[Site]:
    """Yield the entries of the index pages of the active map."""
    shape, size = image.geometry.spacemap, image.block_bytes
    top_level = len(shape.level_pages) - 1
    fan_out = size // SpaceMapEntry.FIXED_BYTES
    containers: dict[tuple[int, int], Container] = {}
    for page in map_pages(image, image.superblock.spacemap_active, image.superblock.spacemap_top):
        if page.level == top_level:
            kept = tuple((copy, _MAP_TOP_AT) for copy in newest)
        else:
            above = containers[page.level + 1, page.index // fan_out]
            kept = ((above, page.index % fan_out * SpaceMapEntry.FIXED_BYTES),)
        container = containers[page.level, page.index] = Container(page.block * size, size, 0, -1, 0, (), kept)
        for number in range(fan_out) if page.level else ():
            owner = f"entry {number} of map page {page.index}, level {page.level}"
            yield Site(SpaceMapEntry, number * SpaceMapEntry.FIXED_BYTES, SpaceMapEntry.FIXED_BYTES, (container,), owner)


def _journal_sites(image: Image) -> Iterator[Site]:
    """Yield the entries that wait for replay. They must not reach over the ring's end."""
    ring, seed = Ring(image), journal_seed(image.superblock.uuid)
    start = image.geometry.journal_start * image.block_bytes
    position, sequence = image.superblock.journal_tail, image.superblock.journal_sequence
    while True:
        entries, _ = read_entries(ring, position, sequence)
        if not entries or entries[-1].head.operation != Operation.COMMIT:
            return
        behind, _ = read_entries(ring, ring.block_after(entries[-1]), entries[-1].head.sequence + 1)
        role = "" if behind else "last transaction"
        for entry in entries:
            length = entry.end - entry.position
            head = JournalEntry.skipped_bytes()
            container = Container(start + entry.position % ring.bytes, length, head, head - 4, seed)
            owner = f"journal entry {entry.head.sequence}"
            yield Site(JournalEntry, 0, ENTRY_HEAD_BYTES, (container,), owner, entry.head.key, role)
            at = ENTRY_HEAD_BYTES - KEY_BYTES
            yield Site(Key, at, KEY_BYTES, (container,), f"key of {owner}", entry.head.key, role)
            if entry.head.operation == Operation.COMMIT:
                yield Site(JournalCommit, ENTRY_HEAD_BYTES, JournalCommit.FIXED_BYTES, (container,), f"commit {owner}", role=role)
            else:
                for site in _value_sites(container, entry.head.key, len(entry.undo), len(entry.redo), owner):
                    yield replace(site, role=site.role or role)
        sequence = entries[-1].head.sequence + 1
        position = ring.block_after(entries[-1])


def _value_sites(container: Container, key: bytes, undo_bytes: int, redo_bytes: int, owner: str) -> Iterator[Site]:
    """Yield the values before and after that an entry carries."""
    structure = ITEMS[key[KIND_AT]]
    for at, length, words in ((ENTRY_HEAD_BYTES, undo_bytes, "undo"), (ENTRY_HEAD_BYTES + undo_bytes, redo_bytes, "redo")):
        if length:
            role = "value before" if words == "undo" else ""
            yield Site(structure, at, length, (container,), f"{words} value of {owner}", key, role)
