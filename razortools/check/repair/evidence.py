"""Evidence: what several findings together prove, and none of them alone.

A count of blocks that is too high may be a wrong number, or the trace of a record that is gone. That something is gone is
believed only if three things that do not depend on one another agree: the inode's count, the volume's count, and blocks that the
space map calls used while nothing points at them.
"""

from collections.abc import Iterable

from razortools.check.findings import Finding


def orphaned_blocks(findings: Iterable[Finding]) -> tuple[range, ...]:
    """Return the blocks that are in use and nobody's: what an owner with a wrong address has may be among them."""
    found = (one for one in findings if one.code == "E0501")
    return tuple(range(one.values["first"], one.values["last"] + 1) for one in found)


def unfound_blocks(findings: Iterable[Finding]) -> int:
    """Return how many blocks of records the volume counts, the space map keeps, and nobody owns."""
    counted = orphaned = 0
    for finding in findings:
        if finding.code == "E0510" and finding.values["field"] == "data_blocks":
            counted += max(finding.values["value"] - finding.values["counted"], 0)
        elif finding.code == "E0501":
            orphaned += finding.count
    return min(counted, orphaned)
