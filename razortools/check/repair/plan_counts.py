"""Numbers that were counted: the finding tells what they must be."""

from razortools.check.findings import Finding
from razortools.check.repair.draft import LINK_NO_MAX, Draft
from razortools.format.keys import back_link_key, inode_key


def link_count(draft: Draft, finding: Finding) -> None:
    """Plan to set an inode's link count."""
    if finding.inode is not None:
        counted = finding.values["counted"]
        draft.set(inode_key(finding.inode), "link_count", counted, f"set its link count to {counted}")


def directory_size(draft: Draft, finding: Finding) -> None:
    """Plan to set how many entries a directory has."""
    if finding.inode is not None:
        counted = finding.values["counted"]
        draft.set(inode_key(finding.inode), "size", counted, f"set its number of entries to {counted}")


def link_number(draft: Draft, finding: Finding) -> None:
    """Plan to set the number that the next back link gets."""
    if finding.inode is not None and finding.values["link_no"] > LINK_NO_MAX:
        draft.delete(back_link_key(finding.inode, finding.values["link_no"]), "remove a back link that no entry can name")
    elif finding.inode is not None:
        wanted = finding.values["link_no"] + 1
        draft.set(inode_key(finding.inode), "next_link_no", wanted, f"let the next back link get number {wanted}")
