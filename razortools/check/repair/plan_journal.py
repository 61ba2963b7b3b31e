"""The journal: what verifies is replayed, what does not is dropped; what makes no sense is put where it belongs."""

from razortools.check.findings import Finding
from razortools.check.repair.draft import Draft
from razortools.check.repair.edits import Verb
from razortools.check.repair.journal import pending, scanned
from razortools.check.repair.journal_bits import flipped_bit
from razortools.check.repair.plan_contents import cut_out_holes
from razortools.check.repair.senseless import meant_by
from razortools.units import InodeNo


def replay(draft: Draft, finding: Finding) -> None:
    """Plan to replay the transactions that verify; the rest goes. Once is enough."""
    if draft.in_place_first or any(edit.verb is Verb.REPLAY for edit in draft.edits):
        return
    turned = flipped_bit(draft.on_device)
    if turned is not None:
        block, bit = turned
        draft.in_place_first = True
        draft.other(Verb.FLIP, f"turn bit {bit} of block {block}, the one that makes the journal verify", block=block, value=bit)
        return
    count = len(pending(draft.on_device, scanned(draft.on_device)))
    draft.other(Verb.REPLAY, f"replay the transactions of the journal that verify ({count}), and empty it", value=count)


def hidden(draft: Draft, finding: Finding) -> None:
    """The superblock expects another entry than the one that waits: let it expect this one. The next round replays it."""
    sequence = finding.values["sequence"]
    draft.in_place_first = True
    draft.other(Verb.SUPERBLOCK, f"expect journal entry {sequence}, which waits", field="journal_sequence", value=sequence)


def senseless(draft: Draft, finding: Finding) -> None:
    """An entry that verifies makes no sense: plan the replay, and what all such entries were meant to do. Once is enough."""
    replay(draft, finding)
    if draft.in_place_first or draft.knows_what_was_meant:
        return
    draft.knows_what_was_meant = True
    for meant in meant_by(draft):
        if meant.key is None:
            cut_out_holes(draft, InodeNo(meant.unplaced))
        elif meant.value is None:
            draft.delete(meant.key, "remove what the entry was meant to remove")
        elif draft.get(meant.key) != meant.value:
            draft.put(meant.key, meant.value, "put what the entry holds where it was meant to be")
