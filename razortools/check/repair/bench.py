"""The bench: an overlay over the image on which a repair works, round by round.

Invariants: what is spared (check/repair/spared.py) is not overwritten, so that the old view and the new one are both whole until
the slots are written; a round that does more than mend bits in their places ends with a frame (space map, counters, superblocks)
that is computed from the tree; the same edits on the same image give the same bytes.
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import crc32c

from razortools.check.image import BLOCK_MASK, Image
from razortools.check.loss import LOST_AND_FOUND
from razortools.check.repair.dropped import Dropped, dropped_after
from razortools.check.repair.edits import IN_PLACE, Edit, Verb
from razortools.check.repair.fields import set_field
from razortools.check.repair.journal import drop_leftovers, pending, replay, scanned
from razortools.check.repair.node_shape import shaped
from razortools.check.repair.plan_nodes import verified_leaf
from razortools.check.repair.rebuild import rebuild
from razortools.check.repair.spared import Spared
from razortools.check.repair.superblock_copies import mended_at, settle
from razortools.check.repair.surveying import Survey, believed, merged, owned, survey
from razortools.check.steps import finished
from razortools.engine.store.nodes import Node
from razortools.engine.store.pages import OverlayDevice
from razortools.engine.store.spacemaps import SpaceMaps
from razortools.engine.store.store import Store
from razortools.errors import CorruptImage, OutOfSpace
from razortools.format.admin import AdminEntry
from razortools.format.data import CHECKED_TWICE, blocks_crc32
from razortools.format.keys import COUNTERS_KEY, KIND_AT, Kind, object_of
from razortools.format.layout import layout_fault
from razortools.format.node import ITEM_OVERHEAD_BYTES, ChildPointer
from razortools.format.spacemap import SpaceMapEntry
from razortools.format.superblock import SUPERBLOCK_BYTES, State, Superblock
from razortools.format.xattr import Xattr

NODES_IN_MEMORY_BYTES = 64 << 20


class Bench:
    """Where the rounds of one repair are applied."""

    def __init__(self, overlay: OverlayDevice, backup_block: int | None = None) -> None:
        """Lay out the work over *overlay*, which shows the image as it is. *backup_block*: believe this superblock."""
        self.overlay = overlay
        self._backup_block = backup_block  # until the superblocks say all the same
        self.older_inodes: set[int] = set()  # found by a rebuild in an older state
        self.remarks: list[str] = []  # what else there is to tell of a rebuild
        self.inodes_told = 0  # by the superblock from which a rebuild started
        self.inodes_found = 0
        self.inodes_counted = 0  # as inodes_told, but before the first rebuild
        self._inodes_missing = 0  # that no rebuild has found
        self._made: set[int] = set()  # inodes that later rounds have made of what is left of a file
        self.dropped = Dropped()  # of the journal
        self.may_drop = True  # transactions that were safe, without an edit that says so
        self._spared = Spared()
        self._base: Superblock | None = None  # of the view that the first full round starts from
        self._mended_from: int | None = None  # the generation at which something was mended in its place first
        self._generation = 0  # of everything that this repair writes into the tree
        facts = believed(overlay, backup_block)
        if facts is not None:
            self._spared.add_view(facts.image)

    def apply(self, edits: Sequence[Edit]) -> None:
        """Apply one round. Raises OutOfSpace, and CorruptImage where an edit does not fit."""
        self._mend(edits)
        if believed(self.overlay, self._backup_block) is None and any(edit.verb is Verb.REBUILD for edit in edits):
            self._rebuild()
            return
        truth = self._superblock(edits)
        in_place = all(edit.verb in IN_PLACE for edit in edits)
        # The older of the two slots that are written must not be older than the root that it names.
        if in_place and self._mended_from is None:
            self._mended_from = truth.generation
        settle(self.overlay, replace(truth, generation=(self._mended_from or 0) + 1) if in_place else truth)
        self._backup_block = None
        self._raw(truth, edits)
        if in_place:
            return  # the frame waits until the check has seen what there is now
        if self._base is None:
            # Rounds that mend in place are no generations of their own: the frame is two behind what was there at first.
            self._base = truth if self._mended_from is None else replace(truth, generation=self._mended_from)
            self._generation = self._base.generation + 1
            self._spared.add_view(self._image())
        self._spared.add_records(self._image(), edits)
        if any(edit.verb is Verb.REBUILD for edit in edits):
            self._rebuild()
            self._generation = max(self._generation, self._image().superblock.generation)
        self._adopt({edit.block or 0 for edit in edits if edit.verb is Verb.ADOPT})
        self._replay(edits)
        self._items([edit for edit in edits if edit.verb in _ITEM_VERBS])
        self._recount()
        self._seal(self._base)

    @property
    def inodes_missing(self) -> int:
        """How many files and directories the superblock counted that are not there now, as far as rebuilds tell."""
        return max(self._inodes_missing - len(self._made), 0)

    def _image(self) -> Image:
        facts = believed(self.overlay, self._backup_block)
        if facts is None:
            raise CorruptImage(f"{self.overlay.name}: no superblock can be believed; only a rebuild can help")
        return facts.image

    def _mend(self, edits: Sequence[Edit]) -> None:
        """Turn back the one wrong bit of superblocks."""
        for edit in edits:
            mended = mended_at(self.overlay, edit.block or 0) if edit.verb is Verb.MEND else None
            if mended is not None:
                self.overlay.write((edit.block or 0) * SUPERBLOCK_BYTES, mended.encode())

    def _superblock(self, edits: Sequence[Edit]) -> Superblock:
        """Return the truth with the edits of its fields."""
        truth = self._image().superblock
        for edit in edits:
            if edit.verb is Verb.SUPERBLOCK:
                changed: dict[str, Any] = {edit.field: _field_value(edit)}
                truth = replace(truth, **changed)
        fault = layout_fault(truth)
        if fault:
            raise CorruptImage(f"{self.overlay.name}: with these fields of the superblock {fault}")
        return truth

    def _raw(self, truth: Superblock, edits: Sequence[Edit]) -> None:
        """Mend blocks in their places."""
        for edit in edits:
            if edit.verb is Verb.COPY and edit.block is not None and edit.source is not None:
                good = self.overlay.read(edit.source * truth.block_bytes, truth.node_bytes)
                self.overlay.write(edit.block * truth.block_bytes, good)
            elif edit.verb is Verb.FLIP and edit.block is not None and isinstance(edit.value, int):
                offset = edit.block * truth.block_bytes + edit.value // 8
                byte = self.overlay.read(offset, 1)[0] ^ 1 << edit.value % 8
                self.overlay.write(offset, bytes([byte]))

    def _store(self, image: Image) -> tuple[Store, Survey]:
        """Open the tree for raw edits; nodes and data that are written go where nothing lies, old or new."""
        found = survey(image)
        store = Store(self.overlay, image.superblock, metadata_cache_bytes=NODES_IN_MEMORY_BYTES)
        store.maps.active = image.superblock.spacemap_active
        store.maps.take_over(merged(self._spared.groups, found.claims.groups))
        return store, found

    def _replay(self, edits: Sequence[Edit]) -> None:
        image = self._image()
        wanted = next((edit.value for edit in edits if edit.verb is Verb.REPLAY), None)
        scan = scanned(image)
        if wanted is None and not scan.transactions:
            return
        believe = pending(image, scan)
        chosen = believe if not isinstance(wanted, int) else believe[:wanted]
        dropped = dropped_after(image, scan, len(chosen))
        if dropped.transactions and wanted is None and not self.may_drop:
            raise CorruptImage(
                f"the plan has no line that replays the journal, and what waits in it would be lost: transactions that cannot "
                f"be replayed: {dropped.transactions}; keep the line"
            )
        if dropped.transactions:
            self.dropped = dropped
        store, _ = self._store(image)
        replay(store, image, scan, chosen)
        self._write(store)
        drop_leftovers(self._image())

    def _rebuild(self) -> None:
        result = finished(rebuild(self.overlay))
        self.older_inodes |= set(result.older_inodes)
        self.remarks += result.sentences
        self.inodes_told, self.inodes_found = result.inodes_told, result.inodes_found
        self.inodes_counted = self.inodes_counted or result.inodes_told
        self._inodes_missing += max(result.inodes_told - result.inodes_found, 0)
        self._backup_block = None

    def _adopt(self, blocks: set[int]) -> None:
        """Write the leaves at *blocks* anew, with the number of items that makes sense of them."""
        if not blocks:
            return
        store, found = self._store(self._image())
        for place in found.tree.lost:
            raw = verified_leaf(found.image, place) if place.pointer.address & BLOCK_MASK in blocks else None
            items = shaped(raw, place) if raw is not None else None
            ref = store.tree.find(place.low, 0) if items is not None and _come_near(store, place.low) else None
            if items is None or ref is None:
                continue
            store.nodes.drop(ref)  # it may have been taken in before its table of values was looked at
            leaf = Node(0, place.low, place.high)
            leaf.keys, leaf.values = items
            leaf.used = sum(map(len, leaf.values)) + ITEM_OVERHEAD_BYTES * len(leaf.keys)
            store.nodes.adopt(ref, leaf)
            store.tree.put(leaf.keys[0], leaf.values[0])  # what is changed is written anew
            reserve(store)
        self._write(store)

    def _items(self, edits: Sequence[Edit]) -> None:
        if not edits:
            return
        store, _ = self._store(self._image())
        for edit in edits:
            self._item(store, edit)
            reserve(store)
        self._write(store)

    def _item(self, store: Store, edit: Edit) -> None:
        """Change one item of the tree. Blocks are not accounted for: the frame does that."""
        if edit.verb is Verb.PUT and isinstance(edit.value, bytes):
            if len(edit.value) > store.tree.value_bytes_max:
                raise CorruptImage(f"an item of {len(edit.value)} bytes does not fit into a node")
            if edit.key[KIND_AT] == Kind.INODE and edit.path != LOST_AND_FOUND and store.tree.get(edit.key) is None:
                self._made.add(object_of(edit.key))
            store.tree.put(edit.key, edit.value)
            return
        if edit.verb is Verb.DELETE:
            store.tree.delete(edit.key)
            return
        value = store.tree.get(edit.key)
        if value is None:
            return  # an edit before it was taken out of the plan, or it went with another one
        if edit.verb is Verb.SET:
            assert isinstance(edit.value, int | bytes)
            store.tree.put(edit.key, set_field(edit.key, value, edit.field, edit.value))
        else:
            store.tree.put(edit.key, self._moved(store, edit.key, value))

    def _moved(self, store: Store, key: bytes, value: bytes) -> bytes:
        """Copy the blocks of a record to free ones; return its item's value."""
        record = owned(key, value)
        if record is None:
            return value
        stored = store.read_record(record)
        runs = store.maps.allocate(record.block_count(store.block_bytes))
        padded = stored + bytes(-len(stored) % store.block_bytes)
        moved = replace(record.placed(runs), crc32c=crc32c.crc32c(padded))
        if record.flags & CHECKED_TWICE:
            moved = moved.checked_by(blocks_crc32(padded))
        store.write_blocks(runs, padded)
        if key[9] == Kind.DATA_RECORD:
            return moved.encode()
        return Xattr.outside(Xattr.decode(value).name, moved).encode()

    def _recount(self) -> None:
        """Let the volume's counters say what was counted."""
        found = survey(self._image())
        if found.tree.is_whole and found.told != found.counted:
            store, _ = self._store(found.image)
            store.tree.put(COUNTERS_KEY, found.counted.encode())
            reserve(store)
            self._write(store)

    def _write(self, store: Store) -> None:
        """Write the tree. However often that is done, the repair is one generation and the frame one more.

        So no copy of the superblock is ever further behind than a power cut between two checkpoints would leave it: while the
        result is written out, the slots hold the old view, that view marked one generation later, and the new one after that.
        """
        store.superblock = replace(store.superblock, generation=self._generation - 1)
        store.checkpoint(store.superblock.written_at_ns)
        settle(self.overlay, store.superblock)

    def _seal(self, base: Superblock) -> None:
        """Write the frame: the map into the copy that the old view does not use, both slots, the backups."""
        image = self._image()
        truth, found = image.superblock, survey(image)
        pages = {group: bytes(page) for group, page in found.claims.groups.items()}
        if not found.tree.is_whole:
            pages = merged(self._spared.groups, pages)
        for start in image.geometry.spacemap_starts:
            self.overlay.forget(start * image.block_bytes, image.geometry.spacemap.page_count * image.block_bytes)
        maps = SpaceMaps(self.overlay, image.geometry)
        maps.take_over(pages)
        maps.active = base.spacemap_active & 1
        writes, top, free_blocks = maps.encode_checkpoint(())
        for offset, data in writes:
            self.overlay.write(offset, data)
        sealed = replace(
            truth,
            generation=self._generation + 1,
            state=State.CLEAN,
            error_count=0,
            spacemap_active=1 - maps.active,
            spacemap_top=top,
            free_blocks=free_blocks,
            inode_count=found.counted.inode_count,
            directory_count=found.counted.directory_count,
            node_count=len(found.tree.addresses),
        )
        settle(self.overlay, sealed)


_EMBEDDED: dict[str, Any] = {
    "root": ChildPointer, "spacemap_top": SpaceMapEntry, "admin_last": AdminEntry, "admin_before": AdminEntry,
}  # fmt: skip
_ITEM_VERBS = frozenset((Verb.PUT, Verb.DELETE, Verb.SET, Verb.MOVE))


def _come_near(store: Store, key: bytes) -> bool:
    """Load the nodes above the leaf of *key*, which itself cannot be read; return whether that could be done."""
    with suppress(CorruptImage):
        store.tree.get(key)
    return store.tree.find(key, 0) is not None


def reserve(store: Store) -> None:
    """Take room for what the tree has become. Raises OutOfSpace."""
    if not store.room.holds_tree():
        raise OutOfSpace(
            f"{store.device.name}: there is no free space left in the image to repair it with; enlarge it, or use --salvage"
        )


def _field_value(edit: Edit) -> object:
    """Return the value of a superblock's field as the record holds it."""
    if isinstance(edit.value, tuple):
        return _EMBEDDED[edit.field](*edit.value)
    return edit.value
