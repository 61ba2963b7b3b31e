"""The oracle: judges what a power cut left.

It does what an operator would, in three parts: razorfsck -n on the disk as it is; recovery and a look at everything; and, as if
the power had failed right after that, one more recovery, new work with a sync, yet another recovery without an unmount in
between, unmount, razorfsck -n. What the disk holds is judged against the reference by whoever asks; what must hold for any disk
is judged here.
"""

from dataclasses import dataclass

from razortools.check import runner
from razortools.check.findings import Severity
from razortools.debug.crashtest import pictures
from razortools.debug.crashtest.operations import FILE_MODE, GID, UID, payload
from razortools.debug.crashtest.pictures import Picture
from razortools.engine import files, namespace
from razortools.engine.limits import Limits
from razortools.engine.store.device import Device
from razortools.engine.volume import Volume, open_volume
from razortools.errors import OutOfSpace
from razortools.format.inode import ROOT_INODE
from razortools.format.keys import Table, object_of, table_range
from razortools.units import MIB

NEW_NAME = b"new work"
NEW_BYTES = 3000
LATER_NS = 1_800_000_000_000_000_000  # the time after the crash
# Small changes of small files become patches too.
LIMITS = Limits(record_cache_bytes=4 * MIB, metadata_cache_bytes=4 * MIB, patch_share=1)
_CHECK = runner.Options(threads=1)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a disk. *failure* is empty if all that must hold for any disk does."""

    picture: Picture | None  # what recovery found; None if it did not get that far
    failure: str = ""


class Clock:
    """A clock that stands still until it is set."""

    def __init__(self, now_ns: int) -> None:
        self.now_ns = now_ns

    def __call__(self) -> int:
        """Return the time in nanoseconds."""
        return self.now_ns


def opened(disk: Device, clock: Clock | None = None, limits: Limits = LIMITS) -> Volume:
    """Open the volume on *disk* as a mount would."""
    return open_volume(disk, limits=limits, clock=clock or Clock(LATER_NS))


def check(disk: Device) -> str:
    """Return what razorfsck -n has against *disk* as the power cut left it, which is not changed."""
    try:
        _check(disk)
    except Exception as failed:  # a check that stops is a violation as well
        return f"razorfsck -n before recovery: {type(failed).__name__}: {failed}"
    return ""


def recover(disk: Device) -> Outcome:
    """Recover *disk* and look at everything; what recovery writes is on it then. Never raises for what it finds."""
    try:
        volume = opened(disk)
        _expect_no_orphans(volume)
        return Outcome(pictures.of_volume(volume))
    except Exception as failed:  # whatever stops recovery is a violation: it is reported, not raised
        return Outcome(None, f"recovery: {type(failed).__name__}: {failed}")


def _expect_no_orphans(volume: Volume) -> None:
    """Raise AssertionError if a file without a name is left: nobody can hold it after a crash, so the mount had to finish it."""
    left = [object_of(key) for key, _ in volume.store.items(*table_range(Table.ORPHANS))]
    if left:
        raise AssertionError(f"inodes {left} stand in the table of orphans: recovery did not finish what was left to do for them")


def go_on(disk: Device) -> Outcome:
    """Recover *disk* once more, do new work, and end well. Never raises for what it finds.

    The picture is that of the second recovery, which must find what the first one did.
    """
    picture: Picture | None = None
    at = "second recovery"
    try:
        volume = opened(disk)
        picture = pictures.of_volume(volume)
        at = "new work after recovery"
        work(volume)
        expected = pictures.of_volume(volume)
        at = "recovery after new work"
        volume = opened(disk)
        found = pictures.of_volume(volume)
        if found != expected:
            raise AssertionError("new work was lost: " + "; ".join(pictures.difference(found, expected)))
        at = "unmount"
        volume.close()
        at = "razorfsck -n after recovery"
        _check(disk)
    except Exception as failed:
        return Outcome(picture, f"{at}: {type(failed).__name__}: {failed}")
    return Outcome(picture)


def work(volume: Volume) -> None:
    """Do new work on a recovered volume and sync it. On a full one something is deleted first: that must always be possible."""
    try:
        _make_file(volume)
    except OutOfSpace:
        _delete_largest(volume)
        _make_file(volume)
    volume.commit()


def _make_file(volume: Volume) -> None:
    """Make the file of the new work, or what is missing of it."""
    names = dict(pictures.of_volume(volume))
    if b"/" + NEW_NAME in names:
        ino = namespace.lookup(volume, ROOT_INODE, NEW_NAME)
    else:
        ino = namespace.create(volume, ROOT_INODE, NEW_NAME, FILE_MODE, UID, GID)
    files.write(volume, ino, 0, payload(1, NEW_BYTES))


def _delete_largest(volume: Volume) -> None:
    """Delete every name of the largest file."""
    seen = max((seen for _, seen in pictures.of_volume(volume) if seen.mode & 0o170000 == 0o100000), key=lambda seen: seen.size)
    for path in seen.names:
        head, _, name = path.rpartition(b"/")
        namespace.unlink(volume, namespace.resolve(volume, head or b"/"), name)
    volume.commit()


def _check(disk: Device) -> None:
    """Raise AssertionError if razorfsck finds anything but what a crash may leave."""
    findings = [finding for finding in runner.check_quietly(disk, _CHECK).findings if finding.severity is not Severity.NOTE]
    if findings:
        raise AssertionError("; ".join(f"{finding.code} {finding.where}: {finding.message}" for finding in findings[:5]))
