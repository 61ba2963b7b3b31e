"""Taking stock: what the leaves that are left name, and what is known of the files at the edges of what is lost."""

from bisect import bisect_right
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from itertools import pairwise

from razortools.check.claims import Claims
from razortools.check.findings import Progress
from razortools.check.image import Image
from razortools.check.repair.bulk import Item
from razortools.check.repair.coverage import Leaf, Tile
from razortools.check.repair.gaps import Gap, Owner
from razortools.check.repair.survey import item_runs
from razortools.check.scan import read_items
from razortools.errors import CorruptImage, DeviceFailed
from razortools.format.data import DataRecord
from razortools.format.keys import KIND_AT, Kind, Table, object_of, offset_of

PROGRESS_STEP = 64  # tiles
_FILES, _INODE = int(Table.FILES), int(Kind.INODE)
_OF_FILES = (_FILES, int(Table.PATCHES))
_OWNING = (int(Kind.DATA_RECORD), int(Kind.XATTR))
_ENTRY, _LINK = int(Kind.DIRECTORY_ENTRY), int(Kind.BACK_LINK)
_HIGHEST = (1 << 64) - 1
_RAW_AT = next(field.offset for field in DataRecord.FIELDS if field.name == "raw_bytes")


@dataclass(slots=True)
class Stock:
    """What there is. Filled by take_stock(), then only read, but for what stands in the gaps."""

    data: Claims
    gaps: dict[bytes, Gap] = field(default_factory=dict)  # by first key
    inode_count: int = 0
    directory_count: int = 0
    leaf_count: int = 0
    wanted: set[int] = field(default_factory=set)  # inodes that entries lead to and that would stand in gaps
    named: set[int] = field(default_factory=set)  # names that are used and would stand in gaps
    uncertain_leaves: int = 0  # the newest that were found, but perhaps not the last
    uncertain: set[int] = field(default_factory=set)  # inodes of which a part stands in these

    def count_inode(self, value: bytes) -> None:
        """Count an inode, and whether it is a directory."""
        self.inode_count += 1
        self.directory_count += int.from_bytes(value[:4], "little") & 0o170000 == 0o040000


def take_stock(image: Image, tiles: list[Tile]) -> Generator[Progress, None, Stock]:
    """Read all leaves once."""
    stock = Stock(Claims(image.geometry.spacemap))
    current = Owner(0)
    missing = {table: _missing(tiles, table) for table in (Table.FILES, Table.NAMES)}
    gap: Gap | None = None
    for number, tile in enumerate(tiles):
        if number % PROGRESS_STEP == 0:
            yield Progress(number, len(tiles))
        if tile.leaf is None:
            gap = stock.gaps[tile.low] = Gap(tile)
            if tile.low[0] == _FILES and current.number == object_of(tile.low):
                gap.before = current
            continue
        stock.leaf_count += 1
        stock.uncertain_leaves += not tile.leaf.is_certain
        for key, value in items_of(image, tile, tile.leaf):
            if key[0] == _FILES and object_of(key) != current.number:
                current = Owner(object_of(key))
            if gap is not None:
                gap.after = current if key[0] == _FILES else None
                gap = None
            if not tile.leaf.is_certain and key[0] in _OF_FILES:
                stock.uncertain.add(object_of(key))
            _note(image, stock, current, key, value)
            if key[KIND_AT] == _ENTRY:
                _note_use(missing[Table.FILES], stock.wanted, value[0:8])
                _note_use(missing[Table.NAMES], stock.named, value[8:16])
            elif key[KIND_AT] == _LINK:
                _note_use(missing[Table.NAMES], stock.named, value[8:16])
    return stock


def _missing(tiles: list[Tile], table: Table) -> list[tuple[int, int]]:
    """Return (first, last) of the objects of a table of which something may stand in what is lost."""
    found = []
    for tile in tiles:
        if tile.leaf is None and tile.low[0] <= table <= tile.high[0]:
            first = object_of(tile.low) if tile.low[0] == table else 0
            found.append((first, object_of(tile.high) if tile.high[0] == table else _HIGHEST))
    return found


def _note_use(missing: list[tuple[int, int]], uses: set[int], raw: bytes) -> None:
    if missing:
        number = int.from_bytes(raw, "little")
        place = bisect_right(missing, (number, _HIGHEST)) - 1
        if place >= 0 and number <= missing[place][1]:
            uses.add(number)


def _note(image: Image, stock: Stock, current: Owner, key: bytes, value: bytes) -> None:
    kind = key[KIND_AT]
    if kind in _OWNING:
        runs = item_runs(image, key, value)
        for first, count in runs:
            stock.data.claim(first, count)
        if key[0] == _FILES:
            current.blocks += sum(count for _, count in runs)
            if kind == Kind.DATA_RECORD:
                current.has_records = True
                current.last_record = offset_of(key)
                current.last_raw_bytes = int.from_bytes(value[_RAW_AT : _RAW_AT + 4], "little")
    elif kind == _INODE and key[0] == _FILES:
        current.value = value
        stock.count_inode(value)


def items_of(image: Image, tile: Tile, leaf: Leaf) -> Iterator[Item]:
    """Yield the items of *leaf* that lie in *tile*, in order, each key once. What cannot be read any more is left out."""
    try:
        keys, values = read_items(image, leaf.block, leaf.pointer)
    except (CorruptImage, DeviceFailed, ValueError):
        return
    before = b""
    items: Iterator[Item] = zip(keys, values, strict=True)
    if any(a >= b for a, b in pairwise(keys)):
        items = iter(sorted(items, key=lambda item: item[0]))
    for key, value in items:
        if tile.low <= key < tile.high and key != before:
            yield key, value
        before = key
