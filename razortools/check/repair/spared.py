"""Spared blocks: where a repair writes nothing, though its new tree may not name them.

That is all that the old views name, what their journals bring, and what a round is about to put into the tree; and what the space
map calls used, as long as there is room elsewhere. A record whose place is damaged names nothing, and its data are found by
another round only if this one has not written over them; of a lost part of the tree nothing but the map knows.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from razortools.check.claims import Claims
from razortools.check.image import Image
from razortools.check.repair.edits import Edit, Verb
from razortools.check.repair.journal import scanned
from razortools.check.repair.surveying import Survey, claim_runs, marked, merged, owned, survey
from razortools.errors import CorruptImage


@dataclass(slots=True)
class Spared:
    """The blocks, as bitmaps by group. Only more are added."""

    groups: dict[int, bytes] = field(default_factory=dict)

    def add_view(self, image: Image) -> None:
        """Spare what *image* names, and its journal."""
        found = survey(image)
        for transaction in scanned(image).transactions:
            for entry in transaction.entries:
                _claim(found.claims, image, entry.head.key, entry.redo)
        named = merged(self.groups, found.claims.groups)
        used = merged(named, marked(image))
        self.groups = used if not found.tree.is_whole or has_room(found, used) else named

    def add_records(self, image: Image, edits: Sequence[Edit]) -> None:
        """Spare the blocks of records that *edits* put into the tree."""
        claims = Claims(image.geometry.spacemap)
        for edit in edits:
            if edit.verb is Verb.PUT and isinstance(edit.value, bytes):
                _claim(claims, image, edit.key, edit.value)
        self.groups = merged(self.groups, claims.groups)


def has_room(found: Survey, used: Mapping[int, bytes]) -> bool:
    """Return whether the tree could be written anew, and once more for good measure, beside *used* blocks."""
    geometry = found.image.geometry
    free_blocks = geometry.block_count - sum(int.from_bytes(page, "little").bit_count() for page in used.values())
    copies = 2 if any(found.tree.mirrors) else 1
    return free_blocks >= 2 * copies * geometry.node_blocks * len(found.tree.addresses)


def _claim(claims: Claims, image: Image, key: bytes, value: bytes | None) -> None:
    """Claim the blocks of the record that an item holds, if it holds one."""
    record = owned(key, value) if value is not None else None
    if record is not None:
        with suppress(CorruptImage):
            claim_runs(claims, image, record.runs(image.block_bytes))
