"""Superblocks: fields with impossible values, and which copy is to be believed where copies of one generation disagree."""

from collections.abc import Callable

from razortools.check.findings import Finding
from razortools.check.repair.draft import Draft
from razortools.check.repair.edits import Value, Verb
from razortools.check.repair.plan_frame import frame
from razortools.check.superblock_rules import field_faults
from razortools.format.admin import EMPTY_HISTORY, NO_ENTRY, AdminEntry
from razortools.format.compression import Algorithm
from razortools.format.layout import COUNT_MAX
from razortools.format.superblock import VERSION_MAJOR, VERSION_MINOR, Incompat, State, Superblock


def _tail(s: Superblock) -> int:
    """Return where the journal's tail lies if only its place in the ring is believed."""
    return s.journal_tail // s.block_bytes * s.block_bytes % (s.journal_blocks * s.block_bytes)


def _text(label: bytes) -> bytes:
    return label.split(b"\0")[0].decode("utf-8", "ignore").encode()


_RESETS: dict[str, tuple[str, Callable[[Superblock], Value]]] = {
    "major version": ("version_major", lambda s: VERSION_MAJOR),
    "minor version": ("version_minor", lambda s: VERSION_MINOR),
    "record size": ("record_bytes", lambda s: max(128 * 1024, s.block_bytes)),
    "generation": ("generation", lambda s: min(max(s.root.generation, 1), COUNT_MAX // 2)),
    "transaction": ("transaction", lambda s: 1),
    "journal sequence": ("journal_sequence", lambda s: 1),
    "journal tail": ("journal_tail", _tail),
    "free blocks": ("free_blocks", lambda s: 0),  # the frame counts them
    "reserved bytes": ("reserved", lambda s: bytes(len(s.reserved))),
    "admin history": ("admin_history", lambda s: EMPTY_HISTORY),
    "admin last": ("admin_last", lambda s: AdminEntry._FLATTEN(NO_ENTRY)),
    "admin before": ("admin_before", lambda s: AdminEntry._FLATTEN(NO_ENTRY)),
    "state": ("state", lambda s: int(State.DIRTY)),
    "metadata copies": ("metadata_copies", lambda s: 2 if s.root.mirror else 1),
    "active space map": ("spacemap_active", lambda s: s.spacemap_active & 1),
    "compression": ("compression", lambda s: int(Algorithm.AUTO)),
    "compression level": ("compression_level", lambda s: 0),
    "label": ("label", lambda s: _text(s.label).ljust(len(s.label), b"\0")),
}
_FEATURES = {str(feature.name).lower(): feature for feature in Incompat}


def wrong_field(draft: Draft, finding: Finding) -> None:
    """A field has an impossible value. In the copy that is believed it is set; the others are written anew anyway."""
    truth = draft.on_device.superblock
    if any(field == finding.values["field"] for field, _, _ in field_faults(truth)):
        name, value = _RESETS.get(finding.values["field"], ("", lambda s: None))
        if name and not any(edit.verb is Verb.SUPERBLOCK and edit.field == name for edit in draft.edits):
            wanted = value(truth)
            shown = wanted if isinstance(wanted, int) else "what it may be"
            draft.other(Verb.SUPERBLOCK, f"set the {finding.values['field']} to {shown}", field=name, value=wanted)
    frame(draft, finding)


def unannounced(draft: Draft, finding: Finding) -> None:
    """A feature is used that the superblock does not announce."""
    before = next((edit.value for edit in draft.edits if edit.verb is Verb.SUPERBLOCK and edit.field == "incompat"), None)
    incompat = before if isinstance(before, int) else draft.on_device.superblock.incompat
    wanted = incompat | int(_FEATURES[finding.values["feature"]])
    draft.other(Verb.SUPERBLOCK, f"announce {finding.values['feature']}", field="incompat", value=wanted)
