"""Power cuts inside repairs: every state that one may leave, of image and undo file, while a repair is written or taken back.

A repair is played once on a recorded disk. Each state is then judged like this, and so is each state that a power cut in the
taking back may leave:

1. without the undo file: no file is worse off than before the repair, the check finds no kind of problem that was not there
   before or is there after it (but for the mark that a check is due), and the image can be mounted if it could be before
2. with the undo file: taking the repair back gives the image as it was, bit for bit
3. (on a sample) the same repair runs again on what is left, ends as well as the first one did, and both can be taken back

Everything follows from the seed and the image.
"""

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from razortools.check import problems, runner
from razortools.check.comparison import loss
from razortools.check.findings import Finding, Severity
from razortools.check.inventory import Inventory, take_inventory
from razortools.check.repair.undo import take_back
from razortools.check.repair.write_order import REPAIR_GENERATIONS
from razortools.check.repair.write_out import write_out_keeping
from razortools.debug.crashtest.disks import Base, CrashedDisk, State
from razortools.debug.crashtest.memory import Memory
from razortools.debug.crashtest.oracle import opened
from razortools.debug.crashtest.repair_log import Event, Left, LoggedDisk, LoggedShelf, Side, lefts
from razortools.engine.store.device import Device
from razortools.engine.store.pages import OverlayDevice
from razortools.errors import RazorError

Mend = Callable[[OverlayDevice], None]  # makes of the damaged view in the overlay the repaired one; or raises NothingToMend


class NothingToMend(Exception):
    """The image is as well as it can be made: nothing is written."""


NOW_NS = 1_800_000_000_000_000_000
_CHECK = runner.Options(threads=1)
_LATE = "late superblock"
# Half mended: what may be found instead of something worse that was there before.
_BETTER = {
    problems.SPARE_MAP_DAMAGED.code: {problems.MAP_PAGE_DAMAGED.code, problems.MAP_COUNT.code},
    problems.NODE_COPY_DAMAGED.code: {problems.NODE_LOST.code},
    problems.COPY_CHECKSUM.code: {problems.NODE_LOST.code},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class RepairDepth:
    """How much is tried."""

    states_per_flush: int = 96
    undo_from: int = 3  # states from which the taking back is cut off as well
    again_from: int = 3  # states from which the repair is run again, and cut off again
    violations_max: int = 20  # after so many nothing more is tried


@dataclass(frozen=True, slots=True)
class View:
    """What must not get worse: what can be read of an image, what the check finds, and whether it can be mounted."""

    inventory: Inventory
    problems: frozenset[str]
    problem_count: int
    mounts: bool
    harmed: frozenset[str] = frozenset()  # files that were better in the view before

    @property
    def generation(self) -> int:
        """Generation of its superblock, 0 if there is none."""
        facts = self.inventory.facts
        return facts.tree.image.superblock.generation if facts is not None else 0


@dataclass(slots=True)
class RepairTally:
    """What was explored."""

    states: set[int] = field(default_factory=set)
    judged_count: int = 0  # looked at in full; the others read the same
    violations: list[str] = field(default_factory=list)
    stages: Counter[str] = field(default_factory=Counter)
    is_written: bool = False  # there was something to write


class RepairExplorer:
    """Explores one repair of one image."""

    def __init__(
        self, image: bytes, mend: Mend, seed: int, depth: RepairDepth = RepairDepth(), *, is_sound: bool = False
    ) -> None:
        """*mend* must do the same each time. *is_sound*: the image is, as before a compaction; see write_out()."""
        self.base = Base(image)
        self.depth = depth
        self.tally = RepairTally()
        self._mend = mend
        self._is_sound = is_sound
        self._chance = random.Random(f"{seed} {len(image)}")
        self._verdicts: Memory[str] = Memory()
        before = CrashedDisk(self.base, {})
        self._before = view_of(before)
        self._after: View | None = None

    def explore(self) -> RepairTally:
        """Try every power cut in the repair and in its taking back."""
        written = self._write({}, ())
        if written is None:
            return self.tally
        self.tally.is_written = True
        log, shelf, image = written
        final = self._state_of(image)
        after = view_of(CrashedDisk(self.base, final))
        self._after = replace(after, harmed=frozenset(loss(self._before.inventory, after.inventory).harmed))
        reached = self._judge_all("write-out", {}, log, None, ())
        undo_file = shelf.standing()[-1]
        for left in [Left(final, undo_file, len(log), ()), *self._some(reached, self.depth.undo_from)]:
            if not self._is_enough:
                self._explore_undo(left)
        for left in self._some(reached, self.depth.again_from):
            if not self._is_enough:
                self._explore_again(left)
        return self.tally

    @property
    def _is_enough(self) -> bool:
        return len(self.tally.violations) >= self.depth.violations_max

    def _write(self, start: State, standing: tuple[bytes, ...]) -> tuple[list[Event], LoggedShelf, LoggedDisk] | None:
        """Play a repair of the image in state *start*; return its log, the shelf and the disk. None: nothing to write."""
        log: list[Event] = []
        image = LoggedDisk(self.base.bytes_of(start), "image", Side.IMAGE, log)
        shelf = LoggedShelf(log, standing)
        overlay = OverlayDevice(image)
        try:
            self._mend(overlay)
        except NothingToMend:
            return None
        written = write_out_keeping(overlay, image, shelf, lambda: NOW_NS, is_sound=self._is_sound)
        return (log, shelf, image) if written.page_count else None

    def _state_of(self, disk: LoggedDisk) -> State:
        state: State = {}
        for sector in range(disk.size_bytes // 512):
            self.base.put(state, sector, bytes(disk.image[512 * sector : 512 * sector + 512]))
        return state

    def _judge_all(
        self, what: str, start: State, log: list[Event], named: LoggedDisk | None, older: tuple[bytes, ...]
    ) -> list[Left]:
        """Judge every state that a power cut in *log* may leave; return those whose undo file has the name."""
        reached: list[Left] = []
        for left in lefts(self.base, start, log, named, self.depth.states_per_flush, self._chance):
            self.tally.states.add(self.base.mark(left.image) ^ hash(left.undo_file))
            self.tally.stages[what] += 1
            reason = self._verdicts.verdict_on(self.base, left.image, self._judge_alone) or self._judge_undo(left, older)
            if reason:
                arrived = ", ".join(f"{sector}:{version}" for sector, version in left.image_choice[:20])
                told = f"{what}, power cut after {left.position} of {len(log)} events, sectors that arrived: {arrived or 'none'}"
                self.tally.violations.append(f"{told}: {reason}")
            elif left.undo_file is not None and left.image:
                reached.append(left)
            if self._is_enough:
                break
        return reached

    def _some(self, reached: list[Left], count: int) -> list[Left]:
        return self._chance.sample(reached, min(count, len(reached)))

    def _judge_alone(self, disk: CrashedDisk) -> str:
        """Return what is wrong with the image as it is, without the undo file."""
        self.tally.judged_count += 1
        assert self._after is not None
        return worse(view_of(disk), self._before, self._after)

    def _judge_undo(self, left: Left, older: tuple[bytes, ...]) -> str:
        """Return what is wrong if everything is taken back."""
        if not left.image:
            return ""  # it is what it was
        standing = (*older, *([left.undo_file] if left.undo_file is not None else []))
        image = LoggedDisk(self.base.bytes_of(left.image), "image", Side.IMAGE, [])
        try:
            for number in range(len(standing), 0, -1):
                take_back(image, LoggedShelf([], standing[:number]), lambda: NOW_NS)
        except RazorError as failed:
            return f"it cannot be taken back: {failed}"
        return "" if image.image == self.base.image else "taking it back does not give what there was"

    def _explore_undo(self, left: Left) -> None:
        """Cut off the taking back of a repair that was cut off itself."""
        assert left.undo_file is not None
        log: list[Event] = []
        image = LoggedDisk(self.base.bytes_of(left.image), "image", Side.IMAGE, log)
        shelf = LoggedShelf(log, (left.undo_file,))
        named = shelf.named
        take_back(image, shelf, lambda: NOW_NS)
        self._judge_all("undo", left.image, log, named, ())

    def _explore_again(self, left: Left) -> None:
        """Repair what a power cut in the repair left, and cut that off."""
        assert left.undo_file is not None and self._after is not None
        written = self._write(left.image, (left.undo_file,))
        final = left.image
        if written is not None:
            log, shelf, image = written
            final = self._state_of(image)
            self._judge_again(left, log, shelf)
        found = view_of(CrashedDisk(self.base, final))
        if found.problem_count > self._after.problem_count:
            self.tally.violations.append(
                f"repaired again after {left.position} events: {found.problem_count} problems are left, "
                f"{sorted(found.problems)}; the first time {self._after.problem_count}"
            )

    def _judge_again(self, left: Left, log: list[Event], shelf: LoggedShelf) -> None:
        """Judge the power cuts of a second repair: before its undo file has the name one file is to be taken back, then two."""
        assert left.undo_file is not None
        named = LoggedDisk(bytearray(left.undo_file), "undo file", Side.UNDO, [])
        at = next(number for number, event in enumerate(log) if event.side is Side.NAME)
        self._judge_all("again", left.image, log[:at], named, ())
        new = log[at].file
        assert new is not None
        whole = LoggedDisk(bytearray(shelf.standing()[-1]), "undo file", Side.UNDO, [])
        rest = [Event(Side.NAME, None, whole), *(event for event in log[at + 1 :] if event.side is Side.IMAGE)]
        self._judge_all("again", left.image, rest, whole, tuple(shelf.older))


def view_of(disk: Device) -> View:
    """Return what a user finds on *disk*. What a mount writes stays on it: look at a disk that is thrown away."""
    report = runner.check_quietly(disk, _CHECK)
    found = [finding for finding in report.findings if finding.severity is not Severity.NOTE]
    return View(take_inventory(disk, 1), frozenset(map(_kind, found)), report.problem_count, _mounts(disk))


def _kind(finding: Finding) -> str:
    """Return the code of a finding; a spare superblock that is older than it should be is a kind of its own."""
    is_late = finding.code == problems.SUPERBLOCK_FIELD.code and ": generation is" in finding.message
    return _LATE if is_late else finding.code


def _mounts(disk: Device) -> bool:
    overlay = OverlayDevice(disk)
    try:
        opened(overlay)
    except RazorError:
        return False
    return True


def worse(found: View, before: View, after: View) -> str:
    """Return in what a view is worse than the one before the repair, or an empty string."""
    wrong: list[str] = []
    # What the whole repair has cost was weighed before it was written.
    harmed = sorted(set(loss(before.inventory, found.inventory).harmed) - after.harmed)
    if harmed:
        wrong.append(f"{len(harmed)} files are worse off: {', '.join(harmed[:5])}")
    strange = found.problems - before.problems - after.problems - {problems.ERRORS_RECORDED.code}
    strange -= {code for code, worse_ones in _BETTER.items() if before.problems & worse_ones}
    if after.generation > before.generation + REPAIR_GENERATIONS or problems.GEOMETRY_WRONG.code in before.problems:
        # A tree that was built anew, or a superblock of which no mark can be made: the slots are in step when both are written.
        strange -= {_LATE}
    if before.inventory.facts is None or before.inventory.facts.tree.lost:
        strange = frozenset()  # much that was wrong could not be seen
    if strange:
        wrong.append(f"the check finds what was not there before and is not after: {sorted(strange)}")
    if before.mounts and not found.mounts:
        wrong.append("it cannot be mounted any more")
    return "; ".join(wrong)
