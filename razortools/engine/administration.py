"""What the admin history of an image says, in words and as a document: for razorfs-debug, and for the audit log of a mount."""

from razortools.engine.create import Features
from razortools.format.admin import Action, AdminEntry, Outcome
from razortools.format.superblock import Compat, Incompat
from razortools.units import format_size, plural

_COUNTED: dict[int, str] = {
    Action.COMPACT: "steps",
    Action.COMMIT: "fields set",
    Action.DEFRAG: "files",
    Action.RECOMPRESS: "files",
}


def document(one: AdminEntry) -> dict[str, object]:
    """Return an entry as JSON can hold it."""
    return {
        "at_ns": one.at_ns, "action": word(Action, one.action), "outcome": word(Outcome, one.outcome), "version": one.version,
        "errors": one.errors, "warnings": one.warnings, "detail": one.detail, "result": result(one),
    }  # fmt: skip


def word(names: type[Action] | type[Outcome], number: int) -> str:
    """Return how people call it; a number that only newer versions know stays one."""
    return names(number).name.lower() if number in list(names) else str(number)


def result(one: AdminEntry) -> str:
    """Return what came of it."""
    if one.action in (Action.MOUNT, Action.DEBUG):
        return f"recovered, {plural(one.detail, 'transaction')} replayed" if one.outcome == Outcome.RECOVERED else "was clean"
    if one.action in (Action.CHECK, Action.REPAIR):
        found = f"{plural(one.errors, 'error')} and {plural(one.warnings, 'warning')} found"
        left = f"{one.detail} left" if one.outcome == Outcome.PROBLEMS_LEFT else "none left"
        return f"{found}, {left}" if one.errors or one.warnings else "nothing wrong"
    if one.action in (Action.MKFS, Action.RESIZE):
        return f"{format_size(one.detail)} ({one.detail} bytes)"
    if one.action == Action.UNDELETE:
        return f"inode {one.detail}"
    if one.action == Action.FEATURE:
        known = Features(Incompat(one.detail & 0xFFFF_FFFF), Compat(one.detail >> 32)).names()
        return f"since then {', '.join(known)}"
    counted = _COUNTED.get(one.action)
    return f"{one.detail} {counted}" if counted else "done"
