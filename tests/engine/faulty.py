"""Running a workload on a disk with a fault, and what may be seen of it then."""

import errno
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import cache
from hashlib import sha256
from stat import S_ISDIR

import pytest

from razortools.check import runner
from razortools.check.findings import Severity
from razortools.engine import directories, files, namespace, xattrs
from razortools.engine.limits import Limits
from razortools.engine.store.pages import MemoryDevice
from razortools.engine.store.simulated import NO_FAULTS, Faults, SimulatedDevice
from razortools.engine.volume import Volume, open_volume
from razortools.errors import CorruptImage, DeviceFailed, PosixError, ReadOnly
from razortools.format.compression import Algorithm, Policy
from razortools.format.inode import ROOT_INODE
from razortools.format.keys import Table, object_of, table_range
from razortools.units import KIB, MIB, NANOSECONDS, InodeNo
from tests.workload import Seen, _see, everything, formatted

IMAGE_BYTES = 1 * MIB
RECORD_BYTES = 8 * KIB
OLD_FILES = 16
# So little memory that nearly everything is read from the device again, and that writing flushes what was written before.
TIGHT = Limits(record_cache_bytes=0, metadata_cache_bytes=8 * KIB, dirty_bytes=4 * RECORD_BYTES, loose_from=0)
HONEST = (DeviceFailed, CorruptImage)  # what may be raised instead of an answer
Picture = dict[bytes, Seen]
Action = Callable[[Volume], object]


class SteppingClock:
    """A clock that stands still until the next step, so that each run of the workload sees the same times."""

    def __init__(self) -> None:
        self.step = 0

    def __call__(self) -> int:
        return (1_700_000_000 + self.step) * NANOSECONDS


def noise(length: int, seed: int) -> bytes:
    return random.Random(seed).randbytes(length)


def at(volume: Volume, path: bytes) -> InodeNo:
    return namespace.resolve(volume, path)


def create(path: bytes) -> Action:
    folder, _, name = path.rpartition(b"/")
    return lambda volume: namespace.create(volume, at(volume, folder or b"/"), name, 0o644, 1, 2)


def write(path: bytes, offset: int, data: bytes) -> Action:
    return lambda volume: files.write(volume, at(volume, path), offset, data)


def truncate(path: bytes, size: int) -> Action:
    return lambda volume: files.truncate(volume, at(volume, path), size)


def unlink(path: bytes) -> Action:
    folder, _, name = path.rpartition(b"/")
    return lambda volume: namespace.unlink(volume, at(volume, folder or b"/"), name)


def setxattr(path: bytes, name: bytes, value: bytes) -> Action:
    return lambda volume: xattrs.set(volume, at(volume, path), name, value)


def hold(path: bytes) -> Action:
    """Open a file: it lives on without a name."""
    return lambda volume: namespace.hold(volume, at(volume, path))


def let_go(volume: Volume) -> None:
    """Close every file that has no name any more."""
    for key, _ in list(volume.store.items(*table_range(Table.ORPHANS))):
        if volume.inodes.is_held(InodeNo(object_of(key))):
            namespace.release(volume, InodeNo(object_of(key)))


def sync(volume: Volume) -> None:
    """What fsync does: all that was done is durable when it returns."""
    files.fsync(volume, ROOT_INODE)


def checkpoint(volume: Volume) -> None:
    volume.checkpoint()


def look(volume: Volume) -> None:
    """See everything; play() compares it with the picture."""


R = ROOT_INODE
STEPS: tuple[Action, ...] = (
    create(b"/a"),
    write(b"/a", 0, noise(20_000, 1)),  # three records, which do not compress
    create(b"/b"),
    write(b"/b", 0, b"short enough to stand in the tree"),
    checkpoint,
    write(b"/a", 5_000, noise(6_000, 2)),  # into two records that are stored
    write(b"/a", 20_000, noise(9_000, 3)),  # append
    lambda volume: namespace.mkdir(volume, R, b"d", 0o755, 1, 2),
    create(b"/d/c"),
    write(b"/d/c", 0, b"words " * 4_000),
    sync,
    lambda volume: namespace.rename(volume, at(volume, b"/d"), b"c", R, b"b"),  # over a file
    lambda volume: namespace.link(volume, at(volume, b"/a"), at(volume, b"/d"), b"e"),
    lambda volume: namespace.symlink(volume, R, b"s", b"a/" * 1_500 + noise(500, 4).hex().encode(), 1, 2),
    look,
    setxattr(b"/a", b"user.small", b"value"),
    setxattr(b"/d", b"user.large", noise(5_000, 5)),
    sync,
    truncate(b"/a", 12_345),
    unlink(b"/a"),  # /d/e is left
    write(b"/d/e", 3_000, noise(100, 6)),
    checkpoint,
    look,
    truncate(b"/d/e", 30_000),  # grows: the tail is cut
    unlink(b"/b"),  # its last name
    create(b"/g"),
    write(b"/g", 0, noise(30_000, 7)),  # more than may be dirty together with what is
    sync,
    write(b"/g", 12 * KIB, noise(4 * KIB, 9)),  # a page of a record that is not in memory
    write(b"/g", 16 * KIB, noise(4 * KIB, 10)),
    sync,
    unlink(b"/d/e"),
    setxattr(b"/d", b"user.large", b"not any more"),
    hold(b"/g"),
    unlink(b"/g"),  # somebody has it open: an orphan
    create(b"/g"),
    write(b"/g", 10_000, b"x" * 10_000),
    checkpoint,
    unlink(b"/old3"),
    write(b"/old14", 100, noise(6_000, 8)),
    lambda volume: namespace.rename(volume, R, b"old11", at(volume, b"/d"), b"old12", 0),
    let_go,
    look,
)
SYNCING = (sync, checkpoint)


@dataclass
class Run:
    """How far a run came."""

    executed: int = 0  # steps whose effect is in memory
    synced: list[int] = field(default_factory=lambda: [0])  # `executed` at each sync that was acknowledged
    told: list[Exception] = field(default_factory=list)  # what was raised


@cache
def fresh_disk() -> MemoryDevice:
    """Return a filesystem with some small files, the same one each time: its tree has a few nodes. Nobody may write to it."""
    disk = MemoryDevice(IMAGE_BYTES)
    formatted(disk, record_bytes=RECORD_BYTES)
    with open_tight(disk, SteppingClock()) as volume:
        for number in range(OLD_FILES):
            ino = namespace.create(volume, ROOT_INODE, b"old%d" % number, 0o644, 1, 2)
            files.write(volume, ino, 0, noise(300, number))
    return disk


def open_tight(disk: MemoryDevice, clock: SteppingClock) -> Volume:
    volume = open_volume(disk, limits=TIGHT, clock=clock)
    volume.default_policy = Policy(Algorithm.ZSTD, 1)
    return volume


@cache
def pictures() -> tuple[Picture, ...]:
    """Return what is seen after 0, 1, 2 ... steps, with nothing going wrong."""
    clock = SteppingClock()
    volume = open_tight(SimulatedDevice.holding(fresh_disk()), clock)
    seen = [everything(volume)]
    for clock.step, step in enumerate(STEPS, 1):
        step(volume)
        seen.append(everything(volume))
    return tuple(seen)


def play(volume: Volume, clock: SteppingClock, run: Run, steps: range) -> None:
    """Do *steps*; one that fails is tried once more, as programs do. Stop when that fails too or the volume is read-only."""
    for number in steps:
        for attempt in (1, 2):
            if attempt_step(volume, clock, run, number):
                break
            if volume.read_only or attempt == 2:
                return


def attempt_step(volume: Volume, clock: SteppingClock, run: Run, number: int) -> bool:
    """Do a step; return whether its effect is there. A step that was refused has had its whole effect or none."""
    step = STEPS[number]
    clock.step = number + 1
    try:
        if step is look:
            assert everything(volume) == pictures()[number]
        else:
            step(volume)
    except HONEST as failed:
        run.told.append(failed)
        if step is look or step in SYNCING:
            see(volume, [pictures()[number]])
            return step is look  # what can be read was right
        run.executed += see(volume, pictures()[number : number + 2])
        return run.executed == number + 1
    run.executed = number + 1
    if step in SYNCING:
        run.synced.append(run.executed)
    return True


def see(volume: Volume, allowed: list[Picture] | tuple[Picture, ...]) -> int:
    """Assert that what can be read of *volume* is one of *allowed*; return the number of the first that agrees."""
    try:
        found = everything(volume)
        assert found in allowed, difference(found, allowed[-1])
        return allowed.index(found)
    except HONEST:
        pass
    reasons = []
    for number, picture in enumerate(allowed):
        reason = disagreement(volume, picture)
        if not reason:
            return number
        reasons.append(reason)
    raise AssertionError(f"what can be read is in no picture: {reasons}")


def disagreement(volume: Volume, picture: Picture) -> str:
    """Return how a file or directory that can be read differs from *picture*; empty if none does."""
    for path, expected in picture.items():
        try:
            ino = at(volume, path)
            found = _see(volume, ino)
            names = {name for _, name, _ in directories.entries(volume, ino)} if S_ISDIR(expected.attributes[0]) else set()
        except HONEST:
            continue
        except PosixError as refused:
            return f"{path!r}: {refused}"
        if found != expected:
            return difference({path: found}, {path: expected})
        if names != {other[len(path.rstrip(b"/")) + 1 :] for other in picture if other != path and parent(other) == path} - {b""}:
            return f"{path!r} holds {names}"
    return ""


def parent(path: bytes) -> bytes:
    return path.rpartition(b"/")[0] or b"/"


def difference(found: Picture, expected: Picture) -> str:
    paths = [path for path in found.keys() | expected.keys() if found.get(path) != expected.get(path)]
    return f"differs: {[(path, found.get(path), expected.get(path)) for path in paths]}"[:3000]


def whole_run(disk: SimulatedDevice, steps: range) -> Run:
    """Open *disk*, do *steps*, close; assert what holds at any moment. Whatever is raised but HONEST comes out."""
    clock = SteppingClock()
    clock.step = steps.start
    run = Run(executed=steps.start, synced=[steps.start])
    try:
        volume = open_tight(disk, clock)
    except HONEST as failed:
        run.told.append(failed)
        return run
    play(volume, clock, run, steps)
    see(volume, pictures()[run.executed : run.executed + 1])
    assert volume.store.failure or not has_refused_to_store(disk)
    if volume.store.failure:
        is_closed_to_changes(volume)
        see(volume, pictures()[run.executed : run.executed + 1])
    was_read_only = volume.read_only
    try:
        volume.close()
        if not was_read_only:
            run.synced.append(run.executed)
    except HONEST as failed:
        run.told.append(failed)
    assert volume.store.failure or not has_refused_to_store(disk)
    return run


def has_refused_to_store(disk: SimulatedDevice) -> bool:
    """Whether a write or flush has failed."""
    faults = disk.faults
    return 0 <= faults.fail_write_at < disk.write_count or 0 <= faults.fail_flush_at < disk.flush_count


def is_closed_to_changes(volume: Volume) -> None:
    """After a failed write or flush nothing is changed or promised any more, and the reason is told."""
    failure = volume.statistics().failure
    assert volume.read_only and volume.statistics().read_only and failure
    changes: tuple[Callable[[], object], ...] = (
        lambda: namespace.mkdir(volume, R, b"new", 0o755, 0, 0),
        lambda: files.fsync(volume, R),
        volume.checkpoint,
    )
    for change in changes:
        with pytest.raises(ReadOnly) as refused:
            change()
        assert str(refused.value) == failure


_recovered: set[tuple[bytes, int, int]] = set()  # many faults leave the same disk: what has been judged once is known


def recovers(disk: MemoryDevice, run: Run) -> None:
    """With the fault gone, *disk* opens to a state at or after the last sync that returned, and the check finds nothing."""
    case = sha256(disk.read(0, disk.size_bytes)).digest(), run.synced[-1], run.executed
    if case not in _recovered:
        _recover(disk, run)
        _recovered.add(case)


def _recover(disk: MemoryDevice, run: Run) -> None:
    clock = SteppingClock()
    volume = open_tight(disk, clock)
    found = everything(volume)
    allowed = pictures()[run.synced[-1] : run.executed + 1]
    assert found in allowed, difference(found, allowed[0])
    namespace.mkdir(volume, R, b"later", 0o755, 0, 0)
    volume.close()
    assert problems_of(disk) == []


def problems_of(disk: MemoryDevice) -> list[str]:
    """Return what the check finds wrong on *disk*."""
    return [finding.message for finding in runner.check_quietly(disk).findings if finding.severity is not Severity.NOTE]


@dataclass(frozen=True)
class Calls:
    """How many calls of each kind a run makes that nothing goes wrong in."""

    read: int
    write: int
    flush: int


@cache
def calls(steps: range) -> Calls:
    disk = SimulatedDevice.holding(base(steps.start))
    run = whole_run(disk, steps)
    assert run.told == [] and run.executed == steps.stop
    return Calls(disk.read_count, disk.write_count, disk.flush_count)


@cache
def base(step: int) -> MemoryDevice:
    """Return the disk that the power cut after *step* steps left, with all of them synced: something to recover."""
    if step == 0:
        return fresh_disk()
    clock = SteppingClock()
    disk = SimulatedDevice.holding(fresh_disk())
    volume = open_tight(disk, clock)
    run = Run()
    play(volume, clock, run, range(step))
    assert run.synced[-1] == step, "the last step is no sync"
    return disk.stable()


def struck(kind: str, number: int, **how: object) -> Faults:
    return replace(NO_FAULTS, **{f"{kind}_at": number}, **how)  # type: ignore[arg-type]


LOUD = {  # what goes wrong: the calls that it happens to, and how
    "a read fails once": ("fail_read", {}),
    "all reads fail from then on": ("fail_read", {"for_ever": True}),
    "a read is short": ("fail_read", {"short_bytes": 512}),
    "a write fails once": ("fail_write", {}),
    "all writes fail from then on": ("fail_write", {"for_ever": True}),
    "the host is full for a moment": ("fail_write", {"error": errno.ENOSPC}),
    "the host is full": ("fail_write", {"error": errno.ENOSPC, "for_ever": True}),
    "a write is short": ("fail_write", {"short_bytes": 1536}),
    "writes are short from then on": ("fail_write", {"short_bytes": 1536, "for_ever": True, "error": errno.ENOSPC}),
    "a flush fails once and drops all": ("fail_flush", {}),
    "a flush fails once and drops a part": ("fail_flush", {"flush_keeps": 0.5}),
    "all flushes fail from then on": ("fail_flush", {"for_ever": True}),
    "all flushes fail and keep a part": ("fail_flush", {"for_ever": True, "flush_keeps": 0.9, "error": errno.ENOSPC}),
}
WHOLE = range(len(STEPS))
AFTER_A_CRASH = range(18, 23)  # a journal with data, links, attributes to be replayed, then some work and a checkpoint


def loud_faults(what: str, steps: range) -> Iterator[Faults]:
    kind, how = LOUD[what]
    for number in range(getattr(calls(steps), kind.removeprefix("fail_"))):
        yield struck(kind, number, **how, seed=number)


def disks_after(disk: SimulatedDevice, seed: int) -> Iterator[MemoryDevice]:
    """Yield what the next mount may find: the disk as it looks now, and as a power cut leaves it."""
    yield disk.copy()
    if disk.pending:
        yield disk.crash(seed)
