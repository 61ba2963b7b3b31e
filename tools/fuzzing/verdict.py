"""The verdict on one damaged image: whether razorfsck found it, and whether it stopped, hung or stumbled over it.

A phase that could not finish counts as a stumble, like a traceback: it is damage of a kind that the check does not foresee.
"""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

from razortools.check.findings import Severity
from razortools.check.problems import PASS_FAILED
from razortools.check.report import Report
from razortools.check.runner import Options, check_quietly
from razortools.engine.store.device import Device

PATIENCE_S = 60.0  # of processor time, so that a busy machine does not count; a check of these images takes milliseconds
STUMBLED = frozenset(problem.code for problem in PASS_FAILED.values())


class HangsError(BaseException):
    """What was watched did not end in time. No Exception: nothing that it meets on its way may take it for damage."""


@contextmanager
def watched(patience_s: float | None = None) -> Iterator[None]:
    """Raise HangsError in the body if it takes too long. Only for the main thread of a process; may stand within another one."""
    limit_s = PATIENCE_S if patience_s is None else patience_s

    def ring(_: int, frame: FrameType | None) -> None:
        where = f"{frame.f_code.co_filename}:{frame.f_lineno}" if frame is not None else "unknown"
        raise HangsError(f"no end after {limit_s:g} s of processor time, at {where}")

    before = signal.signal(signal.SIGPROF, ring)
    left_s, _ = signal.setitimer(signal.ITIMER_PROF, limit_s)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)
        if left_s:
            signal.setitimer(signal.ITIMER_PROF, left_s)  # the one around it goes on from where it was


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a check made of an image."""

    codes: tuple[str, ...]  # above a note
    notes: tuple[str, ...]
    stumbled: str  # how the check failed; empty: it went to its end

    @property
    def is_detected(self) -> bool:
        """Whether anything above a note was found."""
        return bool(self.codes)


def judge(device: Device) -> Verdict:
    """Check the image on *device*, without ever raising for what it does."""
    try:
        with watched():
            report = check_quietly(device, Options(threads=1))
    except HangsError as hangs:
        return Verdict((), (), str(hangs))
    except Exception as failed:
        return Verdict((), (), f"traceback: {type(failed).__name__}: {failed}")
    return verdict_of(report)


def verdict_of(report: Report) -> Verdict:
    """Return the verdict that a report means."""
    stumbles = [f"{finding.code}: {finding.message}" for finding in report.findings if finding.code in STUMBLED]
    codes = sorted({finding.code for finding in report.findings if finding.severity > Severity.NOTE})
    notes = sorted({finding.code for finding in report.findings if finding.severity is Severity.NOTE})
    return Verdict(tuple(codes), tuple(notes), "; ".join(stumbles))
