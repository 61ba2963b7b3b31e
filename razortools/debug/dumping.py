"""dump: a copy of the image for bug reports, in which nobody's names and contents are. The image itself is only read."""

import argparse

from razortools.debug.answers import Answer, Lines
from razortools.debug.session import Command, Session, Words


def dump(session: Session, options: argparse.Namespace) -> Answer:
    """dump: write the copy, and tell what is in it."""
    from razortools.debug.sanitize.dump import write_sanitized  # late: the check loads slowly, and few commands need it

    done = write_sanitized(session.device, options.out)
    told = ", ".join(f"{count} {code}" for code, count in sorted(done.findings.items())) or "nothing"
    lines = [
        f"{done.copy}: stand-ins for {done.names} names and all contents, "
        f"{done.nodes} nodes, {done.records} data records, {done.journal_entries} journal entries",
        f"razorfsck finds the same on it as on the image: {told}",
        "sizes, times, owners, lengths of names and the UUID are as they were",
    ]
    return Lines(lines, done)


_DUMP = Words("dump")
_DUMP.add_argument(
    "--sanitize", dest="out", required=True, metavar="HOST_PATH",
    help="the copy, which must not exist; razorfsck must find the same on it",
)  # fmt: skip

COMMANDS = (
    Command("dump", "copy the structures for a bug report, with all names and contents replaced", _DUMP, dump,
            ("dump --sanitize /tmp/report.img",)),
)  # fmt: skip
