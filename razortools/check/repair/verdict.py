"""The verdict: whether what a repair made is worth keeping.

It is kept if the worst problems have become fewer, no phase stopped that went through before, and no file has become worse. Only
a finding that says that the contents of a file are hurt, or that it is not there as a file at all, explains that something of it
had to be given up: in the bytes that the finding names, where it names any. A number that is wrong explains nothing.
"""

from bisect import bisect_right
from collections.abc import Iterable

from razortools.check.findings import Finding, Severity
from razortools.check.inventory import Inventory
from razortools.check.loss import Loss
from razortools.check.problems import PASS_FAILED, TOO_MANY
from razortools.check.repair.evidence import unfound_blocks
from razortools.check.report import Report

SHOWN_MAX = 3
_CONTENTS = frozenset(
    ("E0302", "E0307", "E0311", "E0319", "E0502", "E0504", "E0505", "E0507", "E0701", "E0702", "E0703", "E0801", "E0802")
)
_EXISTENCE = frozenset(("E0308", "E0313", "E0314", "E0318", "E0402", "E0410", "E0411", "E0413"))
_DECIDE_THE_CONTENTS = frozenset(("mode", "record size", "size"))  # fields of an inode by which its data are read
_STOPPED = frozenset(problem.code for problem in PASS_FAILED.values())
_COUNTED = frozenset(problem.code for problem in TOO_MANY.values())  # each stands for as many problems as it says
Range = tuple[int, int]


def objection(
    before: Report, after: Report, files: Inventory, loss: Loss, dropped: set[int], *, careful: bool = False, told: bool = True
) -> str:
    """Return why the result is not to be kept, or an empty string.

    *files*: what there was before; *dropped*: inodes of which transactions tell that make no sense and are not replayed;
    *careful*: no harm is allowed at all; *told*: an edit says that the rest of the journal is dropped.
    """
    if careful and loss.dropped_transactions:
        return f"transactions that were safe in the journal would have been dropped: {loss.dropped_transactions}"
    if not after.clean and badness(after) >= badness(before):
        return f"it would not have become better: {before.problem_count} problems before, {after.problem_count} after"
    stopped = {one.code for one in after.findings} & _STOPPED - {one.code for one in before.findings}
    if stopped:
        return f"the result could not be checked to the end ({', '.join(sorted(stopped))})"
    if loss.dropped_transactions and not told:
        return f"transactions that were safe in the journal would have been dropped without a word: {loss.dropped_transactions}"
    excuses = _Excuses(() if careful else before.findings, files)
    excuses.paths |= {files.path(number) for number in dropped if files.find(number) >= 0 and not careful}
    harmed = [path for path in loss.harmed if not excuses.explain(path, loss.harmed_ranges.get(path))]
    if harmed:
        more = f" and {len(harmed) - SHOWN_MAX} more" if len(harmed) > SHOWN_MAX else ""
        return f"files that could be read would have become worse: {', '.join(harmed[:SHOWN_MAX])}{more}"
    return ""


def badness(report: Report) -> tuple[int, int, int]:
    """Return how many problems of each severity are left, the worst first. An error is one, however many blocks it concerns."""
    counts = dict.fromkeys(Severity, 0)
    for finding in report.left:
        counts[finding.severity] += finding.count if finding.code in _COUNTED or finding.severity < Severity.ERROR else 1
    return counts[Severity.FATAL], counts[Severity.ERROR], counts[Severity.WARNING]


class _Excuses:
    """What was not whole before, by path."""

    def __init__(self, findings: tuple[Finding, ...], files: Inventory) -> None:
        self.paths: set[str] = set()  # of which everything may be given up
        self.ranges: dict[str, list[Range]] = {}
        unfound = unfound_blocks(findings)
        for finding in findings:
            if _is_about_contents(finding, unfound):
                paths = {finding.path} if finding.path is not None else set()
                if finding.inode is not None and files.find(finding.inode) >= 0:
                    paths.add(files.path(finding.inode))
                if finding.byte_range is None:
                    self.paths |= paths
                else:
                    for path in paths:
                        self.ranges.setdefault(path, []).append(finding.byte_range)

    def explain(self, path: str, ranges: tuple[Range, ...] | None) -> bool:
        """Return whether what was found explains the loss of these bytes of a file; None: of more than bytes."""
        if path in self.paths:
            return True
        if ranges is None:
            return False
        stretches = _joined(self.ranges.get(path, ()))
        return all(_lies_in(one, stretches) for one in ranges)


def _is_about_contents(finding: Finding, unfound: int) -> bool:
    """Return whether a finding says that a part of a file is hurt or missing, or the file as a whole."""
    if finding.code == "E0309":
        return str(finding.values.get("field")) in _DECIDE_THE_CONTENTS
    if finding.code == "E0506":  # a number; but where lost blocks are there, it tells whose they were
        return bool(0 < finding.values["value"] - finding.values["counted"] <= unfound)
    return finding.code in _CONTENTS or finding.code in _EXISTENCE


def _joined(ranges: Iterable[Range]) -> list[Range]:
    """Return the stretches that *ranges* cover together, in rising order, none touching another."""
    stretches: list[Range] = []
    for first, behind in sorted(ranges):
        if stretches and first <= stretches[-1][1]:
            stretches[-1] = stretches[-1][0], max(stretches[-1][1], behind)
        else:
            stretches.append((first, behind))
    return stretches


def _lies_in(wanted: Range, stretches: list[Range]) -> bool:
    """Return whether all bytes of *wanted* lie in one of the *stretches*."""
    place = bisect_right(stretches, wanted[0], key=lambda stretch: stretch[0]) - 1
    return wanted[1] <= wanted[0] or (place >= 0 and wanted[1] <= stretches[place][1])
