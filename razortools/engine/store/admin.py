"""Noting in the admin history what is done to an image, and reading it. Pure: a superblock in, its changes or its entries out.

Who writes a superblock anyway gives the changes along, so an entry costs no write of its own and comes with what it tells of.
Invariant: what the sectors behind the first do not hold, for a power cut or a commit of surgery, is in the first.
"""

from dataclasses import replace
from typing import Any

from razortools.format.admin import NO_ENTRY, Action, AdminEntry, entries, with_entry
from razortools.format.superblock import Compat, Superblock

_LOOKED = (Action.CHECK, Action.REPAIR)
_NUMBER_MAX = (1 << 32) - 1


def keeps_history(superblock: Superblock) -> bool:
    """Return whether the image keeps an admin history: images that older versions have made do not, unless asked to."""
    return bool(superblock.compat & Compat.ADMIN_HISTORY)


def noted(superblock: Superblock, added: AdminEntry) -> dict[str, Any]:
    """Return the fields of *superblock* that change by an entry more; none if the image keeps no history.

    A compaction has one entry however many steps it takes: that of the step before is replaced.
    """
    if not keeps_history(superblock):
        return {}
    last = superblock.admin_last
    is_step = last.action == added.action == Action.COMPACT and last.at_ns == added.at_ns
    added = replace(added, number=last.number if is_step else _next(last))
    history = superblock.admin_history
    for one in (superblock.admin_before, last, added):
        history = with_entry(history, one) if one != NO_ENTRY else history
    return {"admin_history": history, "admin_last": added, "admin_before": superblock.admin_before if is_step else last}


def noted_in_place(superblock: Superblock, added: AdminEntry) -> dict[str, Any]:
    """Return the same where only the first sector of *superblock* may change.

    What goes out of it would be lost if the other sectors do not hold it. Then the details of two commits add up in one entry.
    """
    if not keeps_history(superblock):
        return {}
    last, before = superblock.admin_last, superblock.admin_before
    is_kept = before == NO_ENTRY or any(one.number == before.number for one in entries(superblock.admin_history))
    if is_kept or last.action != added.action:
        return {"admin_last": replace(added, number=_next(last)), "admin_before": last}
    return {"admin_last": replace(added, number=last.number, detail=last.detail + added.detail)}


def history_of(superblock: Superblock) -> list[AdminEntry]:
    """Return the entries, the oldest first."""
    if not keeps_history(superblock):
        return []
    last = superblock.admin_last
    told = (*entries(superblock.admin_history), superblock.admin_before, last)
    found = {one.number: one for one in told if 0 < one.number <= last.number}
    return [found[number] for number in sorted(found)]


def last_check(superblock: Superblock) -> AdminEntry | None:
    """Return the entry of the last full check or repair that is known; None if none is."""
    return next((one for one in reversed(history_of(superblock)) if one.action in _LOOKED), None)


def since_last_mount(superblock: Superblock, *, is_mounted: bool) -> list[AdminEntry]:
    """Return what was done to the image since it was last mounted for writing; before this mount, if it *is_mounted* for that."""
    found = history_of(superblock)
    if is_mounted and found and found[-1].action == Action.MOUNT:
        found.pop()
    since: list[AdminEntry] = []
    for one in found:
        since = [] if one.action == Action.MOUNT else [*since, one]
    return since


def _next(last: AdminEntry) -> int:
    return min(last.number + 1, _NUMBER_MAX)
