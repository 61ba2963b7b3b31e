"""Making the copy: learn the names, choose what stands for them, then write structure by structure.

The order follows from what tells of what: blocks of files first, for records tell their checksums; nodes from the leaves up;
superblocks last. The image is only read. Everything that is not written is zeros.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from razortools.check.image import Image
from razortools.check.map_rules import fixed_claims
from razortools.check.repair.surveying import believed
from razortools.check.scan import find_superblock
from razortools.check.steps import finished
from razortools.debug.sanitize.frame import masked, superblocks_of, write_maps, write_superblocks
from razortools.debug.sanitize.items import Items, names_in, records_in
from razortools.debug.sanitize.journal import JournalCopy
from razortools.debug.sanitize.nodes import Nodes
from razortools.debug.sanitize.records import Records
from razortools.debug.sanitize.standins import StandIns
from razortools.engine.store.device import Device
from razortools.format.geometry import geometry_of

Item = tuple[bytes, bytes]


@dataclass(frozen=True, slots=True)
class Sanitized:
    """What is in the copy. *names* tells what stands for what, and must not leave this process."""

    names: StandIns
    name_count: int
    node_count: int
    record_count: int
    entry_count: int


def sanitize(device: Device, target: Device, secret: bytes) -> Sanitized:
    """Write to *target*, which must be as long and hold zeros, a copy of the image on *device* without names and contents.

    What stands for them follows from *secret*. Raises NotAnImage or UnsupportedFormat if no superblock is found that tells what
    lies where, UsageError if no stand-ins are left.
    """
    image = image_of(device)
    superblocks = superblocks_of(image)
    names = StandIns(secret, image.superblock.hash_seed, b"")
    names.new_seed = masked(image.superblock.hash_seed, names)
    nodes, journal = Nodes(image), JournalCopy(image, superblocks)
    nodes.find([superblock.root for superblock in (image.superblock, *superblocks)])
    records = Records(image, target, names)
    name_count = _learn(nodes, journal, names, records)
    fixed = fixed_claims(image)
    nodes.write_rubbish(target, names, lambda block: fixed.holds(block) or records.owned.holds(block))
    items = Items(names, records)
    node_count = nodes.write(target, items)
    entry_count = journal.write(target, items)
    write_maps(image, target, superblocks, names)
    write_superblocks(image, target, nodes, names, records.owned.holds)
    return Sanitized(names, name_count, node_count, records.count, entry_count)


def image_of(device: Device) -> Image:
    """Return the image as its most believable superblock tells. Raises NotAnImage, UnsupportedFormat."""
    facts = believed(device)
    if facts is not None:
        return facts.image
    found = finished(find_superblock(device)).superblock
    return Image(device, found, geometry_of(found))


def _learn(nodes: Nodes, journal: JournalCopy, names: StandIns, records: Records) -> int:
    """Learn every record, every name and every key; return how many names there are."""
    of_files: set[bytes] = set()
    of_attributes: set[bytes] = set()
    for key, value in _items(nodes, journal):
        for record in records_in(key, value):
            records.learn(record)
        name, attribute = names_in(key, value)
        if name is not None:
            of_files.add(name)
        if attribute is not None:
            of_attributes.add(attribute)
    names.learn(of_files, of_attributes)
    for parts in nodes.whole():
        for key in parts.all_keys():
            names.note(key)
    for key in journal.all_keys():
        names.note(key)
    names.settle()
    return len(of_files | of_attributes)


def _items(nodes: Nodes, journal: JournalCopy) -> Iterator[Item]:
    """Yield every item of every leaf that verifies, and every value in the journal."""
    for parts in nodes.whole():
        yield from parts.items()
    for entry in journal.entries():
        yield from ((entry.head.key, value) for value in (entry.undo, entry.redo) if value)
