"""The verdict: whether what a repair made is worth keeping.

It is kept if there are fewer problems than before and no file has become worse. A file that a finding tells to be hurt was not
whole before: what the repair had to give up of it is in the loss statement, and no reason to drop the repair.
"""

from razortools.check.findings import Finding, Severity
from razortools.check.inventory import Inventory
from razortools.check.loss import Loss
from razortools.check.report import Report

# Wrong numbers beside a file: they say nothing about its contents.
_ABOUT_NUMBERS = frozenset(("E0310", "E0401", "E0409", "E0414", "E0601"))
SHOWN_MAX = 3


def objection(before: Report, after: Report, files: Inventory, loss: Loss, dropped: set[int]) -> str:
    """Return why the result is not to be kept, or an empty string.

    *files*: what there was before; *dropped*: inodes of which transactions tell that make no sense and are not replayed.
    """
    if after.problem_count >= before.problem_count and not after.clean:
        return f"it would not have become better: {before.problem_count} problems before, {after.problem_count} after"
    known = _hurt_paths(before.findings, files) | {files.path(number) for number in dropped if files.find(number) >= 0}
    harmed = [path for path in loss.harmed if path not in known]
    if harmed:
        more = f" and {len(harmed) - SHOWN_MAX} more" if len(harmed) > SHOWN_MAX else ""
        return f"files that could be read would have become worse: {', '.join(harmed[:SHOWN_MAX])}{more}"
    return ""


def _hurt_paths(findings: tuple[Finding, ...], files: Inventory) -> set[str]:
    """Return the paths of what was not whole before."""
    hurt: set[str] = set()
    for finding in findings:
        if finding.severity > Severity.WARNING and finding.code not in _ABOUT_NUMBERS:
            if finding.path is not None:
                hurt.add(finding.path)
            if finding.inode is not None and files.find(finding.inode) >= 0:
                hurt.add(files.path(finding.inode))
    return hurt
