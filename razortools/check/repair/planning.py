"""Planning: which planner answers which finding. One table by code, and one by Repair kind for the codes that are not in it."""

from collections.abc import Callable

from razortools.check.findings import Finding, Repair
from razortools.check.problems import PROBLEMS
from razortools.check.repair import plan_counts, plan_frame
from razortools.check.repair.draft import Draft

Planner = Callable[[Draft, Finding], None]

BY_KIND: dict[Repair, Planner] = {
    Repair.REWRITE_COPY: plan_frame.frame,
    Repair.RESET_STATE: plan_frame.frame,
    Repair.FREE_BLOCKS: plan_frame.frame,
    Repair.MARK_USED: plan_frame.frame,
    Repair.REBUILD_MAP: plan_frame.frame,
    Repair.RECOUNT: plan_frame.frame,
}
BY_CODE: dict[str, Planner] = {
    "E0401": plan_counts.link_count,
}


def planner_of(finding: Finding) -> Planner | None:
    """Return who plans what to do about *finding*, or None if nothing can be done."""
    return BY_CODE.get(finding.code) or BY_KIND.get(PROBLEMS[finding.code].repair)
