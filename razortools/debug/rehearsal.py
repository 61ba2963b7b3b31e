"""damage: a labelled kind of damage on a copy of the image, for drills and tests. The image itself is only read.

Each class is a thing that disks or bugs do. What exactly is hit follows from the seed, so a drill can be repeated.
"""

import argparse
import os
import random
from collections.abc import Callable
from dataclasses import dataclass, replace

from razortools.debug.answers import Answer, Lines
from razortools.debug.arguments import number
from razortools.debug.ownership import Owner, Wanted, owners
from razortools.debug.rawtree import RawTree
from razortools.debug.session import Command, Session, Words
from razortools.debug.surgery import edit_item, newest_superblock
from razortools.debug.values import show_key
from razortools.engine.store.device import Device, create_image
from razortools.engine.store.journal_reader import JournalReader, journal_seed
from razortools.engine.store.superblocks import find_copies
from razortools.errors import UsageError
from razortools.format.directory import DirectoryEntry
from razortools.format.geometry import geometry_of
from razortools.format.inode import FileType, Inode
from razortools.format.keys import KIND_AT, Kind
from razortools.format.name import Name
from razortools.units import MIB

SECTOR_BYTES = 512
PIECE_BYTES = 1 * MIB


@dataclass(slots=True)
class Victim:
    """A copy that is about to be damaged. *said*: what was done to it."""

    device: Device
    owners: list[Owner]
    chance: random.Random
    said: list[str]

    def block_of(self, *kinds: str) -> tuple[int, Owner]:
        """Return (a block by chance, its owner) among those whose owner begins so. Raises UsageError if there is none."""
        found = [owner for owner in self.owners if owner.what.startswith(kinds)]
        if not found:
            raise UsageError(f"damage: there is no {' or '.join(kinds)} in this image that could be damaged")
        owner = self.chance.choice(found)
        return self.chance.randrange(*owner.span), owner

    def write(self, offset: int, data: bytes, what: str) -> None:
        """Damage bytes."""
        self.device.write(offset, data)
        self.said.append(f"byte {offset}: {what}")


def _flip(victim: Victim, *kinds: str) -> None:
    block, owner = victim.block_of(*kinds)
    size = newest_superblock(victim.device).block_bytes
    at, bit = block * size + victim.chance.randrange(size), victim.chance.randrange(8)
    old = victim.device.read(at, 1)[0]
    victim.write(at, bytes([old ^ 1 << bit]), f"bit {bit} flipped, in {_whose(owner)}")


def _flip_data(victim: Victim) -> None:
    _flip(victim, "data")


def _flip_node(victim: Victim) -> None:
    _flip(victim, "tree node")


def _lose_node(victim: Victim) -> None:
    """Overwrite every copy of a node, a leaf by preference."""
    superblock = newest_superblock(victim.device)
    nodes = [node for node in RawTree(victim.device, superblock).walk() if node.header is not None]
    if not nodes:
        raise UsageError("damage: there is no node in this image that could be lost")
    node = victim.chance.choice([node for node in nodes if node.level == 0] or nodes)
    for block in node.copies:
        rubbish = victim.chance.randbytes(superblock.node_bytes)
        victim.write(block * superblock.block_bytes, rubbish, f"rubbish over a copy of the node from {show_key(node.low)}")


def _lose_sector(victim: Victim) -> None:
    size = newest_superblock(victim.device).block_bytes
    at = -1
    while at < 0 or not any(victim.device.read(at, SECTOR_BYTES)):
        block, owner = victim.block_of("data", "tree node", "superblock")
        at = block * size + victim.chance.randrange(size // SECTOR_BYTES) * SECTOR_BYTES
    victim.write(at, bytes(SECTOR_BYTES), f"a sector lost, in {_whose(owner)}")


def _misdirect(victim: Victim) -> None:
    size = newest_superblock(victim.device).block_bytes
    source, owner = victim.block_of("data", "tree node")
    target, other = victim.block_of("data", "tree node")
    data = victim.device.read(source * size, size)
    if data == victim.device.read(target * size, size):  # two copies of a node, or one block twice: make it something else
        data = victim.device.read(0, size)
    victim.write(target * size, data, f"a block of {_whose(owner)} written over one of {_whose(other)}")


def _lose_slot(victim: Victim) -> None:
    newest = newest_superblock(victim.device)
    victim.write(newest.slot * newest.block_bytes, bytes(newest.block_bytes), "the newest superblock slot lost")


def _lose_superblocks(victim: Victim) -> None:
    for copy in find_copies(victim.device):
        victim.write(copy.offset, bytes(4096), "a superblock lost")


def _spoil_map(victim: Victim) -> None:
    superblock = newest_superblock(victim.device)
    block, _ = victim.block_of(f"space map {'AB'[superblock.spacemap_active]}")
    at = block * superblock.block_bytes + victim.chance.randrange(superblock.block_bytes - 8)
    victim.write(at, victim.chance.randbytes(8), "rubbish in the space map in use")


def _spoil_journal(victim: Victim) -> None:
    superblock = newest_superblock(victim.device)
    geometry = geometry_of(superblock)
    reader = JournalReader(victim.device, geometry, journal_seed(superblock.uuid))
    if len(reader.scan(superblock.journal_tail, superblock.journal_sequence).transactions) < 2:
        raise UsageError(
            "damage: fewer than two transactions wait in the journal, so damage to it cannot be told from a torn write"
        )
    at = superblock.journal_start * superblock.block_bytes + superblock.journal_tail % geometry.journal_bytes
    victim.write(at, victim.chance.randbytes(SECTOR_BYTES), "rubbish where replay starts in the journal")


def _cut_off(victim: Victim) -> None:
    kept = victim.chance.randrange(victim.device.size_bytes * 3 // 4, victim.device.size_bytes) // 4096 * 4096
    victim.device.resize(kept)
    victim.said.append(f"byte {kept}: the image ends here")


def _edit(victim: Victim, kind: Kind, wanted: Callable[[bytes], bool], edit: Callable[[bytes], bytes], what: str) -> None:
    """Change the meaning of an item by chance, with right checksums: what a bug does, not a disk."""
    tree = RawTree(victim.device, newest_superblock(victim.device))
    keys = [key for key, value in tree.items() if key[KIND_AT] == kind and wanted(value)]
    if not keys:
        raise UsageError("damage: there is no item in this image that could be changed so")
    key = victim.chance.choice(keys)
    edit_item(victim.device, key, edit)
    victim.said.append(f"{show_key(key)}: {what}")


def _wrong_links(victim: Victim) -> None:
    def edit(value: bytes) -> bytes:
        inode = Inode.decode(value)
        inode.link_count += 5
        return inode.encode()

    _edit(victim, Kind.INODE, lambda value: True, edit, "its link count is five too high")


def _wrong_type(victim: Victim) -> None:
    def edit(value: bytes) -> bytes:
        return replace(DirectoryEntry.decode(value), file_type=int(FileType.FIFO)).encode()

    wanted: Callable[[bytes], bool] = lambda value: DirectoryEntry.decode(value).file_type != FileType.FIFO  # noqa: E731
    _edit(victim, Kind.DIRECTORY_ENTRY, wanted, edit, "it says that it leads to a fifo")


def _wrong_count(victim: Victim) -> None:
    def edit(value: bytes) -> bytes:
        name = Name.decode(value)
        return replace(name, reference_count=name.reference_count + 3).encode()

    _edit(victim, Kind.NAME, lambda value: True, edit, "its string counts three users too many")


def _dangling(victim: Victim) -> None:
    def edit(value: bytes) -> bytes:
        return replace(DirectoryEntry.decode(value), inode=(1 << 40) + 1).encode()

    _edit(victim, Kind.DIRECTORY_ENTRY, lambda value: True, edit, "it leads to an inode that does not exist")


CLASSES: dict[str, tuple[Callable[[Victim], None], str]] = {
    "bit-in-data": (_flip_data, "one flipped bit in the contents of a file"),
    "bit-in-node": (_flip_node, "one flipped bit in one copy of a tree node"),
    "lost-node": (_lose_node, "every copy of a leaf overwritten"),
    "lost-sector": (_lose_sector, "512 bytes of something in use become zeros"),
    "misdirected-write": (_misdirect, "a block written to the place of another"),
    "lost-slot": (_lose_slot, "the newest superblock slot gone"),
    "lost-superblocks": (_lose_superblocks, "every superblock gone"),
    "space-map": (_spoil_map, "rubbish in the space map in use"),
    "journal": (_spoil_journal, "rubbish at the start of the journal"),
    "truncated": (_cut_off, "the end of the image missing"),
    "link-count": (_wrong_links, "a wrong link count, under right checksums"),
    "entry-type": (_wrong_type, "a directory entry with a wrong type, under right checksums"),
    "name-count": (_wrong_count, "a string that counts too many users, under right checksums"),
    "dangling-entry": (_dangling, "a name that leads nowhere, under right checksums"),
}


def damage(session: Session, options: argparse.Namespace) -> Answer:
    """damage: copy the image to a new file of the host, and damage the copy."""
    hit, label = CLASSES[options.kind]
    block_count = session.superblock().block_count
    if os.path.lexists(options.out):
        raise UsageError(f"damage: {options.out} exists already; the damaged copy needs a name of its own")
    with create_image(options.out, session.device.size_bytes) as copy:
        try:
            _copy(session.device, copy)
            found = owners(session, Wanted([(0, block_count)]))
            victim = Victim(copy, found, random.Random(f"{options.kind} {options.seed}"), [])
            hit(victim)
            copy.flush()
        except BaseException:
            os.unlink(options.out)
            raise
    lines = [f"{options.out}: {options.kind}, seed {options.seed}: {label}", *(f"  {line}" for line in victim.said)]
    return Lines(lines, {"copy": options.out, "class": options.kind, "label": label, "seed": options.seed, "done": victim.said})


def _copy(source: Device, target: Device) -> None:
    """Copy what is not zeros."""
    at = source.next_data(0)
    while at < source.size_bytes:
        at = at // PIECE_BYTES * PIECE_BYTES
        data = source.read(at, min(PIECE_BYTES, source.size_bytes - at))
        if data.count(0) != len(data):
            target.write(at, data)
        at = max(source.next_data(at + len(data)), at + len(data))


def _whose(owner: Owner) -> str:
    path = os.fsdecode(owner.paths[0]) if owner.paths else ""
    return f"{owner.what} {path}".strip()


_DAMAGE = Words("damage")
_DAMAGE.add_argument(
    "--class", dest="kind", choices=tuple(CLASSES), required=True, metavar="CLASS", help=f"one of {', '.join(CLASSES)}"
)
_DAMAGE.add_argument("--seed", type=number, default=0, metavar="NUMBER", help="what exactly is hit follows from it; otherwise 0")
_DAMAGE.add_argument("out", metavar="HOST_PATH", help="the copy, which must not exist")

COMMANDS = (
    Command("damage", "make a damaged copy of the image, for drills and tests", _DAMAGE, damage,
            ("damage --class lost-node --seed 7 /tmp/drill.img",)),
)  # fmt: skip
