"""The bench: an overlay over the image on which a repair works, round by round.

Invariants: what the image's own superblocks name is not overwritten, unless it does not verify, so that the old view and the new
one are both whole until the slots are written; each round ends with a frame (space map, counters, superblocks) that is
computed from the tree; the same edits on the same image give the same bytes.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from razortools.check.claims import Claims
from razortools.check.image import Image
from razortools.check.repair.edits import Edit, Verb
from razortools.check.repair.fields import set_field
from razortools.check.repair.journal import drop_leftovers, pending, replay, transactions_of
from razortools.check.repair.rebuilding import rebuild_quietly
from razortools.check.repair.superblock_copies import settle
from razortools.check.repair.surveying import Survey, believed, claim_runs, marked, merged, owned, survey
from razortools.check.superblock_rules import layout_fault
from razortools.engine.store.device import OverlayDevice
from razortools.engine.store.spacemaps import SpaceMaps
from razortools.engine.store.store import Store
from razortools.errors import CorruptImage, OutOfSpace
from razortools.format.data import DataRecord, make_record
from razortools.format.geometry import geometry_of
from razortools.format.keys import COUNTERS_KEY, Kind
from razortools.format.node import ChildPointer
from razortools.format.spacemap import SpaceMapEntry
from razortools.format.superblock import State, Superblock
from razortools.format.xattr import Xattr

NODES_IN_MEMORY_BYTES = 64 << 20


class Bench:
    """Where the rounds of one repair are applied."""

    def __init__(self, overlay: OverlayDevice, backup_block: int | None = None) -> None:
        """Lay out the work over *overlay*, which shows the image as it is. *backup_block*: believe this superblock."""
        self.overlay = overlay
        facts = believed(overlay, backup_block)
        self.base: Superblock | None = None
        self._kept: dict[int, bytes] = {}  # blocks that the old view names: group -> bitmap
        self._is_first = True
        if facts is not None:
            self._take_base(facts.image)

    def _take_base(self, image: Image) -> None:
        """Note what the old view names."""
        self.base = image.superblock
        found = survey(image)
        claims = found.claims
        for transaction in transactions_of(image):
            for entry in transaction.entries:
                record = owned(entry.head.key, entry.redo) if entry.redo is not None else None
                if record is not None:
                    _claim_record(claims, image, record)
        self._kept = {group: bytes(page) for group, page in claims.groups.items()}
        if not found.tree.is_whole:  # what the lost part named is known to the map only
            self._kept = merged(self._kept, marked(image))

    def apply(self, edits: Sequence[Edit]) -> None:
        """Apply one round. Raises OutOfSpace, and CorruptImage where an edit does not fit."""
        if self.base is None:
            if all(edit.verb is not Verb.REBUILD for edit in edits):
                raise CorruptImage(f"{self.overlay.name}: no superblock can be believed; only a rebuild can help")
            self._rebuild()
            return
        truth = self._superblock(self._now(), edits)
        settle(self.overlay, truth)
        self._raw(truth, edits)
        if any(edit.verb is Verb.REBUILD for edit in edits):
            self._rebuild()
        if self._is_first:
            self._replay(edits)
            self._is_first = False
        self._items([edit for edit in edits if edit.verb in _ITEM_VERBS])
        self._recount()
        self._seal(_state_after(edits))

    def _now(self) -> Superblock:
        facts = believed(self.overlay)
        if facts is None:
            raise CorruptImage(f"{self.overlay.name}: no superblock can be believed")
        return facts.image.superblock

    def _image(self) -> Image:
        truth = self._now()
        return Image(self.overlay, truth, geometry_of(truth))

    def _superblock(self, truth: Superblock, edits: Sequence[Edit]) -> Superblock:
        """Return the truth with the edits of its fields."""
        assert self.base is not None
        if self._is_first:
            truth = self.base
        for edit in edits:
            if edit.verb is Verb.SUPERBLOCK:
                changed: dict[str, Any] = {edit.field: _field_value(edit)}
                truth = replace(truth, **changed)
        fault = layout_fault(truth)
        if fault:
            raise CorruptImage(f"{self.overlay.name}: with these fields of the superblock {fault}")
        if self._is_first and truth != self.base:
            self._take_base(Image(self.overlay, truth, geometry_of(truth)))
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
        store.maps.take_over(merged(self._kept, found.claims.groups))
        return store, found

    def _replay(self, edits: Sequence[Edit]) -> None:
        image = self._image()
        wanted = next((edit.value for edit in edits if edit.verb is Verb.REPLAY), None)
        if wanted is None and not transactions_of(image):
            return
        believe = pending(image)
        chosen = believe if not isinstance(wanted, int) else believe[:wanted]
        store, _ = self._store(image)
        replay(store, image, chosen)
        self._write(store)
        drop_leftovers(self._image())

    def _rebuild(self) -> None:
        rebuild_quietly(self.overlay)
        if self.base is None:
            facts = believed(self.overlay)
            if facts is None:
                raise CorruptImage(f"{self.overlay.name}: the scan found nothing of which a filesystem could be made")
            self._take_base(facts.image)

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
        moved, padded = make_record(runs, stored, record.raw_bytes, record.algorithm, record.birth, store.block_bytes)
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
        store.checkpoint(store.superblock.written_at_ns)

    def _seal(self, state: State) -> None:
        """Write the frame: the map into the copy that the old view does not use, both slots, the backups."""
        assert self.base is not None
        image = self._image()
        truth, found = image.superblock, survey(image)
        pages = {group: bytes(page) for group, page in found.claims.groups.items()}
        if not found.tree.is_whole:
            pages = merged(self._kept, pages)
        for start in image.geometry.spacemap_starts:
            self.overlay.forget(start * image.block_bytes, image.geometry.spacemap.page_count * image.block_bytes)
        maps = SpaceMaps(self.overlay, image.geometry)
        maps.take_over(pages)
        maps.active = self.base.spacemap_active & 1
        writes, top, free_blocks = maps.encode_checkpoint(())
        for offset, data in writes:
            self.overlay.write(offset, data)
        first = max(truth.generation, self.base.generation + 1)
        sealed = replace(
            truth,
            generation=first + 1,
            state=state,
            error_count=0 if state is State.CLEAN else 1,
            spacemap_active=1 - maps.active,
            spacemap_top=top,
            free_blocks=free_blocks,
            inode_count=found.counted.inode_count,
            directory_count=found.counted.directory_count,
            node_count=len(found.tree.addresses),
        )
        settle(self.overlay, sealed)


_ITEM_VERBS = frozenset((Verb.PUT, Verb.DELETE, Verb.SET, Verb.MOVE))


def reserve(store: Store) -> None:
    """Take room for what the tree has become. Raises OutOfSpace."""
    if not store.pool.reserve(store.tree.dirty_count + store.tree.height() + 1):
        raise OutOfSpace(
            f"{store.device.name}: there is no free space left in the image to repair it with; enlarge it, or use --salvage"
        )


def _state_after(edits: Sequence[Edit]) -> State:
    """Return what the image says of itself after a round: that it is whole, unless an edit wants it otherwise."""
    wanted = [edit.value for edit in edits if edit.verb is Verb.SUPERBLOCK and edit.field == "state"]
    return State.ERRORS if wanted == [int(State.ERRORS)] else State.CLEAN


def _field_value(edit: Edit) -> object:
    """Return the value of a superblock's field as the record holds it."""
    if isinstance(edit.value, tuple):
        return (ChildPointer if edit.field == "root" else SpaceMapEntry)(*edit.value)
    return edit.value


def _claim_record(claims: Claims, image: Image, record: DataRecord) -> None:
    try:
        claim_runs(claims, image, record.runs(image.block_bytes))
    except CorruptImage:
        return
