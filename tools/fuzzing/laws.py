"""The laws of repair, for one damaged image, whatever the damage.

After a repair a second check is clean and a second repair changes nothing; every file outside the blast radius is bit for bit
what it was before the damage; what could be read before the repair can be read after it; the engine goes on with the image;
taking the repair back gives the damaged image again; and following the plan is the repair. A repair may refuse, with a sentence.
"""

import os
import tempfile
from collections.abc import Mapping, Set
from dataclasses import dataclass

from razortools.check.findings import Severity
from razortools.check.repair.plan_file import plan_for, read_plan, write_plan
from razortools.check.repair.repair import Repaired, Wishes, follow, repair
from razortools.check.repair.undo import undo
from razortools.check.repair.write_out import write_out
from razortools.check.runner import Options
from razortools.check.steps import finished
from razortools.engine.store.device import Device, open_image
from razortools.engine.store.pages import PAGE_BYTES, OverlayDevice
from razortools.errors import RazorError
from tools.fuzzing.harmless import why_not_usable
from tools.fuzzing.verdict import HangsError, verdict_of, watched
from tools.fuzzing.view import View, view

MEMORY = "/dev/shm" if os.path.isdir("/dev/shm") else None  # files that live for milliseconds need no disk to wait for
READING_S = 3.0  # for reading the damaged image with the engine
WISHES = Wishes(check=Options(threads=1))
# A directory that is there has other entries when something is put into lost+found or taken out of it.
OF_DIRECTORIES = frozenset({"size", "link_count", "mtime_ns", "ctime_ns"})


class BrokenError(Exception):
    """A law does not hold."""


@dataclass(frozen=True, slots=True)
class Lawful:
    """What came of a case in which all laws hold. *word*: how the repair went."""

    word: str


@dataclass(frozen=True, slots=True)
class Undamaged:
    """What there was before the damage, and what the damage may have hurt."""

    before: View
    contents: Set[int]  # inodes whose contents may be hurt
    paths: Set[int]  # inodes whose paths may be hurt
    directories: Set[int]  # directories whose entries may be hurt
    named_again: Set[int] = frozenset()  # inodes that may have an older name beside their own


def obey(device: Device, known: Undamaged, *, with_files: bool) -> str:
    """Repair the image on *device* in memory; return how it went. Raises BrokenError with the law that does not hold."""
    try:
        with watched():
            return _obey(device, known, with_files=with_files)
    except HangsError as hangs:
        raise BrokenError(f"hangs: {hangs}") from hangs
    except BrokenError:
        raise
    except Exception as failed:
        raise BrokenError(f"traceback: {type(failed).__name__}: {failed}") from failed


def _obey(device: Device, known: Undamaged, *, with_files: bool) -> str:
    done: Repaired = finished(repair(device, WISHES))
    if not done.changes:
        if done.before.clean:
            return "nothing to do"
        if not done.refused and done.before.worst is not Severity.FATAL:
            raise BrokenError("problems, but neither a change nor a refusal")
        return "refused"
    again: Repaired = finished(repair(done.overlay, WISHES))
    verdict = verdict_of(again.before)  # a repair begins with a check of all phases
    if verdict.codes or verdict.stumbled:
        raise BrokenError(f"the second check is not clean: {verdict.stumbled or ', '.join(verdict.codes)}")
    if again.changes:
        raise BrokenError("a second repair changes something")
    word = _judge_files(done.overlay, device, known)
    reason = why_not_usable(done.overlay)
    if reason:
        raise BrokenError(f"after the repair {reason}")
    if with_files:
        _judge_plan(device, done)
        _judge_undo(device, done)
    return word


def _judge_files(repaired: Device, damaged: Device, known: Undamaged) -> str:
    """Compare what is seen after the repair with what there was. Return "repaired", or "with loss"."""
    try:
        after = view(repaired)
    except (RazorError, OSError) as refused:
        raise BrokenError(f"the repaired image cannot be opened: {refused}") from None
    seen = {entry.ino: entry for entry in after.values()}
    paths = _paths(after)
    is_whole = True
    for path, entry in known.before.items():
        now = seen.get(entry.ino)
        differing = {"all of it"} if now is None else now.differences(entry)
        if path == b"/" or entry.ino in known.directories:
            differing -= OF_DIRECTORIES
        is_there = path in paths.get(entry.ino, ())
        is_whole &= not differing and is_there
        if entry.ino in known.named_again:
            differing -= {"link_count"}
        if entry.ino not in known.contents and differing:
            raise BrokenError(f"a file outside the blast radius has changed: inode {entry.ino}: {', '.join(sorted(differing))}")
        if entry.ino not in known.paths and not is_there:
            raise BrokenError(f"a file outside the blast radius has lost its path: inode {entry.ino}")
    _judge_readable(damaged, known, after)
    return "repaired" if is_whole else "with loss"


def _paths(seen: View) -> dict[int, set[bytes]]:
    found: dict[int, set[bytes]] = {}
    for path, entry in seen.items():
        found.setdefault(entry.ino, set()).add(path)
    return found


def _judge_readable(damaged: Device, known: Undamaged, after: View) -> None:
    """What could be read of the damaged image, as it was before the damage, can be read after the repair.

    Within the blast radius it may read otherwise: data that came to a file by the damage, nothing tells from its own.
    """
    try:
        with watched(READING_S):
            hurt = view(damaged)
    except (Exception, HangsError):
        return  # the engine trusts what verifies; on an image that was edited it may stop in any way
    then = {entry.ino: entry for entry in known.before.values()}
    now = {entry.ino: entry for entry in after.values()}
    for entry in hurt.values():
        was = then.get(entry.ino)
        if was is None or not entry.is_readable or entry.parts.get("data") != was.parts.get("data"):
            continue
        if entry.ino not in now or isinstance(now[entry.ino].parts.get("data"), str):
            raise BrokenError(f"inode {entry.ino} could be read before the repair, and cannot be after it")


def _judge_plan(device: Device, done: Repaired) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/plan"
        write_plan(plan_for(device, done.rounds, None), "image", path)
        same: Repaired = finished(follow(device, read_plan(path), WISHES.check))
    if dict(same.overlay.written_pages()) != dict(done.overlay.written_pages()):
        raise BrokenError(f"following the plan is not the repair ({same.refused or 'other bytes'})")


def _judge_undo(device: Device, done: Repaired) -> None:
    before = contents(device)
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        path, undo_path = f"{folder}/image", f"{folder}/undo"
        _make_file(path, device.size_bytes, before)
        with open_image(path, writable=True) as image:
            overlay = OverlayDevice(image)
            for offset, page in done.overlay.written_pages():
                overlay.write(offset, page)
            write_out(overlay, image, undo_path)
            if contents(image) != contents(done.overlay):  # of which a check has found nothing
                raise BrokenError("what was written out is not what was repaired")
            undo(image, undo_path)
            if image.size_bytes != device.size_bytes or contents(image) != before:
                raise BrokenError("taking the repair back does not give the image that there was")


def contents(device: Device) -> dict[int, bytes]:
    """Return what a device holds: the pages that are not all zeros, by their offset."""
    found: dict[int, bytes] = {}
    offset = device.next_data(0) // PAGE_BYTES * PAGE_BYTES
    while offset < device.size_bytes:
        page = device.read(offset, min(PAGE_BYTES, device.size_bytes - offset))
        if page.count(0) != len(page):
            found[offset] = page
        offset = device.next_data(offset + PAGE_BYTES) // PAGE_BYTES * PAGE_BYTES
    return found


def _make_file(path: str, size_bytes: int, pages: Mapping[int, bytes]) -> None:
    """Make a file that holds *pages* and zeros."""
    with open(path, "wb", buffering=0) as file:
        file.truncate(size_bytes)
        for offset, page in pages.items():
            os.pwrite(file.fileno(), page, offset)
