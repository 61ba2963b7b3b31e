"""The dump: a copy becomes a file of the host when it has proven itself.

Invariant: the copy gets its name when razorfsck has found the same on it as on the image; until then there is none.
"""

import os
import secrets
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass

from razortools.debug.sanitize.copy import Sanitized, sanitize
from razortools.debug.sanitize.proof import difference, judged
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
