"""The offer: whether a look at a clean image should say that compacting it would pay. By figures, with the reason of each.

What the check counts anyway bounds what can be gained; only where that bound is good enough the plan is made, and tells.
"""

from razortools.check.compact.layout import measure
from razortools.check.compact.loose import FILL_OF, FILL_PARTS
from razortools.check.compact.plan import Plan, make_plan
from razortools.check.repair.surveying import believed, recovered
from razortools.check.report import Summary
from razortools.engine.store.device import Device
from razortools.units import MIB

# A B+tree in which anything is inserted anywhere settles at leaves that are full to ln 2 = 69 % (Yao, "On random 2-3 trees",
# 1978). Packing those saves a quarter, which is gone again after a while. A third can only be saved where much was deleted.
NODES_SAVED_PART = 3
# A disk seeks in about the time in which it reads a MiB: from so many breaks on, seeking takes as long as reading the files does.
BYTES_PER_BREAK = 1 * MIB
BREAKS_MIN = 64  # half a second of seeking: below that nobody notices
NODES_MIN = 64  # a mebibyte, or two with both copies: below that nobody notices either
FILL_BOUND = (1 - 1 / NODES_SAVED_PART) * FILL_PARTS / FILL_OF  # fuller leaves cannot be packed into so many fewer


def may_pay(summary: Summary) -> bool:
    """Return whether a compaction could be worth while, by what the check has counted."""
    return summary.leaf_fill <= FILL_BOUND or breaks_count(summary.breaks, summary.stored_bytes)


def breaks_count(breaks: int, stored_bytes: int) -> bool:
    """Return whether so many breaks make reading take twice as long as it need."""
    return breaks >= BREAKS_MIN and breaks * BYTES_PER_BREAK >= stored_bytes


def offered(device: Device, summary: Summary) -> Plan | None:
    """Return what a compaction of the clean image on *device* would do in its first step, if that pays. Reads only."""
    facts = believed(device) if may_pay(summary) else None
    if facts is None:
        return None
    plan = make_plan(measure(recovered(facts)))
    nodes_before = plan.nodes_after + plan.nodes_saved
    saves_nodes = plan.nodes_saved >= NODES_MIN and plan.nodes_saved * NODES_SAVED_PART >= nodes_before
    return plan if saves_nodes or breaks_count(plan.fragments_joined, summary.stored_bytes) else None
