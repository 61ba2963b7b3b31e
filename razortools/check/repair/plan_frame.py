"""What the frame mends: it is computed anew at the end of each round, so its findings need no edit but to say so."""

from razortools.check.findings import Finding
from razortools.check.repair.draft import Draft
from razortools.check.repair.edits import Verb


def frame(draft: Draft, finding: Finding) -> None:
    """Plan to write the space map, the counters and all copies of the superblock anew; once is enough."""
    if not draft.has_planned(Verb.FRAME, finding.code):
        draft.other(Verb.FRAME, finding.repair)
