"""Rebuilding: a mountable tree of everything that can be read, on an image whose tree, root or superblocks are lost.

The survey says which leaf holds which keys. Leaves that are whole stay where they lie; the rest is packed into new ones, and
new levels are put above them. Space maps are computed from what the leaves name, and both superblock slots are written.

Invariants: nothing that can be read is overwritten, nor what the space map calls used, unless the image has no other room, and
then only inner nodes of the old tree; what is lost of a file is cut out, so that reading it is an error and not zeros; the
journal is left as it is, and what its transactions name stays free for its replay. The device is an overlay: what was rebuilt
counts when somebody writes it out.
"""

from collections.abc import Generator, Iterator
from dataclasses import dataclass, field, replace

from razortools.check.claims import Claims, bit_runs
from razortools.check.findings import Progress
from razortools.check.image import BLOCK_MASK, Image
from razortools.check.keynames import range_words
from razortools.check.map_rules import fixed_claims, map_pages
from razortools.check.repair.bulk import Item, NodeCounter, TreeWriter
from razortools.check.repair.coverage import Tile
from razortools.check.repair.gaps import Gap, cut_outs
from razortools.check.repair.secondhand import SecondHand, believe
from razortools.check.repair.stock import Stock, items_of, take_stock
from razortools.check.repair.survey import Survey, survey
from razortools.check.repair.waiting import Waiting, waiting_blocks
from razortools.check.scan import find_superblock
from razortools.check.steps import PARTS, scaled
from razortools.engine.store.device import Device
from razortools.engine.store.nodepool import NodePool
from razortools.engine.store.spacemaps import SpaceMaps
from razortools.engine.store.superblocks import backup_images, slot_image
from razortools.errors import CorruptImage, OutOfSpace
from razortools.format.geometry import geometry_of
from razortools.format.keys import KIND_AT, Kind, Table, object_of, table_range
from razortools.format.node import ChildPointer
from razortools.format.superblock import SLOT_COUNT, State, Superblock
from razortools.units import BlockNo, format_size

PROGRESS_STEP = 64  # leaves
TILES_AT_ONCE = 64  # packed together: what fills nodes well, and is done in a moment
_PATCHES_LOW = table_range(Table.PATCHES)[0]
GENERATION_MAX = 1 << 62  # a checkpoint each microsecond would take a hundred thousand years to get there


@dataclass(slots=True)
class RebuildResult:
    """What a rebuild found and did."""

    superblock: Superblock  # what is in the slots now
    kept_leaves: int = 0
    written_nodes: int = 0
    mended_nodes: int = 0  # in which one bit had flipped
    scanned_nodes: int = 0
    lost: list[Gap] = field(default_factory=list)
    older_inodes: list[int] = field(default_factory=list)  # taken from leaves that are older, or may be: they may be out of date
    uncertain_leaves: int = 0  # of which nothing tells whether they are the last ones of their keys
    inodes_told: int = 0  # by the superblock
    inodes_found: int = 0
    copies: int = 2  # of the nodes that were written

    @property
    def sentences(self) -> list[str]:
        """What there is to tell, for people."""
        told = [f"the tree was rebuilt: {self.kept_leaves} leaves stayed in place, {self.written_nodes} nodes were written"]
        if self.mended_nodes:
            told.append(f"nodes in which one flipped bit was turned back: {self.mended_nodes}")
        if self.inodes_found < self.inodes_told:
            told.append(f"of {self.inodes_told} files and directories that the superblock counts, {self.inodes_found} were found")
        if self.older_inodes:
            told.append(f"files that may be in an older state, without the last changes: {len(self.older_inodes)}")
        if self.uncertain_leaves:
            told.append(f"leaves of which nothing tells whether they are the last ones of their keys: {self.uncertain_leaves}")
        told += [f"a lost node held {range_words(gap.low, gap.high)}" for gap in self.lost]
        if self.superblock.state != State.CLEAN and any(gap.high > _PATCHES_LOW for gap in self.lost):
            told.append("a lost node may have held small changes that were synced right before the machine stopped")
        return told


@dataclass(frozen=True, slots=True)
class Examined:
    """What there is, before anything is written."""

    image: Image
    tiles: list[Tile]
    stock: Stock
    seen: Survey
    waiting: Waiting
    result: RebuildResult


@dataclass(frozen=True, slots=True)
class _Piece:
    """A leaf that stays (*tiles* has one, and it is whole), or tiles whose items go into new leaves together."""

    tiles: tuple[Tile, ...]
    stays: bool


@dataclass(frozen=True, slots=True)
class _Way:
    """Where new nodes may go, the careful way first."""

    spares_old_nodes: bool
    copies: int


@dataclass(frozen=True, slots=True)
class _Spared:
    """What is not the new tree's, but is not to be overwritten either."""

    nodes: list[tuple[int, int]]  # of the old tree
    marked: dict[int, int]  # blocks that the old space map calls used, as bitmaps by group


def rebuild(device: Device) -> Generator[Progress, None, RebuildResult]:
    """Rebuild the filesystem on *device*, an overlay.

    Raises NotAnImage, UnsupportedFormat, CorruptImage if the device is too short, OutOfSpace if there is no room for a new tree.
    After an exception the overlay is of no use.
    """
    found = yield from scaled(examine(device), 0, 850)
    yield from scaled(_write(found), 850, PARTS)
    return found.result


def examine(device: Device) -> Generator[Progress, None, Examined]:
    """Find out what a rebuilt tree would hold. Writes nothing but nodes in which a bit was turned back. Raises as rebuild()."""
    found = yield from scaled(find_superblock(device), 0, 100)
    image = Image(device, found.superblock, geometry_of(found.superblock))
    if device.size_bytes < found.superblock.block_count * image.block_bytes:
        raise CorruptImage(f"{device.name}: is truncated, so it cannot be rebuilt in place; copy the files out with --salvage")
    tiles, seen = yield from scaled(survey(image), 100, 800)
    stock = yield from scaled(take_stock(image, tiles), 800, PARTS)
    result = RebuildResult(found.superblock, mended_nodes=seen.mended, scanned_nodes=seen.scanned)
    result.inodes_told = image.superblock.inode_count
    waiting = waiting_blocks(image)
    _fill_gaps(image, tiles, stock, waiting, result)
    return Examined(image, tiles, stock, seen, waiting, result)


def _fill_gaps(image: Image, tiles: list[Tile], stock: Stock, waiting: Waiting, result: RebuildResult) -> None:
    """Put into the gaps what older leaves are believed about, and cut out what is lost of the files at their edges.

    Not for files that the journal deletes: it deletes what it knows, and would leave what was put beside that.
    """
    second = believe(image, tiles, stock) if stock.gaps else SecondHand()
    result.older_inodes = sorted((second.older_inodes | stock.uncertain) - waiting.deleted)
    result.uncertain_leaves = stock.uncertain_leaves
    inline = {object_of(key) for key in second.items if key[KIND_AT] == Kind.INLINE_DATA}
    for gap in stock.gaps.values():
        items = dict(cut_outs(gap, image.superblock.generation, inline))
        items.update((key, value) for key, value in second.items.items() if gap.low <= key < gap.high)
        deleted = {key for key in items if key[0] == Table.FILES and object_of(key) in waiting.deleted}
        gap.items = sorted((key, items[key]) for key in items.keys() - deleted)
        for key, value in gap.items:
            if key[KIND_AT] == Kind.INODE:
                stock.count_inode(value)
        result.lost.append(gap)
    result.inodes_found = stock.inode_count


def _pieces(tiles: list[Tile], gaps: dict[bytes, Gap]) -> list[_Piece]:
    """Return the pieces of the new tree. A gap in which nothing is to stand goes to the leaf before it, or behind it."""
    stays = [tile.is_whole for tile in tiles]
    for number, tile in enumerate(tiles):
        if tile.leaf is None and not gaps[tile.low].items:
            stays[number - 1 if number else min(1, len(tiles) - 1)] = False
    pieces: list[_Piece] = []
    packed: list[Tile] = []
    for tile, stay in zip(tiles, stays, strict=True):
        if packed and (stay or len(packed) == TILES_AT_ONCE):
            pieces.append(_Piece(tuple(packed), stays=False))
            packed = []
        if stay:
            pieces.append(_Piece((tile,), stays=True))
        else:
            packed.append(tile)
    if packed:
        pieces.append(_Piece(tuple(packed), stays=False))
    return pieces


def _write(found: Examined) -> Generator[Progress, None, None]:
    """Write the new tree, the space map and the superblocks the most careful way for which there is room."""
    image, stock, result = found.image, found.stock, found.result
    pieces = _pieces(found.tiles, stock.gaps)
    counter = NodeCounter(image.geometry)
    yield from scaled(_plant(image, pieces, stock, counter), 0, 400)
    wished = image.superblock.metadata_copies if image.superblock.metadata_copies in (1, 2) else 1
    ways = [_Way(True, wished), _Way(False, wished), _Way(False, 1)]
    needed = counter.written * image.geometry.node_blocks
    for way in ways:
        spared = _Spared(found.seen.inner, _marked_pages(image)) if way.spares_old_nodes else _Spared([], {})
        maps = _space(image, pieces, stock, found.waiting, spared)
        if maps.free_blocks < needed * way.copies:
            continue
        try:
            yield from scaled(_carry_out(image, pieces, stock, maps, way, result), 400, PARTS)
        except OutOfSpace:  # enough blocks, but not enough of them side by side
            continue
        return
    raise OutOfSpace(
        f"{image.device.name}: there is no room for a new tree: {format_size(needed * image.block_bytes)} are needed in nodes of "
        f"{format_size(image.geometry.node_bytes)}; copy the files out with --salvage"
    )


def _carry_out(
    image: Image, pieces: list[_Piece], stock: Stock, maps: SpaceMaps, way: _Way, result: RebuildResult
) -> Generator[Progress, None, None]:
    pool = NodePool(maps, image.geometry, way.copies)
    generation = _next_generation(image, pieces)
    writer = TreeWriter(image.device, image.geometry, pool, image.tag, generation)
    root, level = yield from _plant(image, pieces, stock, writer)
    writes, top, free_blocks = maps.encode_checkpoint(pool.runs())
    for offset, data in writes:
        image.device.write(offset, data)
    superblock = replace(
        image.superblock,
        root=root,
        root_level=level,
        spacemap_active=1 - maps.active,
        spacemap_top=top,
        free_blocks=free_blocks,
        node_count=writer.node_count,
        inode_count=stock.inode_count,
        directory_count=stock.directory_count,
    )
    # Both slots: the older one would lead to the old tree, which is broken.
    for number in range(SLOT_COUNT):
        superblock = replace(superblock, generation=generation + number)
        offset, data = slot_image(superblock)
        image.device.write(offset, data.ljust(image.block_bytes, b"\0"))
    for offset, data in backup_images(superblock, image.geometry):
        image.device.write(offset, data.ljust(image.block_bytes, b"\0"))
    result.superblock = superblock
    result.kept_leaves, result.written_nodes, result.copies = writer.kept, writer.written, way.copies


def _next_generation(image: Image, pieces: list[_Piece]) -> int:
    """Return a generation behind all others. One that is close to the end of numbers is damage, and the leaves tell better."""
    told = image.superblock.generation
    if told >= GENERATION_MAX:
        leaves = [tile.leaf.pointer.generation for piece in pieces for tile in piece.tiles if tile.leaf is not None]
        told = max((generation for generation in leaves if generation < GENERATION_MAX), default=0)
    return told + 1


def _plant(
    image: Image, pieces: list[_Piece], stock: Stock, writer: NodeCounter
) -> Generator[Progress, None, tuple[ChildPointer, int]]:
    """Hand the pieces to *writer* in order; return the root and its level."""
    for number, piece in enumerate(pieces):
        if number % PROGRESS_STEP == 0 or not piece.stays:
            yield Progress(number, len(pieces))
        first, last = piece.tiles[0], piece.tiles[-1]
        if piece.stays:
            assert first.leaf is not None
            writer.keep(first.low, first.leaf.pointer)
        else:
            writer.span(first.low, last.high, _items(image, piece, stock))
    return writer.finish()


def _items(image: Image, piece: _Piece, stock: Stock) -> Iterator[Item]:
    for tile in piece.tiles:
        if tile.leaf is None:
            yield from stock.gaps[tile.low].items
        else:
            yield from items_of(image, tile, tile.leaf)


def _marked_pages(image: Image) -> dict[int, int]:
    """Return the bitmaps of what the old space map calls used, as far as it can be read.

    Data of files whose items are lost are among it. Nothing names them any more, but as long as there is room they need not be
    overwritten: another tool, or a hand, may find them.
    """
    superblock = image.superblock
    pages = map_pages(image, superblock.spacemap_active & 1, superblock.spacemap_top)
    return {page.index: int.from_bytes(page.raw, "little") for page in pages if page.level == 0 and page.raw is not None}


def _space(image: Image, pieces: list[_Piece], stock: Stock, waiting: Waiting, spared: _Spared) -> SpaceMaps:
    """Return the space map of the new tree, and keep new nodes away from what is to be spared but is not the tree's any more."""
    blocks = image.geometry.node_blocks
    used, kept_away = Claims(image.geometry.spacemap), Claims(image.geometry.spacemap)
    for piece in pieces:
        for tile in piece.tiles:
            if tile.leaf is not None:
                for place in {tile.leaf.block, tile.leaf.pointer.address & BLOCK_MASK, tile.leaf.pointer.mirror & BLOCK_MASK}:
                    if place and image.holds(place, blocks):
                        (used if piece.stays else kept_away).claim(place, blocks)
    for claims, runs in ((used, waiting.freed), (kept_away, waiting.placed), (kept_away, spared.nodes)):
        for first, count in runs:
            if image.holds(first, count):
                claims.claim(first, count)
    maps = SpaceMaps(image.device, image.geometry)
    maps.active = image.superblock.spacemap_active & 1
    fixed = fixed_claims(image)
    for group in used.groups.keys() | stock.data.groups.keys() | kept_away.groups.keys() | spared.marked.keys():
        base = group * image.geometry.spacemap.group_blocks
        never, data, nodes, spare = (
            int.from_bytes(claims.page(group), "little") for claims in (fixed, stock.data, used, kept_away)
        )
        for first, last in bit_runs((data | nodes) & ~never):
            maps.mark_used(BlockNo(base + first), last - first + 1)
        spare |= spared.marked.get(group, 0)
        for first, last in bit_runs(spare & ~(data | nodes | never)):
            maps.mark_used(BlockNo(base + first), last - first + 1)
            maps.unclaimed[BlockNo(base + first)] = last - first + 1
    return maps
