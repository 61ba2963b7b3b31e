"""What must hold of the items of every volume at every moment between two operations, read straight from the tree."""

from collections import Counter, defaultdict

import pytest

from razortools.engine.volume import Volume
from razortools.format.data import DataRecord
from razortools.format.directory import BackLink, DirectoryEntry
from razortools.format.inode import ROOT_INODE, Inode, InodeFlag, Orphan, OrphanReason
from razortools.format.items import decode_item, owned_record
from razortools.format.keys import COUNTERS_KEY, Kind, Table, kind_of, object_of, offset_of
from razortools.format.name import Name
from razortools.format.xattr import Xattr
from tests.engine.volumes import items


def check_rules(volume: Volume) -> None:
    """Compare all items of *volume* with one another, with its counters and with what its tables keep in memory."""
    inodes: dict[int, Inode] = {}
    names: dict[int, Name] = {}
    orphans: dict[int, Orphan] = {}
    entries: dict[tuple[int, int], tuple[int, DirectoryEntry]] = {}  # (inode, link number) -> directory, entry
    links: dict[tuple[int, int], BackLink] = {}
    entry_counts: Counter[int] = Counter()
    subdirectories: Counter[int] = Counter()
    with_xattrs: set[int] = set()
    blocks: defaultdict[int, int] = defaultdict(int)
    raw_bytes = 0
    for key, value in items(volume).items():
        number, offset, item = object_of(key), offset_of(key), decode_item(key, value)
        if key[0] == Table.FILES and kind_of(key) != Kind.INODE:
            assert number in inodes, f"an item of inode {number}, which does not exist"
        if isinstance(item, Inode):
            inodes[number] = item
        elif isinstance(item, Name):
            names[number] = item
        elif isinstance(item, Orphan):
            orphans[number] = item
        elif isinstance(item, DirectoryEntry):
            assert (item.inode, item.link_no) not in entries, "two entries with one back link"
            entries[item.inode, item.link_no] = (number, item)
            entry_counts[number] += 1
            subdirectories[number] += item.file_type == 4
        elif isinstance(item, BackLink):
            links[number, offset] = item
        elif isinstance(item, Xattr):
            with_xattrs.add(number)
        record = owned_record(key, value)
        if record is not None:
            blocks[number] += record.block_count(volume.block_bytes)
            raw_bytes += record.raw_bytes if isinstance(item, DataRecord) else 0
    assert {place: (directory, entry.name_id) for place, (directory, entry) in entries.items()} == {
        place: (link.parent, link.name_id) for place, link in links.items()
    }, "entries and back links disagree"
    link_counts = Counter(number for number, _ in links)
    for number, inode in inodes.items():
        assert Inode._FLATTEN(volume.inodes.get(number)) == Inode._FLATTEN(inode), f"inode {number} differs in memory"
        assert bool(inode.flags & InodeFlag.HAS_XATTRS) == (number in with_xattrs), f"flag of inode {number}"
        assert inode.stored_blocks == blocks[number], f"blocks of inode {number}"
        assert all(link_no < inode.next_link_no for owner, link_no in links if owner == number)
        unlinked = number in orphans and orphans[number].reason == OrphanReason.UNLINKED
        assert (inode.link_count == 0) == unlinked, f"inode {number} has {inode.link_count} links"
        if inode.is_directory:
            assert inode.size == entry_counts[number], f"size of directory {number}"
            assert unlinked or inode.link_count == 2 + subdirectories[number], f"links of directory {number}"
            assert link_counts[number] == (0 if unlinked or number == ROOT_INODE else 1)
        else:
            assert inode.link_count == link_counts[number], f"links of inode {number}"
            assert entry_counts[number] == 0
    for _, entry in entries.values():
        assert inodes[entry.inode].file_type == entry.file_type
    used = Counter(entry.name_id for _, entry in entries.values())
    assert used == {name_id: name.reference_count for name_id, name in names.items()}, "string table"
    assert all(volume.names.text(name_id) == name.text for name_id, name in names.items()), "strings differ in memory"
    counters = volume.counters
    assert counters.inode_count == len(inodes)
    assert counters.directory_count == sum(inode.is_directory for inode in inodes.values())
    assert counters.name_count == len(names)
    assert counters.raw_bytes == raw_bytes
    assert counters.data_blocks == sum(blocks.values())
    assert counters.next_inode > max(inodes)
    assert counters.next_name_id > max(names, default=0)
    assert volume.store.get(COUNTERS_KEY) is not None


def check_promise(volume: Volume, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bring the tree of *volume* up to date, as a commit does, and compare what that took with what had been promised for it."""
    asked: list[tuple[int, int]] = []  # nodes, journal bytes
    monkeypatch.setattr(volume.store.room, "has", lambda blocks, nodes, bytes_, deleting: not asked.append((nodes, bytes_)))
    assert volume.has_room_now()
    tree, transaction = volume.store.tree, volume.store.transaction
    dirty, journal_bytes = tree.dirty_count, transaction.measure()
    volume.inodes.put_behind()
    (nodes, promised_bytes), *_ = asked
    assert 0 < transaction.measure() - journal_bytes <= promised_bytes
    assert 0 <= tree.dirty_count - dirty <= nodes
