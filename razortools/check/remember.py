"""What razorfsck has done is noted in the image: in its admin history, and when all of it was checked last.

A full check that found nothing is noted in a superblock of its own, one generation on, with nothing else changed. Only who may
write does so, and only on an image that is clean and has nothing to recover. What is written out as a repair is gets its entry in
the overlay before that, so the entry comes and goes with what it tells of. The plan of a repair knows no clock; the entry does.
"""

from dataclasses import replace

from razortools.check.findings import Severity
from razortools.check.report import Report
from razortools.engine.store.admin import noted
from razortools.engine.store.device import Device
from razortools.engine.store.pages import OverlayDevice
from razortools.engine.store.recovery import open_store
from razortools.engine.store.superblocks import find_copies
from razortools.format.admin import Action, AdminEntry, Outcome, entry
from razortools.format.superblock import State


def note_checked(device: Device, now_ns: int, report: Report) -> bool:
    """Note in the image on *device* that all of it was checked just now; whether that was possible. Raises DeviceFailed."""
    store, _ = open_store(device)
    if store.superblock.state != State.CLEAN or store.journal.used_bytes:
        return False
    store.mark(now_ns, checked_at_ns=now_ns, **noted(store.superblock, _with_findings(Action.CHECK, now_ns, report)))
    device.flush()
    return True


def note_repaired(overlay: OverlayDevice, now_ns: int, report: Report) -> None:
    """Let *overlay*, which shows a repaired image, tell of the repair that *report* is about."""
    note_in(overlay, _with_findings(Action.REPAIR, now_ns, report))


def note_in(overlay: OverlayDevice, added: AdminEntry) -> None:
    """Enter *added* in every copy of the newest superblock that *overlay* shows."""
    copies = [copy for copy in find_copies(overlay) if copy.superblock is not None]
    newest = max((copy.superblock.generation for copy in copies if copy.superblock), default=0)
    for copy in copies:
        if copy.superblock is not None and copy.superblock.generation == newest:
            overlay.write(copy.offset, replace(copy.superblock, **noted(copy.superblock, added)).encode())


def _with_findings(action: Action, now_ns: int, report: Report) -> AdminEntry:
    """Return the entry of a check or repair, with what it found and how much of that is left."""
    left = sum(finding.count for finding in report.left if finding.severity > Severity.NOTE)
    outcome = Outcome.PROBLEMS_LEFT if left else Outcome.DONE
    errors = _count(report, Severity.ERROR) + _count(report, Severity.FATAL)
    return entry(action, now_ns, outcome, detail=left, errors=errors, warnings=_count(report, Severity.WARNING))


def _count(report: Report, severity: Severity) -> int:
    return sum(finding.count for finding in report.findings if finding.severity is severity)
