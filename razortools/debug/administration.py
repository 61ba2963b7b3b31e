"""admin: the history of what was done to the image as a whole, as its superblock keeps it."""

import argparse

from razortools.debug.answers import Answer, Lines, Table
from razortools.debug.names import show_time
from razortools.debug.session import Command, Session, Words
from razortools.engine.create import Features
from razortools.engine.store.admin import history_of, keeps_history
from razortools.format.admin import Action, AdminEntry, Outcome
from razortools.format.superblock import Compat, Incompat
from razortools.units import format_size


def show_admin(session: Session, options: argparse.Namespace) -> Answer:
    """admin: the entries of the admin history, the latest last."""
    superblock = session.superblock()
    found = history_of(superblock)
    data = {"kept": keeps_history(superblock), "entries": [_as_json(one) for one in found]}
    if not keeps_history(superblock):
        return Lines(["this image keeps no admin history; with -w 'feature admin_history on' begins one"], data)
    rows = [(show_time(one.at_ns), _word(Action, one.action), one.version, _result(one)) for one in found]
    return Table(("time", "what", "version", "result"), rows, data)


def _as_json(one: AdminEntry) -> dict[str, object]:
    return {
        "at_ns": one.at_ns, "action": _word(Action, one.action), "outcome": _word(Outcome, one.outcome), "version": one.version,
        "errors": one.errors, "warnings": one.warnings, "detail": one.detail, "result": _result(one),
    }  # fmt: skip


def _word(names: type[Action] | type[Outcome], number: int) -> str:
    """Return how people call it; a number that only newer versions know stays one."""
    return names(number).name.lower() if number in list(names) else str(number)


def _result(one: AdminEntry) -> str:
    """Return what came of it."""
    if one.action in (Action.MOUNT, Action.DEBUG):
        return f"recovered, {one.detail} transactions replayed" if one.outcome == Outcome.RECOVERED else "was clean"
    if one.action in (Action.CHECK, Action.REPAIR):
        found = f"{one.errors} errors and {one.warnings} warnings found"
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


_COUNTED: dict[int, str] = {
    Action.COMPACT: "steps",
    Action.COMMIT: "fields set",
    Action.DEFRAG: "files",
    Action.RECOMPRESS: "files",
}
_ADMIN = Words("admin")

COMMANDS = (
    Command("admin", "show what was done to the image: mkfs, mounts, checks, repairs, resizing, surgery", _ADMIN, show_admin,
            ("admin", "admin | tail -5")),
)  # fmt: skip
