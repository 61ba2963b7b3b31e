"""The journal: what verifies is replayed, what does not is dropped."""

from razortools.check.findings import Finding
from razortools.check.repair.draft import Draft
from razortools.check.repair.edits import Verb
from razortools.check.repair.journal import pending


def replay(draft: Draft, finding: Finding) -> None:
    """Plan to replay the transactions that verify; the rest goes. Once is enough."""
    if any(edit.verb is Verb.REPLAY for edit in draft.edits):
        return
    count = len(pending(draft.on_device))
    draft.other(Verb.REPLAY, f"replay the transactions of the journal that verify ({count}), and empty it", value=count)
