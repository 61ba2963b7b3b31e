"""One way, at least, to bring about every problem in the table."""

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import crc32c

from razortools.check.map_rules import map_pages
from razortools.engine.store.device import Device
from razortools.errors import DeviceFailed
from razortools.format.admin import ADMIN_HISTORY_BYTES, EMPTY_HISTORY
from razortools.format.compression import Algorithm, pack
from razortools.format.data import CHECKED_TWICE, CUT_OUT, DataRecord, InlineData, Patch, make_record
from razortools.format.directory import BackLink, DirectoryEntry
from razortools.format.inode import ROOT_INODE, Orphan
from razortools.format.journal import COMMIT_BYTES, JournalCommit
from razortools.format.keys import (
    COUNTERS_KEY,
    HASH_MAX,
    Key,
    Kind,
    back_link_key,
    entry_key,
    inline_key,
    inode_key,
    name_key,
    orphan_key,
    patch_key,
    record_key,
    xattr_key,
)
from razortools.format.name import Name
from razortools.format.node import CHILD_BYTES, NODE_HEADER_BYTES, ChildPointer, NodeHeader
from razortools.format.spacemap import SpaceMapEntry
from razortools.format.superblock import KNOWN_INCOMPAT, SLOT_COUNT, Incompat, State
from razortools.format.undo import Stage
from razortools.format.xattr import Xattr
from razortools.units import InodeNo, NameId
from tests.check.cut_off import resized_until
from tests.check.editing import (
    all_items,
    edit_inode,
    edit_item,
    editing,
    find_inode,
    first_item,
    flip,
    image_of,
    indexed,
    journal_entries,
    rewrite_entry,
    rewrite_node,
    rewrite_superblock,
    write_journal,
    write_superblocks,
)
from tests.check.samples import Copy, KeptDevice, healthy, late_paged, unclean

Damage = Callable[[], Device]
DAMAGES: list[tuple[str, Damage]] = []  # code that must be found, maker of the damaged image
NOBODY = InodeNo(1_000_000)  # an inode that does not exist


def brings(code: str) -> Callable[[Damage], Damage]:
    """Register a damage that must be reported as *code*."""

    def register(damage: Damage) -> Damage:
        DAMAGES.append((code, damage))
        return damage

    return register


def _edited(code: str, edit: Callable[[Device], object], *, start: Callable[[], Device] = healthy) -> None:
    """Register *edit* of a fresh image as a damage that brings *code*."""

    def damage() -> Device:
        device = start()
        edit(device)
        return device

    DAMAGES.append((code, damage))


# Superblock


def _wipe_slots(device: Device) -> None:
    block_bytes = image_of(device).block_bytes
    for slot in (0, 1):
        device.write(slot * block_bytes, bytes(block_bytes))


@brings("E0110")
def an_empty_device() -> Device:
    return KeptDevice(1 << 20)


@brings("E0110")
def a_device_too_small_for_anything() -> Device:
    return KeptDevice(1000)


@brings("E0111")
def a_truncated_image() -> Device:
    whole = healthy()
    device = KeptDevice(whole.size_bytes - 4096)
    device.write(0, whole.read(0, device.size_bytes))
    return device


@brings("E0109")
def an_image_with_a_tail() -> Device:
    whole = healthy()
    device = KeptDevice(whole.size_bytes + 8192)
    device.write(0, whole.read(0, whole.size_bytes))
    return device


@brings("E0114")
def an_image_whose_superblocks_are_all_damaged() -> Device:
    device = healthy()
    image = image_of(device)
    for block in (0, 1, *image.geometry.backups):
        flip(device, block * image.block_bytes + 100)
    return device


@brings("E0120")
def an_image_over_an_older_one_without_slots() -> Device:
    """The last of its backups is one of another filesystem, of the same size but with larger blocks."""
    device = healthy()
    old = image_of(healthy(block_bytes=8192)).superblock
    count = device.size_bytes // 8192
    told = replace(old, uuid=b"another one once", block_count=count, slot=SLOT_COUNT, address=count - 1, written_at_ns=1)
    device.write(told.address * 8192, told.encode())
    _wipe_slots(device)
    return device


@brings("E0112")
def an_image_with_the_magic_of_a_newer_version() -> Device:
    device = healthy()
    image = image_of(device)
    for block in (0, 1, *image.geometry.backups):
        device.write(block * image.block_bytes + 7, b"\x02")
    return device


@brings("E0102")
def a_large_block_with_something_behind_its_superblock() -> Device:
    device = healthy(block_bytes=8192)
    flip(device, 5000)
    return device


@brings("E0105")
def a_backup_of_the_future() -> Device:
    device = healthy()
    image = image_of(device)
    write_superblocks(device, slots=True, generation=image.superblock.generation)
    place = image.geometry.backups[0]
    rewrite_superblock(device, place, image.block_bytes, uuid=bytes(16))
    return device


def _backup(device: Device, number: int = 0) -> int:
    return image_of(device).geometry.backups[number]


_edited("E0101", lambda device: flip(device, 50))
_edited("E0101", lambda device: flip(device, 4096 + 4095))
_edited("E0102", lambda device: write_superblocks(device, state=7))
_edited("E0102", lambda device: write_superblocks(device, reserved=b"\1".ljust(88, b"\0")))
_edited("E0102", lambda device: write_superblocks(device, compat=0))
_edited("E0102", lambda device: write_superblocks(device, compat=0, admin_history=EMPTY_HISTORY))
_edited("E0119", lambda device: write_superblocks(device, backups=True, admin_history=b"\1".ljust(ADMIN_HISTORY_BYTES, b"\0")))
_edited("E0102", lambda device: write_superblocks(device, label=b"a\0b".ljust(64, b"\0")))
_edited("E0103", lambda device: rewrite_superblock(device, 1 - image_of(device).superblock.slot, 4096, made_at_ns=5))
_edited("E0104", lambda device: flip(device, _backup(device) * 4096 + 1000))


# Found by the field fuzz: these were passed, or stopped the check.


def _older_slot(device: Device) -> int:
    return 1 - image_of(device).superblock.slot


def _claim_to_be_newest(device: Device) -> None:
    """Let the older slot have the generation of the newer one: a mount could take either."""
    rewrite_superblock(device, _older_slot(device), 4096, generation=image_of(device).superblock.generation)


_edited("E0102", _claim_to_be_newest)
_edited("E0102", lambda device: rewrite_superblock(device, _older_slot(device), 4096, generation=(1 << 64) - 1))
_edited("E0102", lambda device: write_superblocks(device, backups=True, transaction=(1 << 64) - 1))
_edited("E0102", lambda device: write_superblocks(device, backups=True, label=b"\xff".ljust(64, b"\0")))
_edited("E0104", lambda device: rewrite_superblock(device, _backup(device), 4096, reserved=bytes(87) + b"\1"))
_edited("E0106", _wipe_slots)
_edited("E0103", lambda device: rewrite_superblock(device, _older_slot(device), 4096, block_count=400))
DAMAGES.append(("E0118", lambda: resized_until(Stage.TRUTH)))
_edited("E0107", lambda device: rewrite_superblock(device, 0, 4096, journal_blocks=10**6))
_edited("E0107", lambda device: rewrite_superblock(device, 1, 4096, node_bytes=5000))
_edited("E0108", lambda device: write_superblocks(device, state=State.ERRORS, error_count=3))
_edited("E0112", lambda device: write_superblocks(device, backups=True, version_major=2))
_edited("E0113", lambda device: write_superblocks(device, backups=True, incompat=KNOWN_INCOMPAT | 1 << 40))
_edited("E0115", lambda device: write_superblocks(device, read_only_compat=1 << 3))

# Journal


def _waiting(transactions: int = 1) -> Callable[[], Device]:
    return lambda: unclean(transactions)


def _flip_entry(device: Device, number: int) -> None:
    image = image_of(device)
    entry = journal_entries(image)[number]
    offset = (entry.position + 30) % image.geometry.journal_bytes
    flip(device, image.geometry.journal_start * image.block_bytes + offset)


def _lose_sector(device: Device, number: int) -> None:
    """Undo the write of the sector in which an entry ends."""
    image = image_of(device)
    write_journal(image, (journal_entries(image)[number].end - 1) // 512 * 512, bytes(512))


def _flip_padding(device: Device) -> None:
    image = image_of(device)
    write_journal(image, journal_entries(image)[-1].position + COMMIT_BYTES, b"\x01")


def _wrong_commit(device: Device) -> None:
    commit = JournalCommit.decode(journal_entries(image_of(device))[-1].redo)
    rewrite_entry(device, -1, redo=replace(commit, first_sequence=commit.first_sequence + 1).encode())


def _lose_root(device: Device) -> None:
    image = image_of(device)
    for block in filter(None, (image.superblock.root.address, image.superblock.root.mirror)):
        flip(device, block * image.block_bytes + 2000)


_edited("E0201", lambda device: None, start=_waiting())
_edited("E0202", lambda device: _lose_sector(device, -1), start=_waiting())
_edited("E0202", lambda device: _lose_sector(device, 4), start=_waiting())
_edited("E0203", lambda device: _flip_entry(device, 1), start=_waiting(3))
_edited("E0203", lambda device: _lose_sector(device, 1), start=_waiting(3))
_edited("E0203", lambda device: _flip_entry(device, -1), start=_waiting())


def _forget_magic(device: Device) -> None:
    """Wipe an entry's magic in a sector that also holds the whole entry before it: no torn write leaves that."""
    image = image_of(device)
    entries = journal_entries(image)
    pairs = pairwise(entries)
    after = next(after for before, after in pairs if before.position // 512 == (after.position + 61) // 512)
    write_journal(image, after.position, bytes(4))


def _break_chain(device: Device) -> None:
    """Change what an entry leaves, so that it is not what a later entry of the same key found."""
    entries = journal_entries(image_of(device))
    keys = [entry.head.key for entry in entries]
    number = next(number for number, key in enumerate(keys) if entries[number].redo and key in keys[number + 1 :])
    redo = entries[number].redo
    rewrite_entry(device, number, redo=redo[:40] + bytes([redo[40] ^ 1]) + redo[41:])


_edited("E0203", _forget_magic, start=_waiting())
_edited("E0204", _break_chain, start=_waiting(3))
_edited("E0204", lambda device: rewrite_entry(device, 0, operation=200), start=_waiting())
_edited("E0204", lambda device: rewrite_entry(device, 0, key=bytes(18)), start=_waiting())
_edited("E0205", _wrong_commit, start=_waiting())
_edited("E0206", _flip_padding, start=_waiting())
_edited("E0207", _lose_root, start=_waiting())
_edited("E0208", lambda device: write_superblocks(device, state=State.CLEAN), start=_waiting())


def _expect_another_entry(device: Device) -> None:
    expected = image_of(device).superblock.journal_sequence
    write_superblocks(device, backups=True, journal_sequence=expected + (1 << 32))


_edited("E0210", _expect_another_entry, start=_waiting())
_edited("E0210", _expect_another_entry, start=_waiting(3))
for _field in ("free_blocks", "inode_count", "directory_count"):
    _edited("E0807", lambda device, field=_field: write_superblocks(device, backups=True, **{field: 5}), start=_waiting())

# Nodes


def _nodes_of(device: Device, number: int) -> tuple[int, int]:
    index = indexed(device)
    return index.addresses[number], index.mirrors[number]


def _flip_copies(device: Device, *, first: bool, second: bool) -> None:
    address, mirror = _nodes_of(device, 3)
    if first:
        flip(device, address * 4096 + 500)
    if second:
        flip(device, mirror * 4096 + 500)


def _is_leaf(level: int, raw: bytes) -> bool:
    return level == 0


def _is_inner(level: int, raw: bytes) -> bool:
    return level == 1


def _set_header(raw: bytearray, **changes: object) -> None:
    header = NodeHeader(*NodeHeader.STRUCT.unpack_from(raw, 8))
    changed = replace(header, **changes)  # type: ignore[arg-type]
    raw[8 : 8 + NodeHeader.FIXED_BYTES] = changed.STRUCT.pack(*NodeHeader._FLATTEN(changed))


def _swap_keys(raw: bytearray) -> None:
    at = NODE_HEADER_BYTES
    raw[at : at + 18], raw[at + 18 : at + 36] = raw[at + 18 : at + 36], raw[at : at + 18]


def _first_key(raw: bytearray, key: bytes) -> None:
    raw[NODE_HEADER_BYTES : NODE_HEADER_BYTES + 18] = key


def _same_children(raw: bytearray) -> None:
    count = NodeHeader(*NodeHeader.STRUCT.unpack_from(raw, 8)).item_count
    at = NODE_HEADER_BYTES + count * (CHILD_BYTES - ChildPointer.FIXED_BYTES)
    size = ChildPointer.FIXED_BYTES
    raw[at + size : at + 2 * size] = raw[at : at + size]


@brings("E0302")
def a_node_without_a_mirror_damaged() -> Device:
    device = healthy(copies=1)
    flip(device, indexed(device).addresses[4] * 4096 + 700)
    return device


_edited("E0301", lambda device: _flip_copies(device, first=True, second=False))
_edited("E0302", lambda device: _flip_copies(device, first=True, second=True))
_edited("E0803", lambda device: _flip_copies(device, first=False, second=True))
_edited("E0302", lambda device: write_superblocks(device, root_level=40))
_edited("E0302", lambda device: write_superblocks(device, root=ChildPointer(1 << 50, 0, 1, 7)))
_edited("E0302", lambda device: write_superblocks(device, root=ChildPointer(10**9, 10**9, 1, 7)))


def _header(**changes: object) -> Callable[[Device], object]:
    return lambda device: rewrite_node(device, _is_leaf, lambda raw: _set_header(raw, **changes))


for _changes in ({"generation": 10**6}, {"tag": 5}, {"address": 3}, {"low": b"\7" * 18}, {"reserved": 1}, {"level": 3}):
    _edited("E0303", _header(**_changes))
_edited("E0302", lambda device: rewrite_node(device, _is_leaf, lambda raw: _set_header(raw, item_count=60_000)))
_edited("E0302", lambda device: rewrite_node(device, _is_leaf, lambda raw: _set_header(raw, used_bytes=1)))
_edited("E0304", lambda device: rewrite_node(device, _is_leaf, _swap_keys))
_edited("E0304", lambda device: rewrite_node(device, _is_inner, _swap_keys))
_edited("E0304", lambda device: rewrite_node(device, _is_leaf, lambda raw: _first_key(raw, b"\xfe" * 18)))
_edited("E0305", lambda device: rewrite_node(device, _is_inner, _same_children))

# Items and inodes


def _put(device: Device, key: bytes, value: bytes) -> None:
    with editing(device) as store:
        store.tree.put(key, value)


def _delete(device: Device, key: bytes) -> None:
    with editing(device) as store:
        store.tree.delete(key)


def _inode(path: str, **changes: object) -> Callable[[Device], None]:
    return lambda device: edit_inode(device, find_inode(device, path), **changes)


def _first(path: str, kind: Kind, **changes: object) -> Callable[[Device], None]:
    return lambda device: edit_item(device, first_item(device, find_inode(device, path), kind)[0], **changes)


def _counters(**changes: object) -> Callable[[Device], None]:
    return lambda device: edit_item(device, COUNTERS_KEY, **changes)


def _cut(path: str, kind: Kind) -> Callable[[Device], None]:
    def damage(device: Device) -> None:
        key, value = first_item(device, find_inode(device, path), kind)
        _put(device, key, value[:3])

    return damage


_edited("E0306", lambda device: _put(device, Key(1, 5, 0xE0, 0).encode(), b"?"))
_edited("E0306", lambda device: _put(device, Key(2, 5, Kind.INODE, 0).encode(), b"?"))
_edited("E0306", lambda device: _put(device, Key(1, 5, Kind.INODE, 77).encode(), b"?"))
for _kind in (Kind.INODE, Kind.INLINE_DATA, Kind.BACK_LINK):
    _edited("E0307", _cut("/small", _kind))
_edited("E0307", _cut("/docs", Kind.DIRECTORY_ENTRY))
_edited("E0307", _cut("/docs/many", Kind.DATA_RECORD))
_edited("E0307", lambda device: _put(device, COUNTERS_KEY, b"??"))
_edited("E0307", lambda device: _put(device, orphan_key(find_inode(device, "/small")), b""))
_edited("E0307", lambda device: _put(device, name_key(NameId(1)), b"?"))
_edited("E0308", lambda device: _delete(device, inode_key(find_inode(device, "/docs/one"))))
for _changes in (
    {"mode": 0o170644}, {"record_log2": 5}, {"record_log2": 200}, {"compression": 77}, {"compression_level": 99}, {"flags": 0x80},
    {"reserved": 1}, {"rdev": 7}, {"size": (1 << 64) - 1},
):  # fmt: skip
    _edited("E0309", _inode("/docs/one", **_changes))
_edited("E0309", _inode("/docs/deep/pipe", size=5))
_edited("E0309", _inode("/link", size=0))
for _number in (5, (1 << 64) - 1):  # the second was passed: no file could have been made any more
    _edited("E0310", _counters(next_inode=_number))
_edited("E0311", _first("/small", Kind.XATTR, flags=0x40))
_edited("E0311", _first("/small", Kind.XATTR, name_bytes=0))
_edited("E0311", lambda device: _put(device, xattr_key(find_inode(device, "/small"), 5), Xattr.inline(b"user.x", b"y").encode()))
_edited("E0311", lambda device: _put(device, xattr_key(find_inode(device, "/small"), 5), b"\1"))
_edited("E0312", _inode("/small", flags=0))
_edited("E0312", _inode("/docs/one", flags=1))
_edited("E0313", lambda device: _delete(device, inode_key(ROOT_INODE)))
_edited("E0313", lambda device: edit_inode(device, ROOT_INODE, mode=0o100644))
_edited("E0314", lambda device: _put(device, orphan_key(NOBODY), Orphan(1).encode()))
_edited("E0314", lambda device: _put(device, orphan_key(find_inode(device, "/small")), Orphan(1).encode()))
_edited("E0314", lambda device: _put(device, orphan_key(find_inode(device, "/small")), Orphan(9).encode()))
_edited("E0315", lambda device: _put(device, orphan_key(find_inode(device, "/small")), Orphan(2).encode()))
_edited("E0316", lambda device: _delete(device, COUNTERS_KEY))
_edited("E0317", _counters(inode_count=1))
_edited("E0317", lambda device: write_superblocks(device, directory_count=99))
_edited("E0318", _inode("/docs/one", link_count=0))

# Directories


def _entry_of(device: Device, path: str) -> tuple[bytes, DirectoryEntry]:
    parent, _, _ = path.rpartition("/")
    ino = find_inode(device, path)
    for key, value in all_items(device, find_inode(device, parent or "/"), Kind.DIRECTORY_ENTRY):
        if DirectoryEntry.decode(value).inode == ino:
            return key, DirectoryEntry.decode(value)
    raise AssertionError(path)


def _entry(path: str, **changes: object) -> Callable[[Device], None]:
    return lambda device: edit_item(device, _entry_of(device, path)[0], **changes)


def _far_name(device: Device, path: str) -> None:
    """Let a back link name a string whose number differs from the right one by 2^61 - 1."""
    key, value = first_item(device, find_inode(device, path), Kind.BACK_LINK)
    edit_item(device, key, name_id=BackLink.decode(value).name_id + (1 << 61) - 1)


def _move_entry(device: Device) -> None:
    key, entry = _entry_of(device, "/docs/one")
    with editing(device) as store:
        store.tree.delete(key)
        store.tree.put(entry_key(find_inode(device, "/docs"), HASH_MAX), entry.encode())


def _double_name(device: Device) -> None:
    key, entry = _entry_of(device, "/docs/one")
    other = find_inode(device, "/docs/many")
    again = (int.from_bytes(key, "big") + 1).to_bytes(18, "big")
    _put(device, again, replace(entry, inode=other, link_no=1).encode())


def _make_cycle(device: Device) -> None:
    """Move /docs into /docs/deep, entry and back link both."""
    docs, deep = find_inode(device, "/docs"), find_inode(device, "/docs/deep")
    key, entry = _entry_of(device, "/docs")
    with editing(device) as store:
        store.tree.delete(key)
        store.tree.put(key[:1] + deep.to_bytes(8, "big") + key[9:], entry.encode())
        store.tree.put(back_link_key(docs, entry.link_no), BackLink(deep, entry.name_id).encode())


def _second_name(device: Device) -> None:
    """Give /docs/deep a hard link."""
    deep = find_inode(device, "/docs/deep")
    _, entry = _entry_of(device, "/small")
    key, _ = _entry_of(device, "/link")
    with editing(device) as store:
        store.tree.put(key, replace(entry, inode=deep, link_no=9, file_type=4).encode())
        store.tree.put(back_link_key(deep, 9), BackLink(ROOT_INODE, entry.name_id).encode())


def _entry_in_a_file(device: Device) -> None:
    key, entry = _entry_of(device, "/docs/one")
    _put(device, key[:1] + find_inode(device, "/small").to_bytes(8, "big") + key[9:], entry.encode())


_edited("E0401", _inode("/docs/one", link_count=2))
_edited("E0401", _inode("/docs", link_count=9))
_edited("E0401", lambda device: edit_inode(device, ROOT_INODE, link_count=2))
_edited("E0402", _entry("/docs/one", inode=NOBODY))
_edited("E0403", _entry("/docs/one", link_no=44))
# Found by the field fuzz: Python's hash() of a number is the number modulo 2^61 - 1, so this one passed for the right one.
_edited("E0404", lambda device: _far_name(device, "/docs/one"))
_edited("E0403", lambda device: _delete(device, first_item(device, find_inode(device, "/docs/one"), Kind.BACK_LINK)[0]))
_edited("E0404", lambda device: _delete(device, _entry_of(device, "/docs/one")[0]))
_edited("E0405", _entry("/docs/one", file_type=4))
_edited("E0405", _entry("/docs/one", file_type=77))
_edited("E0406", _entry("/docs/one", name_id=10**9))
_edited("E0407", _move_entry)
_edited("E0408", _double_name)
_edited("E0409", _inode("/docs", size=50))
_edited("E0410", lambda device: _delete(device, _entry_of(device, "/docs/one")[0]))
_edited("E0411", _make_cycle)
_edited("E0412", _second_name)
_edited("E0413", _entry_in_a_file)
_edited("E0414", _inode("/small", next_link_no=1))

# File data and the space map


def _record(path: str, **changes: object) -> Callable[[Device], None]:
    return _first(path, Kind.DATA_RECORD, **changes)


def _steal_blocks(device: Device) -> None:
    _, value = first_item(device, find_inode(device, "/docs/one"), Kind.DATA_RECORD)
    key, _ = first_item(device, find_inode(device, "/docs/many"), Kind.DATA_RECORD)
    edit_item(device, key, address=DataRecord.decode(value).address)


def _rewrite_map_page(device: Device, edit: Callable[[bytearray], None]) -> None:
    image = image_of(device)
    page = next(iter(map_pages(image, image.superblock.spacemap_active, image.superblock.spacemap_top)))
    raw = bytearray(page.raw or b"")
    edit(raw)
    free = image.geometry.spacemap.group_blocks - int.from_bytes(raw, "little").bit_count()
    device.write(page.block * image.block_bytes, bytes(raw))
    top = SpaceMapEntry(crc32c.crc32c(bytes(raw)), free)
    rewrite_superblock(device, image.superblock.slot, image.block_bytes, spacemap_top=top, free_blocks=free)


def _set_bit(raw: bytearray, block: int, value: bool) -> None:
    raw[block // 8] = raw[block // 8] & ~(1 << block % 8) | value << block % 8


def _free_used_block(device: Device) -> None:
    _, value = first_item(device, find_inode(device, "/docs/one"), Kind.DATA_RECORD)
    _rewrite_map_page(device, lambda raw: _set_bit(raw, DataRecord.decode(value).address, False))


def _tell_free_count(device: Device) -> None:
    image = image_of(device)
    top = replace(image.superblock.spacemap_top, free_count=17)
    rewrite_superblock(device, image.superblock.slot, image.block_bytes, spacemap_top=top)


def _flip_map(device: Device, copy: int) -> None:
    image = image_of(device)
    active = image.superblock.spacemap_active
    flip(device, image.geometry.spacemap_starts[active if copy == 0 else 1 - active] * image.block_bytes + 40)


def _data_behind_the_end(device: Device) -> None:
    many = find_inode(device, "/docs/many")
    _, value = all_items(device, many, Kind.DATA_RECORD)[-1]
    _put(device, record_key(many, 900), value)


_edited("E0501", lambda device: _rewrite_map_page(device, lambda raw: _set_bit(raw, 300, True)))
_edited("E0501", lambda device: _delete(device, first_item(device, find_inode(device, "/docs/one"), Kind.DATA_RECORD)[0]))
_edited("E0502", _steal_blocks)
_edited("E0502", _record("/docs/one", address=3))
_edited("E0503", _free_used_block)
for _changes in (
    {"flags": 0x10}, {"raw_bytes": 0}, {"raw_bytes": 10**6}, {"stored_bytes": 0}, {"stored_bytes": (1 << 32) - 1},
    {"birth": 10**6}, {"address": 1 << 60}, {"address": 10**8}, {"more": b"123"}, {"more": bytes(12)},
    {"more": bytes(8) + b"\xff" * 4},
):  # fmt: skip
    _edited("E0504", _record("/docs/many", **_changes))
_edited("E0505", _data_behind_the_end)
_edited("E0505", _inode("/docs/many", size=100))
_edited("E0506", _inode("/docs/many", stored_blocks=3))
_edited("E0507", lambda device: _put(device, inline_key(find_inode(device, "/docs/deep/pipe")), InlineData(0, 1, b"a").encode()))
_edited("E0507", lambda device: _put(device, inline_key(find_inode(device, "/docs/one")), InlineData(0, 1, b"a").encode()))
_edited("E0507", lambda device: _delete(device, inline_key(find_inode(device, "/link"))))
_edited("E0507", _inode("/link", size=100))
_edited("E0507", _first("/small", Kind.INLINE_DATA, raw_bytes=10**6))
_edited("E0508", lambda device: _flip_map(device, 0))
_edited("E0509", _tell_free_count)
_edited("E0510", _counters(raw_bytes=1))
_edited("E0510", _counters(data_blocks=1))
_edited("E0511", lambda device: rewrite_superblock(device, image_of(device).superblock.slot, 4096, free_blocks=9))
_edited("E0512", lambda device: _flip_copies(device, first=True, second=True))
_edited("E0513", _record("/docs/many", flags=CHECKED_TWICE | CUT_OUT, crc32c=4711))
_edited("E0513", _record("/docs/many", flags=CUT_OUT, stored_bytes=0, more=b""))
_edited("E0514", lambda device: _flip_map(device, 1))


@brings("E0516")
def late_pages_that_the_inode_does_not_know_of() -> Device:
    device = late_paged()
    many = find_inode(device, "/docs/many")
    edit_inode(device, many, flags=0)
    return device


for _log2 in (12, 14, 17, 20):  # the records are of 2^13 bytes
    _edited("E0517", _inode("/docs/many", record_log2=_log2))
    _edited("E0517", _inode("/docs/deep/holes", record_log2=_log2))
_edited("E0517", _inode("/docs/one", record_log2=12))


# Patches


def _patch(device: Device, path: str = "/docs/many", offset: int = 8192, data: bytes = b"changed", reserved: int = 0) -> None:
    _put(device, patch_key(find_inode(device, path), offset), Patch(reserved, data).encode())


_edited("E0319", lambda device: _patch(device, offset=100))
_edited("E0319", lambda device: _patch(device, reserved=1))
_edited("E0319", lambda device: _patch(device, data=bytes(700)))
_edited("E0319", lambda device: _patch(device, data=b""))
_edited("E0319", lambda device: _put(device, patch_key(find_inode(device, "/docs/many"), 0), b""))
_edited("E0319", lambda device: _put(device, patch_key(NOBODY, 0), Patch(0, b"nobody's").encode()))
_edited("E0319", lambda device: _patch(device, path="/docs"))
_edited("E0319", lambda device: _patch(device, offset=1 << 40))

# Strings


def _name_of(device: Device, path: str) -> bytes:
    return name_key(NameId(_entry_of(device, path)[1].name_id))


_edited("E0601", lambda device: edit_item(device, _name_of(device, "/docs/one"), reference_count=9))
_edited("E0602", lambda device: _put(device, name_key(NameId(10**6)), Name(0, b"nobody").encode()))


def _named(text: bytes) -> Callable[[Device], object]:
    return lambda device: edit_item(device, _name_of(device, "/docs/one"), text=text)


for _text in (b"", b"a/b", b"a\0b", b"..", b"x" * 256):
    _edited("E0603", _named(_text))
for _number in (2, (1 << 64) - 1):
    _edited("E0604", _counters(next_name_id=_number))
_edited("E0605", _counters(name_count=2))

# Contents


def _restore(device: Device, stored: bytes, algorithm: int) -> None:
    """Let /docs/one hold *stored*, with a right checksum, where its data were."""
    key, value = first_item(device, find_inode(device, "/docs/one"), Kind.DATA_RECORD)
    before = DataRecord.decode(value)
    record, padded = make_record(before.runs(4096), stored, before.raw_bytes, algorithm, before.birth, 4096, twice=True)
    device.write(record.address * 4096, padded)
    edit_item(device, key, **{field.name: getattr(record, field.name) for field in DataRecord.FIELDS})


def _flip_data(device: Device) -> None:
    _, value = first_item(device, find_inode(device, "/docs/many"), Kind.DATA_RECORD)
    flip(device, DataRecord.decode(value).address * 4096 + 77)


class DeafDevice(Copy):
    """A device with a bad sector."""

    bad = range(0)

    def read(self, offset: int, length: int) -> bytes:
        if offset < self.bad.stop and offset + length > self.bad.start:
            raise DeviceFailed(f"bad sector at {self.bad.start}")
        return super().read(offset, length)


@brings("E0802")
def a_bad_sector_under_a_file() -> Device:
    device = healthy()
    _, value = first_item(device, find_inode(device, "/docs/many"), Kind.DATA_RECORD)
    deaf = DeafDevice(device)
    start = DataRecord.decode(value).address * 4096
    deaf.bad = range(start, start + 512)
    return deaf


@brings("E0302")
def a_bad_sector_under_a_node_without_mirror() -> Device:
    device = healthy(copies=1)
    deaf = DeafDevice(device)
    start = indexed(device).addresses[2] * 4096
    deaf.bad = range(start, start + 512)
    return deaf


@brings("E0804")
def a_damaged_node_that_the_replay_replaces() -> Device:
    device = unclean()
    image = image_of(device)
    flip(device, image.superblock.root.address * image.block_bytes + 3000)
    return device


_edited("E0701", lambda device: _restore(device, b"whatever", 99))
_edited("E0702", lambda device: _restore(device, b"this is no zstd frame", Algorithm.ZSTD))
_edited("E0702", lambda device: _restore(device, pack(b"too short", Algorithm.ZSTD), Algorithm.ZSTD))
_edited("E0702", lambda device: _restore(device, pack(b"too short", Algorithm.LZ4), Algorithm.LZ4))
_edited("E0703", _first("/small", Kind.INLINE_DATA, algorithm=1))
_edited("E0703", _first("/small", Kind.INLINE_DATA, algorithm=99))
_edited("E0704", lambda device: write_superblocks(device, incompat=KNOWN_INCOMPAT & ~int(Incompat.LZ4)))
_edited("E0704", lambda device: write_superblocks(device, incompat=KNOWN_INCOMPAT & ~int(Incompat.LATE_PAGES)), start=late_paged)
_edited("E0704", lambda device: write_superblocks(device, incompat=KNOWN_INCOMPAT & ~int(Incompat.SECOND_CHECKSUM)))
_edited("E0704", lambda device: write_superblocks(device, incompat=KNOWN_INCOMPAT & ~int(Incompat.STRING_TABLE)))


@brings("E0704")
def patches_that_nobody_announces() -> Device:
    device = healthy()
    _patch(device)
    write_superblocks(device, incompat=KNOWN_INCOMPAT & ~int(Incompat.PATCHES))
    return device


_edited("E0801", _flip_data)


def _deny_second(device: Device) -> None:
    key, value = first_item(device, find_inode(device, "/docs/many"), Kind.DATA_RECORD)
    edit_item(device, key, more=DataRecord.decode(value).checked_by(4711).more)


_edited("E0805", _deny_second)
_edited("E0806", _record("/docs/many", flags=CHECKED_TWICE | CUT_OUT))
_edited("E0806", _record("/docs/deep/by none", flags=CHECKED_TWICE | CUT_OUT))
