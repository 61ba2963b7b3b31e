"""Playing a workload on a recorded disk and on the reference, side by side.

What comes out is the log of the disk, and what the reference held after each operation: the states that a power cut may leave.
The two are compared after every operation, refusals included, so that the explorer never blames a crash for an ordinary bug.
"""

import copy
from contextlib import suppress
from dataclasses import dataclass, field, replace

from razortools.debug.crashtest import pictures
from razortools.debug.crashtest.disks import Base, RecordingDisk, State
from razortools.debug.crashtest.operations import VERBS, Operation, parse
from razortools.debug.crashtest.oracle import LIMITS, Clock, opened, work
from razortools.debug.crashtest.pictures import Picture
from razortools.debug.crashtest.reference import Model, Refused
from razortools.debug.crashtest.workloads import GROUND, Workload
from razortools.engine.create import create, plan_create
from razortools.engine.limits import Limits
from razortools.engine.store.powercut import Write
from razortools.engine.volume import Volume
from razortools.errors import OutOfSpace, PosixError
from razortools.units import KIB, MIB

IMAGE_BYTES = 1 * MIB
RECORD_BYTES = 4 * KIB  # so that files of some KiB have several records
STARTED_NS = 1_700_000_000_000_000_000
TICK_NS = 1_000_000  # between two operations

# Where pages of records that are not in memory wait as such: of larger records, none of which is kept, and which take late pages.
PAGED_RECORD_BYTES = 2 * RECORD_BYTES
PAGED_LIMITS = replace(LIMITS, loose_from=0, late_share=1, record_cache_bytes=0)


@dataclass(frozen=True, slots=True)
class Ground:
    """What workloads start from: an image that was unmounted cleanly, and the same in the reference."""

    name: str
    base: Base
    model: Model
    limits: Limits = LIMITS


@dataclass(slots=True)
class Played:
    """A log, the moments that it went through, and what was promised when. Positions count the entries of the log."""

    log: list[Write | None] = field(default_factory=list)
    moments: list[Picture] = field(default_factory=list)
    begun: list[tuple[int, int]] = field(default_factory=list)  # (position, moment): from here on the moment may be found
    synced: list[tuple[int, int]] = field(default_factory=list)  # (position, moment): from here on nothing older may be
    labels: list[tuple[int, str]] = field(default_factory=list)  # (position, what began here)

    def allowed(self, position: int) -> list[Picture]:
        """Return the states of which a power cut at *position* must leave one."""
        oldest = max((moment for at, moment in self.synced if at <= position), default=0)
        newest = max((moment for at, moment in self.begun if at <= position), default=0)
        return self.moments[oldest : newest + 1]

    def under_way(self, position: int) -> str:
        """Return what was being done at *position*."""
        return next((label for at, label in reversed(self.labels) if at <= position), "nothing")

    def last_synced(self, position: int) -> int:
        """Return the number of the moment that was promised last."""
        return max((moment for at, moment in self.synced if at <= position), default=0)


class NotTheReference(AssertionError):
    """Engine and reference disagree without any crash."""


class Player:
    """Plays operations on one volume and one reference, and notes what it sees."""

    def __init__(self, disk: RecordingDisk, model: Model, now_ns: int, limits: Limits = LIMITS) -> None:
        """Open the volume on *disk*, which holds what *model* does."""
        self.disk = disk
        self.model = model
        self.clock = Clock(now_ns)
        self.volume = opened(disk, self.clock, limits)
        self.played = Played(disk.log, [self._look()], [(0, 0)], [(0, 0)], [(0, "mount")])
        self.refused = 0
        self._begun = 0  # the moment that the last commit or checkpoint was begun at

    def _look(self) -> Picture:
        expected = pictures.of_reference(self.model)
        found = pictures.of_volume(self.volume)
        if found != expected:
            raise NotTheReference("; ".join(pictures.difference(found, expected)))
        return expected

    def do(self, operation: Operation) -> None:
        """Do one operation on both. Raises NotTheReference if they disagree."""
        self.clock.now_ns += TICK_NS
        self.model.now = self.clock.now_ns
        played = self.played
        played.begun.append((len(played.log), len(played.moments)))
        played.labels.append((len(played.log), str(operation)))
        refusal = self._on_volume(operation)
        if refusal != "no space":
            self._on_reference(operation, refusal)
        self.refused += refusal != ""
        played.moments.append(self._look())
        now = len(played.moments) - 1
        if operation.covers and not refusal:
            played.synced.append((len(played.log), now if operation.covers == "before" else self._begun))
        if operation.verb in ("begin", "begin-checkpoint") and not refusal:
            self._begun = now

    def _on_volume(self, operation: Operation) -> str:
        try:
            VERBS[operation.verb].engine(self.volume, operation)
        except PosixError as refused:
            return f"errno {refused.mount_errno}"
        except OutOfSpace:
            return "no space"
        return ""

    def _on_reference(self, operation: Operation, refusal: str) -> None:
        expected = ""
        try:
            VERBS[operation.verb].reference(self.model, operation)
        except Refused as refused:
            expected = f"errno {refused.errno}"
        if expected != refusal and not operation.covers:  # what syncs is no operation of the reference
            raise NotTheReference(f"{operation}: {refusal or 'done'}, should be {expected or 'done'}")

    def close(self) -> Played:
        """Unmount, which promises everything; return what was played."""
        played = self.played
        played.labels.append((len(played.log), "unmount"))
        self.volume.close()
        played.synced.append((len(played.log), len(played.moments) - 1))
        return played


def play(ground: Ground, workload: Workload) -> Played:
    """Return what becomes of *workload* on *ground*. Raises NotTheReference."""
    player = Player(RecordingDisk(bytearray(ground.base.image)), copy.deepcopy(ground.model), ground.model.now, ground.limits)
    for operation in workload:
        player.do(operation)
    return player.close()


def play_recovery(base: Base, state: State) -> Played:
    """Return what happens when a crashed disk is mounted, worked on and unmounted: a power cut may hit that as well."""
    disk = RecordingDisk(base.bytes_of(state))
    played = Played(disk.log, labels=[(0, "mount after the crash")])
    volume = opened(disk)
    played.moments.append(pictures.of_volume(volume))
    played.begun += [(0, 0), (len(disk.log), 1)]
    played.labels.append((len(disk.log), "new work after the crash"))
    played.synced.append((0, 0))
    _work_noted(volume, played)
    played.labels.append((len(disk.log), "unmount after the crash"))
    volume.close()
    return played


def _work_noted(volume: Volume, played: Played) -> None:
    """Do new work; every state after one of its operations may be found."""
    finish = volume.store.finish

    def finish_and_look() -> None:
        finish()
        picture = pictures.of_volume(volume)
        if picture != played.moments[-1]:
            played.moments.append(picture)
            played.begun.append((len(played.log), len(played.moments) - 1))

    volume.store.finish = finish_and_look  # type: ignore[method-assign]
    try:
        work(volume)
    finally:
        volume.store.finish = finish  # type: ignore[method-assign]
    played.moments.append(pictures.of_volume(volume))
    played.begun.append((len(played.log), len(played.moments) - 1))
    played.synced.append((len(played.log), len(played.moments) - 1))


def ground(name: str = "plain") -> Ground:
    """Return the ground called *name*: plain, single (one copy of metadata), full (no space left), wrapping, or paged.

    In wrapping a single block is left before the end of the journal's ring. In paged, pages may wait without their records.
    """
    disk = RecordingDisk(bytearray(IMAGE_BYTES))
    copies = 1 if name == "single" else 2
    plan = plan_create(
        IMAGE_BYTES, record_bytes=PAGED_RECORD_BYTES if name == "paged" else RECORD_BYTES, metadata_copies=copies,
        uuid=bytes(range(16)), hash_seed=bytes(16), made_at_ns=STARTED_NS,
    )  # fmt: skip
    create(disk, plan)
    player = Player(disk, _empty(STARTED_NS), STARTED_NS)
    for operation in parse(GROUND):
        player.do(operation)
    if name == "full":
        _fill(player)
    if name == "wrapping":
        _turn_the_ring(player)
    if name == "paged":
        player.do(parse("append /a 11000")[0])
    player.close()
    return Ground(name, Base(bytes(disk.image)), player.model, PAGED_LIMITS if name == "paged" else LIMITS)


def _empty(now_ns: int) -> Model:
    model = Model(now_ns)
    model.root.gid = model.root.uid = 0
    return model


def _fill(player: Player) -> None:
    """Write what does not shrink, in ever smaller files, until there is no room for one more."""
    length = 200_000
    number = 1
    while length:
        before = player.refused
        for text in (f"create /f{number}", f"write /f{number} 0 {length}"):
            with suppress(OutOfSpace):
                player.do(Operation(text.split()[0], tuple(text.split()[1:]), 2 * number + 1))
        length = length // 2 if player.refused > before else length
        number += 1


def _turn_the_ring(player: Player) -> None:
    """Commit until one block is left before the end of the journal's ring."""
    ring = player.volume.store.journal
    number = 0
    while ring.head % ring.ring_bytes != ring.ring_bytes - ring.block_bytes:
        for operation in parse(f"chmod /a 6{number % 8}0; commit"):
            player.do(operation)
        number += 1


IMAGES = ("plain", "single", "full", "wrapping")  # that differ in how they look
GROUNDS = (*IMAGES, "paged")
