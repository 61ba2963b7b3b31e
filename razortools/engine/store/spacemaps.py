"""Space maps: which blocks are free, in memory as wide integers, on the device as two checksummed copies.

Four kinds of blocks are in use in memory but free in what is written, because the tree that is the truth does not name them:
*pending* (freed since the last checkpoint: reusable only when the next one is stable), *unclaimed* (placed, but not yet in the
tree), the node pool's (see nodepool), and *pinned* (freed while somebody looks at an earlier checkpoint, see pins).
Invariants: a block is handed out once until it is freed; a page written to the device tells exactly what the checkpoint's tree
uses; a copy of the map is only written while the other one is the truth.
"""

import re
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate, chain

import crc32c

from razortools.engine.store.device import Device
from razortools.engine.store.packed_runs import PackedRuns
from razortools.engine.store.pins import Pins
from razortools.errors import CorruptImage, OutOfSpace
from razortools.format.data import Run, joined
from razortools.format.geometry import Geometry
from razortools.format.spacemap import FREE_COUNT_MAX, NEVER_WRITTEN, SpaceMapEntry
from razortools.format.superblock import Superblock
from razortools.units import BlockNo

GROUPS_IN_MEMORY = 4096  # clean bitmap pages kept: 16 MiB at most
SIDE_BY_SIDE_GROUPS = 2  # searched for what would be good to lie together: requests wait meanwhile
_ENTRY = SpaceMapEntry.STRUCT
_ONES = re.compile("1+")


class SpaceMaps:
    """Allocation of blocks. One owner: the store."""

    def __init__(self, device: Device, geometry: Geometry) -> None:
        """Make the map of an empty image, in which only the fixed parts are used; load() reads a real one."""
        shape = geometry.spacemap
        self.device = device
        self.geometry = geometry
        self.shape = shape
        self.group_blocks = shape.group_blocks
        self.group_count = shape.level_pages[0]
        self._bits: dict[int, int] = {}  # group -> bitmap, bit 1: in use
        self._checksums = [array("I", bytes(4 * pages)) for pages in shape.level_pages]
        self._free_told = [array("I", [NEVER_WRITTEN]) * pages for pages in shape.level_pages]
        self._stale: tuple[set[int], set[int]] = (set(), set())  # groups that copy A, copy B does not tell rightly
        self._fixed: dict[int, int] = {}  # group -> bits of the fixed parts and of what lies behind the image's end
        self._note_fixed_parts()
        self.free = array("I", (self._virgin_free(group) for group in range(self.group_count)))
        self.free_blocks = sum(self.free)
        self.active = 0
        self.pending = PackedRuns()  # freed, but still named by the last checkpoint
        self.pending_blocks = 0
        self.unclaimed: dict[BlockNo, int] = {}  # placed runs that no item names yet
        self.pins = Pins()
        self._cursor = BlockNo(0)

    def load(self, superblock: Superblock) -> None:
        """Take over the map that *superblock* names. Raises CorruptImage if an index page is damaged."""
        self.active = superblock.spacemap_active
        top = len(self.shape.level_pages) - 1
        self._checksums[top][0] = superblock.spacemap_top.crc32c
        self._free_told[top][0] = superblock.spacemap_top.free_count
        for level in range(top, 0, -1):
            for index in range(self.shape.level_pages[level]):
                if self._free_told[level][index] != NEVER_WRITTEN:
                    self._load_index(level, index)
        for group, told in enumerate(self._free_told[0]):
            if told != NEVER_WRITTEN:
                self.free[group] = told
        self.free_blocks = sum(self.free)
        # What the other copy holds is not known to be right: all that was ever written must be written there too.
        other = 1 - self.active
        self._stale[other].update(group for group, told in enumerate(self._free_told[0]) if told != NEVER_WRITTEN)

    def take_over(self, groups: Mapping[int, bytes | bytearray]) -> None:
        """Take over bitmaps that were computed from a tree; what is not among *groups* is free but for the fixed parts.

        For whoever repairs an image: nothing of what the device holds is believed, and both copies are to be written.
        """
        for group, page in groups.items():
            bits = int.from_bytes(page, "little") | self._fixed.get(group, 0)
            self._bits[group] = bits
            self.free[group] = self.group_blocks - bits.bit_count()
            self._stale[0].add(group)
            self._stale[1].add(group)
        self.free_blocks = sum(self.free)

    def allocate(self, block_count: int) -> list[Run]:
        """Return runs of *block_count* blocks in all, one run where the image allows. Raises OutOfSpace, taking nothing."""
        if block_count > self.free_blocks:
            raise OutOfSpace(f"no space left: {block_count} blocks wanted, {self.free_blocks} free")
        start = self.allocate_run(block_count, self._cursor)
        if start is not None:
            self._cursor = BlockNo(start + block_count)
            return [(start, block_count)]
        return self._allocate_pieces(block_count)

    def allocate_run(self, block_count: int, near: int, groups_max: int | None = None) -> BlockNo | None:
        """Return the first block of a free run, searched from *near* onwards and around, or None.

        No more than *groups_max* groups are searched of those that have so many free blocks at all.
        """
        first_group, offset = divmod(min(near, self.geometry.block_count - 1), self.group_blocks)
        searched_count = 0
        for step in range(self.group_count + 1):
            group = (first_group + step) % self.group_count
            if self.free[group] < block_count:
                continue
            if searched_count == groups_max:
                return None
            searched_count += 1
            place = _find_run(self._free_bits(group), block_count, offset if step == 0 else 0)
            if place is not None:
                start = BlockNo(group * self.group_blocks + place)
                self._use(start, block_count)
                return start
        return None

    def _allocate_pieces(self, block_count: int) -> list[Run]:
        """Gather *block_count* free blocks in pieces as long as possible. The caller knows that there are enough."""
        runs: list[Run] = []
        piece = block_count
        try:
            while block_count:
                piece = min(piece, block_count)
                start = self.allocate_run(piece, 0)
                if start is None:
                    piece //= 2
                    assert piece, "the count of free blocks and the bitmap disagree"
                    continue
                runs.append((start, piece))
                block_count -= piece
        except BaseException:  # a page of the map may have to be read
            for start, count in runs:
                self.free_now(start, count)
            raise
        return runs

    def free_later(self, runs: Iterable[Run]) -> None:
        """Free blocks that the last checkpoint names: usable again once the next one is stable."""
        freed = list(runs)
        self.pending.add(freed)
        self.pending_blocks += sum(count for _, count in freed)
        for start, count in joined(freed):
            self.mark_stale(start, count)

    def free_now(self, start: BlockNo, count: int) -> None:
        """Free blocks that no checkpoint and no journal entry names."""
        for group, offset, length in self._by_group(start, count):
            bits = self._group(group)
            mask = ((1 << length) - 1) << offset
            assert bits & mask == mask, f"blocks freed twice: {length} at {group * self.group_blocks + offset}"
            self._bits[group] = bits & ~mask
            self.free[group] += length
            self.free_blocks += length
            self._stale[0].add(group)
            self._stale[1].add(group)

    def may_hold(self, run: Run) -> bool:
        """Return whether *run* lies where items may have blocks: in the image, and in no fixed part of it."""
        start, count = run
        if count <= 0 or start + count > self.geometry.block_count:
            return False
        return not any(
            self._fixed.get(group, 0) & ((1 << length) - 1) << offset for group, offset, length in self._by_group(start, count)
        )

    def mark_used(self, start: BlockNo, count: int) -> None:
        """Take blocks that a replayed transaction names. Raises CorruptImage if one is in use already, or nobody can have it."""
        if not self.may_hold((start, count)):
            raise CorruptImage(f"the journal names blocks that no file can have: {count} at {start}; run razorfsck")
        for group, offset, length in self._by_group(start, count):
            if self._group(group) & (((1 << length) - 1) << offset):
                raise CorruptImage(f"the journal names blocks that are in use: {count} at {start}; run razorfsck")
        self._use(start, count)

    def release_pending(self, runs: PackedRuns) -> None:
        """Make *runs*, which a stable checkpoint does not name any more, usable, or pinned. They are the oldest pending ones."""
        self.pending.drop_oldest(runs)
        for start, count in chain.from_iterable(runs.pieces()):  # a bitmap is copied for each
            self.pending_blocks -= count
            if not self.pins.is_set:
                self.free_now(start, count)
                continue
            for group, offset, length in self._by_group(start, count):
                self.pins.keep(group, offset, length)

    def unpin(self, holder: object = None) -> bool:
        """Let go what is pinned for *holder*, or for everybody. Return whether anything is free by that: nobody else looks at it.

        The checkpoint that is the truth does not name these blocks, and says so, so they can be used at once.
        """
        kept = self.pins.remove(holder)
        for group, bits in kept.items():
            count = bits.bit_count()
            self._bits[group] = self._group(group) & ~bits
            self.free[group] += count
            self.free_blocks += count
            self._stale[0].add(group)
            self._stale[1].add(group)
        return bool(kept)

    def place(self, block_count: int) -> list[Run]:
        """Allocate runs that an item will name soon. Raises OutOfSpace."""
        runs = self.allocate(block_count)
        self.unclaimed.update(runs)
        return runs

    def place_each(self, counts: Sequence[int]) -> list[list[Run]]:
        """Do what place() does for each of *counts*, side by side where the image allows. Raises OutOfSpace, taking nothing."""
        if not counts:
            return []
        start = self.allocate_run(sum(counts), self._cursor, SIDE_BY_SIDE_GROUPS)
        if start is None:
            placed: list[list[Run]] = []
            try:
                placed.extend(self.place(count) for count in counts)
            except BaseException:
                self.unplace(run for runs in placed for run in runs)
                raise
            return placed
        starts = [BlockNo(start + before) for before in accumulate(counts, initial=0)]
        self._cursor = starts.pop()
        self.unclaimed.update(zip(starts, counts, strict=True))
        return [[run] for run in zip(starts, counts, strict=True)]

    def unplace(self, runs: Iterable[Run]) -> None:
        """Give back placed runs that no item names."""
        for start, count in runs:
            assert self.unclaimed.pop(start) == count
            self.free_now(start, count)

    def claim(self, runs: Iterable[Run]) -> None:
        """An item names these runs now."""
        for start, count in runs:
            self.unclaimed.pop(start, None)
            self.mark_stale(start, count)

    def unclaim(self, runs: Iterable[Run]) -> None:
        """The item that named these runs was rolled back."""
        for start, count in runs:
            self.unclaimed[start] = count
            self.mark_stale(start, count)

    def encode_checkpoint(self, unused: Iterable[Run]) -> tuple[list[tuple[int, bytes]], SpaceMapEntry, int]:
        """Return (writes as (offset, bytes), entry of the top page, free blocks) that bring the inactive copy up to date.

        *unused* are runs in use in memory that the checkpoint's tree does not name (the node pool); pending and unclaimed ones
        are known here. Call switch() once the superblock that names the copy is stable.
        """
        target = 1 - self.active
        hidden = self._hidden_bits(unused)
        writes: list[tuple[int, bytes]] = []
        stale = self._stale[target] | hidden.keys()
        parents: set[int] = set()
        for group in sorted(stale):
            bits = self._group(group) & ~(hidden.get(group, 0) | self.pins.bits(group))
            raw = bits.to_bytes(self.shape.block_bytes, "little")
            if self._tell(0, group, raw, self.group_blocks - bits.bit_count()):
                self._stale[1 - target].add(group)
            writes.append((self._page_offset(target, 0, group), raw))
            parents.add(group // self._fan_out)
        for level in range(1, len(self.shape.level_pages)):
            writes += [self._encode_index(target, level, index) for index in sorted(parents)]
            parents = {index // self._fan_out for index in parents}
        self._stale[target].clear()
        self._drop_clean_groups()
        top = SpaceMapEntry(self._checksums[-1][0], self._free_told[-1][0])
        return writes, top, self.free_blocks + self.pins.block_count + sum(bits.bit_count() for bits in hidden.values())

    def switch(self) -> None:
        """The copy written last is the truth from now on."""
        self.active = 1 - self.active

    def is_used(self, block: BlockNo) -> bool:
        """Return whether *block* is in use in memory."""
        group, offset = divmod(block, self.group_blocks)
        return bool(self._group(group) >> offset & 1)

    def free_runs(self) -> Iterator[Run]:
        """Yield the runs of blocks that are free in memory, in order, each as long as it is."""
        start, count = 0, 0
        for group in range(self.group_count):
            bits = self._bits.get(group)
            used = self._load_group(group) if bits is None else bits
            for place, length in _ones(used ^ ((1 << self.group_blocks) - 1)):
                first = group * self.group_blocks + place
                if count and first != start + count:
                    yield BlockNo(start), count
                    start, count = first, 0
                start = start if count else first
                count += length
        if count:
            yield BlockNo(start), count

    def free_parts(self, start: BlockNo, count: int) -> list[Run]:
        """Return what of a run is free in memory and in the image at all. No piece lies in two groups."""
        parts: list[Run] = []
        for group, offset, length in self._by_group(start, max(min(count, self.geometry.block_count - start), 0)):
            free = ~self._group(group) >> offset & ((1 << length) - 1)
            first = group * self.group_blocks + offset
            parts += [(BlockNo(first + place), some) for place, some in _ones(free)]
        return parts

    @property
    def _fan_out(self) -> int:
        return self.shape.block_bytes // _ENTRY.size

    def _use(self, start: int, count: int) -> None:
        for group, offset, length in self._by_group(start, count):
            self._bits[group] = self._group(group) | ((1 << length) - 1) << offset
            self.free[group] -= length
            self.free_blocks -= length
            self._stale[0].add(group)
            self._stale[1].add(group)

    def mark_stale(self, start: int, count: int) -> None:
        """What is to be written of these blocks has changed, in both copies."""
        groups = range(start // self.group_blocks, (start + count - 1) // self.group_blocks + 1)
        self._stale[0].update(groups)
        self._stale[1].update(groups)

    def _by_group(self, start: int, count: int) -> Iterable[tuple[int, int, int]]:
        """Yield (group, offset in it, length) of a run."""
        while count:
            group, offset = divmod(start, self.group_blocks)
            length = min(count, self.group_blocks - offset)
            yield group, offset, length
            start += length
            count -= length

    def _hidden_bits(self, unused: Iterable[Run]) -> dict[int, int]:
        hidden: dict[int, int] = {}
        for start, count in chain(unused, chain.from_iterable(self.pending.pieces()), self.unclaimed.items()):
            for group, offset, length in self._by_group(start, count):
                hidden[group] = hidden.get(group, 0) | ((1 << length) - 1) << offset
        return hidden

    def _note_fixed_parts(self) -> None:
        parts = self.geometry.fixed_extents()
        end = self.geometry.block_count
        parts.append((BlockNo(end), self.group_count * self.group_blocks - end))
        for start, count in parts:
            for group, offset, length in self._by_group(start, count):
                self._fixed[group] = self._fixed.get(group, 0) | ((1 << length) - 1) << offset

    def _virgin_free(self, group: int) -> int:
        return self.group_blocks - self._fixed.get(group, 0).bit_count()

    def _group(self, group: int) -> int:
        """Return the bitmap of *group*, read and verified if it is not in memory."""
        bits = self._bits.get(group)
        if bits is None:
            bits = self._bits[group] = self._load_group(group)
        return bits

    def _free_bits(self, group: int) -> int:
        return self._group(group) ^ ((1 << self.group_blocks) - 1)

    def _load_group(self, group: int) -> int:
        if self._free_told[0][group] == NEVER_WRITTEN:
            return self._fixed.get(group, 0)
        raw = self._read_page(0, group)
        bits = int.from_bytes(raw, "little")
        if self.group_blocks - bits.bit_count() != self._free_told[0][group]:
            raise CorruptImage(f"space map: page {group} and its count of free blocks disagree; run razorfsck")
        return bits

    def _load_index(self, level: int, index: int) -> None:
        raw = self._read_page(level, index)
        below = index * self._fan_out
        for number, (checksum, told) in enumerate(_ENTRY.iter_unpack(raw)):
            if below + number < len(self._checksums[level - 1]):
                self._checksums[level - 1][below + number] = checksum
                self._free_told[level - 1][below + number] = told

    def _read_page(self, level: int, index: int) -> bytes:
        offset = self._page_offset(self.active, level, index)
        raw = self.device.read(offset, self.shape.block_bytes)
        if crc32c.crc32c(raw) != self._checksums[level][index]:
            raise CorruptImage(
                f"{self.device.name}: space map, level {level}, page {index} at byte {offset}: wrong checksum; "
                f"unmount and run razorfsck --repair"
            )
        return raw

    def _page_offset(self, copy: int, level: int, index: int) -> int:
        return (self.geometry.spacemap_starts[copy] + self.shape.page_place(level, index)) * self.shape.block_bytes

    def _tell(self, level: int, index: int, raw: bytes, free_count: int) -> bool:
        """Note what a page holds now; return whether that is something new, so that the other copy is out of date."""
        before = self._checksums[level][index], self._free_told[level][index]
        after = crc32c.crc32c(raw), min(free_count, FREE_COUNT_MAX)
        self._checksums[level][index], self._free_told[level][index] = after
        return before != after

    def _encode_index(self, target: int, level: int, index: int) -> tuple[int, bytes]:
        below = range(index * self._fan_out, min((index + 1) * self._fan_out, len(self._checksums[level - 1])))
        checksums, told = self._checksums[level - 1], self._free_told[level - 1]
        raw = b"".join(_ENTRY.pack(checksums[number], told[number]) for number in below)
        raw += _ENTRY.pack(0, NEVER_WRITTEN) * (self._fan_out - len(below))
        free_count = sum(told[number] for number in below if told[number] != NEVER_WRITTEN)
        self._tell(level, index, raw, free_count)
        return self._page_offset(target, level, index), raw

    def _drop_clean_groups(self) -> None:
        if len(self._bits) <= GROUPS_IN_MEMORY:
            return
        # A group is clean when what was told of it last is what memory holds; told means: it can be read again.
        for group in [group for group in self._bits if group not in self._stale[0] and group not in self._stale[1]]:
            if self._free_told[0][group] == self.free[group]:
                del self._bits[group]


def _ones(bits: int) -> Iterator[tuple[int, int]]:
    """Yield (place, length) of the runs of ones in *bits*, the lowest first."""
    return ((found.start(), found.end() - found.start()) for found in _ONES.finditer(format(bits, "b")[::-1]))


def _find_run(free_bits: int, count: int, start: int) -> int | None:
    """Return the lowest position from *start* on with *count* bits set, or None. Halving: log2(count) wide shifts."""
    have = 1
    while have < count and free_bits:
        step = min(have, count - have)
        free_bits &= free_bits >> step
        have += step
    rest = free_bits >> start
    if not rest:
        return None
    return start + (rest & -rest).bit_length() - 1
