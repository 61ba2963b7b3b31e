"""admin: the history of what was done to the image as a whole, as its superblock keeps it."""

import argparse

from razortools.debug.answers import Answer, Lines, Table
from razortools.debug.session import Command, Session, Words
from razortools.debug.shown import show_time
from razortools.engine.administration import document, result, word
from razortools.engine.store.admin import history_of, keeps_history
from razortools.format.admin import Action


def show_admin(session: Session, options: argparse.Namespace) -> Answer:
    """admin: the entries of the admin history, the latest last."""
    superblock = session.superblock()
    found = history_of(superblock)
    data = {"kept": keeps_history(superblock), "entries": [document(one) for one in found]}
    if not keeps_history(superblock):
        return Lines(["this image keeps no admin history; with -w 'feature admin_history on' begins one"], data)
    rows = [(show_time(one.at_ns), word(Action, one.action), one.version, result(one)) for one in found]
    return Table(("time", "what", "version", "result"), rows, data)


_ADMIN = Words("admin")

COMMANDS = (
    Command("admin", "show what was done to the image: mkfs, mounts, checks, repairs, resizing, surgery", _ADMIN, show_admin,
            ("admin", "admin | tail -5")),
)  # fmt: skip
