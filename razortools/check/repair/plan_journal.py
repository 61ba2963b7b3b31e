"""The journal: what verifies is replayed, what does not is dropped."""

from razortools.check.findings import Finding
from razortools.check.repair.draft import Draft
from razortools.check.repair.edits import Verb
from razortools.check.repair.journal import pending, scanned
from razortools.check.repair.journal_bits import flipped_bit


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
