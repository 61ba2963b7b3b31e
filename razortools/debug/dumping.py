"""dump: a copy of the image for bug reports, in which nobody's names and contents are. The image itself is only read.

Invariant: the copy gets its name when razorfsck has found the same on it as on the image; until then there is none.
"""

import argparse
import os
import secrets
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass

from razortools.debug.answers import Answer, Lines
from razortools.debug.sanitize.copy import Sanitized, sanitize
from razortools.debug.sanitize.proof import difference, judged
from razortools.debug.session import Command, Session, Words
from razortools.engine.store.device import Device, create_image
from razortools.errors import CorruptImage, UsageError

NEW = ".new"  # behind the name of a copy that is not proven yet
SECRET_BYTES = 32


@dataclass(frozen=True, slots=True)
class Dumped:
    """What was written."""

    copy: str
    stored_bytes: int  # that the copy takes on the host
    names: int
    nodes: int
    records: int
    journal_entries: int
    findings: dict[str, int]  # by code, on the image and on the copy


def dump(session: Session, options: argparse.Namespace) -> Answer:
    """dump: write the copy, and tell what is in it."""
    done = write_sanitized(session.device, options.out)
    told = ", ".join(f"{count} {code}" for code, count in sorted(done.findings.items())) or "nothing"
    lines = [
        f"{done.copy}: stand-ins for {done.names} names and all contents, "
        f"{done.nodes} nodes, {done.records} data records, {done.journal_entries} journal entries",
        f"razorfsck finds the same on it as on the image: {told}",
        "sizes, times, owners, lengths of names and the UUID are as they were",
    ]
    return Lines(lines, done)


def write_sanitized(device: Device, out: str) -> Dumped:
    """Write the copy to the new file *out* of the host. Raises CorruptImage if the proof fails, UsageError if *out* exists."""
    for path in (out, out + NEW):
        if os.path.lexists(path):
            raise UsageError(f"dump: {path} exists already; the copy needs a name of its own")
    try:
        with create_image(out + NEW, device.size_bytes) as copy:
            made = sanitize(device, copy, secrets.token_bytes(SECRET_BYTES))
            copy.flush()
            findings = _proven(device, copy, made)
        os.rename(out + NEW, out)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(out + NEW)
        raise
    return Dumped(
        out, os.stat(out).st_blocks * 512, made.name_count, made.node_count, made.record_count, made.entry_count, findings
    )


def _proven(device: Device, copy: Device, made: Sanitized) -> dict[str, int]:
    """Return what razorfsck finds, by code. Raises CorruptImage if that is not the same on both."""
    expected = judged(device)
    wrong = difference(expected, judged(copy), made.names)
    if wrong:
        raise CorruptImage(
            f"dump: of the copy razorfsck would say something else than of {device.name}: {wrong}. Nothing was written. What the "
            f"disk cannot read no copy can show; a mounted image must be unmounted first"
        )
    return dict(Counter(finding.code for finding in expected))


_DUMP = Words("dump")
_DUMP.add_argument(
    "--sanitize", dest="out", required=True, metavar="HOST_PATH",
    help="the copy, which must not exist; razorfsck must find the same on it",
)  # fmt: skip

COMMANDS = (
    Command("dump", "copy the structures for a bug report, with all names and contents replaced", _DUMP, dump,
            ("dump --sanitize /tmp/report.img",)),
)  # fmt: skip
