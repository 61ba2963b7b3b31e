"""Phase 5: file data blocks. Verifies which blocks each file names, and that the space map says the same.

Every block of the image belongs to a fixed part, a tree node, a data record or a large extended attribute, or is free. The pass
claims them one by one: what is claimed twice, claimed outside, used without a claim, or claimed without being marked used is a
finding. The contents of the blocks are read by the later phases.
"""

from collections.abc import Generator, Iterator

from razortools.check import problems
from razortools.check.claims import Claims
from razortools.check.facts import DataFacts, InodeFacts, SuperblockFacts
from razortools.check.findings import Event, Finding, Progress
from razortools.check.image import Image
from razortools.check.keynames import bytes_words, item_words, record_range
from razortools.check.map_check import judge_map, judge_spare_map
from razortools.check.map_rules import fixed_claims
from razortools.check.owners import judge_shared
from razortools.check.paths import Paths
from razortools.check.record_lengths import lengths_of
from razortools.check.record_rules import content_fault, record_fault
from razortools.check.tree import kinds_mask
from razortools.errors import CorruptImage
from razortools.format.data import CUT_OUT, LATE, RECORD_BYTES_MAX, RECORD_LOG2, DataRecord, InlineData
from razortools.format.inode import FileType, Inode, InodeFlag, OrphanReason
from razortools.format.items import owned_record
from razortools.format.keys import Kind, Table, object_of, offset_of
from razortools.format.superblock import State
from razortools.units import InodeNo

PROGRESS_STEP = 64  # leaves
NODES_STEP = 16_384  # of those that are only claimed
CONTENT_KINDS = kinds_mask(Kind.INODE, Kind.XATTR, Kind.INLINE_DATA, Kind.DATA_RECORD)


def check(superblocks: SuperblockFacts, facts: InodeFacts, *, has_map: bool = True) -> Generator[Event, None, DataFacts]:
    """Judge what the files name, then the space map, unless it is not there (not *has_map*): that of an image in use changes."""
    image = facts.tree.image
    paths = Paths(facts.tree)
    claims = fixed_claims(image)
    yield from _claim_nodes(image, facts, claims)
    contents = _Contents(facts, paths, claims)
    yield from contents.read()
    if claims.has_shared:
        yield from judge_shared(facts, paths, claims)
    if facts.tree.is_whole:
        if has_map:
            yield from judge_map(image, claims)
        else:
            yield problems.MAP_NOT_KEPT.found(where="space map")
        yield from contents.judge_counters()
    else:
        yield problems.SPACE_NOT_JUDGED.found(where="space map")
    # Only at rest: a checkpoint that was cut short leaves the spare map half written, and rightly so.
    truth = superblocks.image.superblock
    if superblocks.other is not None and truth.state == State.CLEAN:
        yield from judge_spare_map(superblocks.image, superblocks.other)
    sizes = zip(facts.types, facts.sizes, strict=True)
    file_bytes = sum(size for kind, size in sizes if kind == FileType.REGULAR)
    raw_bytes = contents.raw_bytes + contents.inline_bytes
    return DataFacts(contents.records, raw_bytes, contents.stored_bytes, file_bytes, contents.breaks)


def _claim_nodes(image: Image, facts: InodeFacts, claims: Claims) -> Iterator[Progress]:
    blocks = image.geometry.node_blocks
    for addresses in (facts.tree.addresses, facts.tree.mirrors):
        for number, address in enumerate(addresses):
            if number % NODES_STEP == 0:
                yield Progress(0, facts.tree.leaf_count)
            if address and image.holds(address, blocks):
                claims.claim(address, blocks)


class _Contents:
    """The records of the files while they go by."""

    def __init__(self, facts: InodeFacts, paths: Paths, claims: Claims) -> None:
        self.facts = facts
        self.image = facts.tree.image
        self.paths = paths
        self.claims = claims
        self.records = 0
        self.raw_bytes = 0  # of data records, as the counters count
        self.inline_bytes = 0
        self.stored_bytes = 0
        self.blocks = 0
        self.breaks = 0
        self._end = -1  # block behind the record before, -1 at the start of a file
        self._number = 0
        self._inode: Inode | None = None
        self._blocks = 0  # of the current inode
        self._kinds: set[int] = set()  # of content that the current inode has
        self._first_record = False
        self._is_told = False  # that its flag does not tell of late pages
        self._is_size_judged = False  # whether its records agree with another record size
        self._raw_bytes = 0  # of the current inode, inline data included

    def read(self) -> Iterator[Event]:
        """Judge all items that hold contents."""
        tree = self.facts.tree
        for leaf, (keys, values) in tree.leaves(CONTENT_KINDS):
            if leaf % PROGRESS_STEP == 0:
                yield Progress(leaf, tree.leaf_count)
            for key, value in zip(keys, values, strict=True):
                if key[0] != Table.FILES or not CONTENT_KINDS >> (key[9] >> 4) & 1:
                    continue
                number = object_of(key)
                if number != self._number:
                    yield from self._finish()
                    self._start(number)
                yield from self._item(key, value)
        yield from self._finish()

    def _start(self, number: int) -> None:
        self._number = number
        self._inode = None
        self._end = -1
        self._blocks = 0
        self._kinds = set()
        self._first_record = False
        self._is_told = False
        self._is_size_judged = False
        self._raw_bytes = 0

    def _item(self, key: bytes, value: bytes) -> Iterator[Finding]:
        kind = key[9]
        try:
            if kind == Kind.INODE:
                self._inode = Inode.decode(value)
                return
            if kind != Kind.XATTR:
                self._kinds.add(kind)
            if kind == Kind.INLINE_DATA:
                yield from self._inline(key, InlineData.decode(value))
                return
            record = owned_record(key, value)
        except (CorruptImage, IndexError) as broken:
            if kind in (Kind.DATA_RECORD, Kind.INLINE_DATA):  # the inode pass has told of the others
                path = self.paths.of(self._number)
                yield problems.ITEM_SHAPE.found(inode=self._number, what=item_words(key), reason=broken, path=path, key=key)
            return
        if record is not None:
            yield from self._record(key, record)

    def _inline(self, key: bytes, inline: InlineData) -> Iterator[Finding]:
        self.inline_bytes += inline.raw_bytes
        self._raw_bytes += inline.raw_bytes
        self.stored_bytes += len(inline.stored)
        yield from self._judge_record_size(key, inline.raw_bytes)
        limit = self._inode.record_bytes if self._inode is not None and self._inode.record_log2 < 32 else RECORD_BYTES_MAX
        if not 0 < inline.raw_bytes <= limit:
            reason = f"its inline data says that it has {inline.raw_bytes} bytes, 1 to {limit} are possible"
            path = self.paths.of(self._number)
            yield problems.CONTENT_WRONG.found(inode=self._number, reason=reason, path=path, key=key)

    def _record(self, key: bytes, record: DataRecord) -> Iterator[Finding]:
        inode, number = self._inode, self._number
        is_data = key[9] == Kind.DATA_RECORD
        blocks = record.block_count(self.image.block_bytes)
        self.blocks += blocks
        self._blocks += blocks
        self.stored_bytes += blocks * self.image.block_bytes
        if is_data:
            self.records += 1
            self.raw_bytes += record.raw_bytes
            self._raw_bytes += record.raw_bytes
            self._first_record |= offset_of(key) == 0
            yield from self._judge_record_size(key, record.raw_bytes)
        reason = record_fault(self.image, record, inode, is_data=is_data)
        if reason:
            yield self._wrong(key, reason)
        else:
            end = self._end if is_data else -1
            for first, count in record.runs(self.image.block_bytes):
                self.claims.claim(first, count)
                self.breaks += first != end >= 0
                end = first + count
            self._end = end if is_data else -1
        if record.flags & LATE and is_data and inode is not None and not inode.flags & InodeFlag.LATE_PAGES:
            if not self._is_told:
                yield problems.LATE_FLAG.found(inode=number, path=self.paths.of(number))
            self._is_told = True
        if record.flags & CUT_OUT:
            yield problems.CUT_OUT.found(inode=number, what=self._words(key), path=self.paths.of(number), key=key)
        if inode is None or not is_data or inode.record_log2 >= 32:
            return
        if self._lies_behind(inode, key):
            path = self.paths.of(number)
            yield problems.BEYOND_END.found(inode=number, what=item_words(key), size=inode.size, path=path, key=key)

    def _judge_record_size(self, key: bytes, raw_bytes: int) -> Iterator[Finding]:
        """Judge the record size of the current inode if contents contradict it; what follows is judged by the right one."""
        inode, number = self._inode, InodeNo(self._number)
        if inode is None or inode.record_log2 not in RECORD_LOG2 or self._is_size_judged:
            return
        if raw_bytes <= inode.record_bytes and not self._lies_behind(inode, key):
            return
        self._is_size_judged = True
        agreed = lengths_of(self.facts.tree, number).agreed_log2(inode.size)
        if agreed is not None and agreed != inode.record_log2:
            path, told = self.paths.of(number), inode.record_bytes
            yield problems.RECORD_SIZE.found(inode=number, value=told, agreed=1 << agreed, path=path)
            inode.record_log2 = agreed

    def _lies_behind(self, inode: Inode, key: bytes) -> bool:
        """Return whether a record of the current inode lies behind its end, and does not wait to be cut off."""
        return offset_of(key) * inode.record_bytes >= inode.size and self._number not in self.facts.orphans

    def _wrong(self, key: bytes, reason: str) -> Finding:
        byte_range = None
        if self._inode is not None and key[9] == Kind.DATA_RECORD and self._inode.record_log2 < 32:
            byte_range = record_range(self._inode, offset_of(key))
        return problems.RECORD_FIELD.found(
            inode=self._number, what=self._words(key), reason=reason, path=self.paths.of(self._number), key=key,
            where=bytes_words(byte_range) if byte_range else "", byte_range=byte_range,
        )  # fmt: skip

    def _words(self, key: bytes) -> str:
        return f"{item_words(key)} of inode {self._number}"

    def _finish(self) -> Iterator[Finding]:
        """Judge an inode once all its contents went by."""
        inode, number = self._inode, self._number
        if inode is None or self.facts.orphans.get(number) == OrphanReason.UNLINKED:
            return
        if inode.stored_blocks != self._blocks:
            yield problems.STORED_BLOCKS.found(
                inode=number, value=inode.stored_blocks, counted=self._blocks, path=self.paths.of(number)
            )
        reason = content_fault(inode, self._kinds, self._raw_bytes, has_first_record=self._first_record)
        if reason:
            yield problems.CONTENT_WRONG.found(inode=number, reason=reason, path=self.paths.of(number))

    def judge_counters(self) -> Iterator[Finding]:
        """Compare the volume's counters with what was counted."""
        counters = self.facts.counters
        if counters is None:
            return
        for field, value, counted in (
            ("raw_bytes", counters.raw_bytes, self.raw_bytes),
            ("data_blocks", counters.data_blocks, self.blocks),
        ):
            if value != counted:
                yield problems.DATA_COUNT.found(where="counters", field=field, value=value, counted=counted)
