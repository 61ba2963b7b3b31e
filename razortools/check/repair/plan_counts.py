"""Numbers that were counted: the finding tells what they must be."""

from razortools.check.findings import Finding
from razortools.check.repair.draft import Draft
from razortools.format.keys import inode_key


def link_count(draft: Draft, finding: Finding) -> None:
    """Plan to set an inode's link count."""
    if finding.inode is not None:
        counted = finding.values["counted"]
        draft.set(inode_key(finding.inode), "link_count", counted, f"set its link count to {counted}")
