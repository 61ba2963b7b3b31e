"""Fault sweeps: whichever call to the device fails, nothing wrong is read, nothing is half done, nothing acknowledged is lost.

A standard workload is played once without a fault, with a picture of everything after each step. Then once more for every call
to the device and every way in which it can go wrong. The pictures are what is allowed to be seen.
"""

import errno
import random
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cache
from hashlib import sha256
from stat import S_ISDIR

import pytest

from razortools.check import runner
from razortools.check.findings import Severity
from razortools.engine import directories, files, namespace, orphans, xattrs
from razortools.engine.limits import Limits
from razortools.engine.store import superblocks
from razortools.engine.store.device import MemoryDevice
from razortools.engine.store.simulated import NO_FAULTS, Faults, SimulatedDevice
from razortools.engine.volume import Volume, open_volume
from razortools.errors import CorruptImage, DeviceFailed, NotAnImage, OutOfSpace, PosixError, ReadOnly
from razortools.format.compression import Algorithm, Policy
from razortools.format.data import DataRecord
from razortools.format.inode import ROOT_INODE
from razortools.format.journal import Operation
from razortools.format.keys import Kind, Table, kind_range, object_of, table_range
from razortools.units import KIB, MIB, NANOSECONDS, BlockNo, InodeNo
from tests.workload import Seen, Workload, _see, everything, formatted, opened

IMAGE_BYTES = 1 * MIB
RECORD_BYTES = 8 * KIB
OLD_FILES = 16
# So little memory that nearly everything is read from the device again, and that writing flushes what was written before.
TIGHT = Limits(record_cache_bytes=0, metadata_cache_bytes=8 * KIB, dirty_bytes=4 * RECORD_BYTES)
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


@pytest.mark.parametrize("steps", [WHOLE, AFTER_A_CRASH], ids=["in the workload", "in recovery"])
@pytest.mark.parametrize("what", LOUD)
def test_whichever_call_fails_loudly_nothing_is_wrong_or_half_done_or_lost(what: str, steps: range) -> None:
    for faults in loud_faults(what, steps):
        disk = SimulatedDevice.holding(base(steps.start), faults)
        try:
            run = whole_run(disk, steps)
            # A read has other copies to turn to; a write or flush that failed is always told.
            assert run.told or LOUD[what][0] == "fail_read"
            for after in disks_after(disk, faults.seed):
                recovers(after, run)
        except Exception as failed:
            failed.add_note(f"{what}: {faults}")
            raise


SILENT = {
    "a bit of a read flips": "flip_read",
    "a bit of a write flips": "flip_write",
    "a read comes from elsewhere": "misdirect_read",
    "a write goes elsewhere": "misdirect_write",
}
DISTANCES_BYTES = (4096, 8192, 5 * 4096, 512 * KIB, 512, 1 * MIB - 4096)


def silent_faults(what: str, steps: range, seeds: range) -> Iterator[Faults]:
    kind = SILENT[what]
    for number in range(getattr(calls(steps), kind.partition("_")[2])):
        for seed in seeds:
            chance = random.Random(f"{kind} {number} {seed}")
            how = {"flip_bit": chance.randrange(1 << 20), "misdirect_bytes": chance.choice(DISTANCES_BYTES)}
            yield struck(kind, number, **how, seed=number)


def tells_the_truth(disk: MemoryDevice, run: Run, *, after_a_power_cut: bool) -> None:
    """Whatever can be read of *disk* is right; what cannot is told as an error of the image or the device, nothing else.

    A power cut that follows a fault in the journal's last transaction leaves what looks like a tear: the image is what it was
    before that transaction. Nobody can tell the two apart; a clean unmount leaves no such transaction.
    """
    clock = SteppingClock()
    with suppress(*HONEST, NotAnImage):
        volume = open_tight(disk, clock)
        first = run.synced[-2:][0] if after_a_power_cut else run.synced[-1]
        see(volume, pictures()[first : run.executed + 1])
        volume.close()


def silent_sweep(what: str, steps: range, all_faults: Iterator[Faults]) -> None:
    for faults in all_faults:
        disk = SimulatedDevice.holding(base(steps.start), faults)
        try:
            run = whole_run(disk, steps)
            for number, after in enumerate(disks_after(disk, faults.seed)):
                tells_the_truth(after, run, after_a_power_cut=number > 0 or steps.start > 0)
        except Exception as failed:
            failed.add_note(f"{what}: {faults}")
            raise


@pytest.mark.parametrize("steps", [WHOLE, AFTER_A_CRASH], ids=["in the workload", "in recovery"])
@pytest.mark.parametrize("what", SILENT)
def test_whichever_call_fails_silently_nothing_wrong_is_read(what: str, steps: range) -> None:
    silent_sweep(what, steps, silent_faults(what, steps, range(2)))


@pytest.mark.slow
@pytest.mark.parametrize("steps", [WHOLE, AFTER_A_CRASH], ids=["in the workload", "in recovery"])
@pytest.mark.parametrize("what", SILENT)
def test_whichever_call_fails_silently_nothing_wrong_is_read_with_many_seeds(what: str, steps: range) -> None:
    silent_sweep(what, steps, silent_faults(what, steps, range(2, 12)))


@pytest.mark.parametrize("steps", [WHOLE, AFTER_A_CRASH], ids=["in the workload", "in recovery"])
def test_a_disk_that_becomes_shorter_is_an_error_and_what_is_left_reads_right(steps: range) -> None:
    made = calls(steps)
    shorter = (
        replace(NO_FAULTS, truncate_at=number, truncate_to_bytes=random.Random(number).randrange(IMAGE_BYTES), seed=number)
        for number in range(made.read + made.write + made.flush)
    )
    silent_sweep("truncated", steps, shorter)



COLD = {  # operations on the large tree below, each of which meets nodes that are not in memory
    "create": create(b"/d3/new"),
    "mkdir": lambda volume: namespace.mkdir(volume, at(volume, b"/d5"), b"a new directory", 0o755, 1, 2),
    "write": write(b"/d1/file 17", 100, b"x" * 3_000),
    "grow": truncate(b"/d6/file 3", 40_000),
    "shrink": truncate(b"/d0/large", 10_000),
    "unlink": unlink(b"/d2/file 20"),
    "unlink a large file": unlink(b"/d0/large"),
    "link": lambda volume: namespace.link(volume, at(volume, b"/d7/file 1"), at(volume, b"/d4"), b"file 1 of d7"),
    "rename": lambda volume: namespace.rename(volume, at(volume, b"/d1"), b"file 2", at(volume, b"/d6"), b"moved", 0),
    "rename over": lambda volume: namespace.rename(volume, at(volume, b"/d1"), b"file 5", at(volume, b"/d6"), b"file 9", 0),
    "exchange": lambda volume: namespace.rename(
        volume, at(volume, b"/d0"), b"large", at(volume, b"/d5"), b"file 9", namespace.RENAME_EXCHANGE
    ),
    "setxattr": setxattr(b"/d3/file 8", b"user.more", b"value" * 20),
    "removexattr": lambda volume: xattrs.remove(volume, at(volume, b"/d3/file 8"), b"user.old"),
    "chmod": lambda volume: namespace.setattr(volume, at(volume, b"/d2/file 21"), namespace.AttributeChange(mode=0o600)),
}


@cache
def large_tree() -> MemoryDevice:
    """Return a filesystem with one copy of each node, so that a read that fails is an operation that fails."""
    disk = MemoryDevice(4 * MIB)
    formatted(disk, record_bytes=RECORD_BYTES, metadata_copies=1)
    with open_volume(disk, clock=SteppingClock()) as volume:
        for folder in range(8):
            directory = namespace.mkdir(volume, R, b"d%d" % folder, 0o755, 1, 2)
            for number in range(24):
                ino = namespace.create(volume, directory, b"file %d" % number, 0o644, 1, 2)
                files.write(volume, ino, 0, noise(200, 100 * folder + number))
                xattrs.set(volume, ino, b"user.old", b"%d" % number)
        files.write(volume, namespace.create(volume, at(volume, b"/d0"), b"large", 0o644, 1, 2), 0, noise(800_000, 1))
    return disk


@pytest.mark.parametrize("name", COLD)
def test_an_operation_that_meets_an_unreadable_node_has_no_effect_at_all(name: str) -> None:
    expected = {}
    disk = SimulatedDevice.holding(large_tree())
    for what in ("before", "after"):
        volume = open_tight(disk, SteppingClock())
        if what == "after":
            COLD[name](volume)
        expected[what] = everything(volume)
    volume = open_tight(SimulatedDevice.holding(large_tree()), SteppingClock())
    disk = reading(volume)
    opened_with = disk.read_count
    COLD[name](volume)
    assert disk.read_count > opened_with
    effects = set()
    for number in range(disk.read_count - opened_with):
        volume = open_tight(SimulatedDevice.holding(large_tree()), SteppingClock())
        disk = reading(volume)
        disk.faults = Faults(fail_read_at=disk.read_count + number)
        before = volume.counters.encode(), dict(volume.store.maps.unclaimed)
        try:
            COLD[name](volume)
            effect = "after"
        except HONEST:
            effect = "before"
        assert everything(volume) == expected[effect], f"read {number}: the operation was to be seen as {effect}"
        assert effect == "after" or (volume.counters.encode(), dict(volume.store.maps.unclaimed)) == before
        COLD[name](volume) if effect == "before" else None
        assert everything(volume) == expected["after"]
        effects.add(effect)
        volume.close()
        assert problems_of(disk) == []
    assert "before" in effects


def reading(volume: Volume) -> SimulatedDevice:
    """Return the disk that *volume* lies on."""
    disk = volume.store.device
    assert isinstance(disk, SimulatedDevice)
    return disk


@pytest.mark.slow
@pytest.mark.parametrize("what", LOUD)
def test_random_work_on_a_failing_disk_recovers_to_one_of_its_states(what: str) -> None:
    """A wider net with coarser meshes: what a step that failed should have done is not known here, only that it is clean."""
    random_work(what, range(8))


def random_work(what: str, seeds: range) -> None:
    kind, how = LOUD[what]
    for seed in seeds:
        chance = random.Random(f"{what} {seed}")
        disk = SimulatedDevice(2 * MIB)
        formatted(disk, record_bytes=RECORD_BYTES, metadata_copies=chance.choice((1, 2)))
        volume = opened(disk, limits=TIGHT)
        work = Workload(volume, seed, file_bytes_max=60_000)
        for _ in range(20):
            work.step()
        volume.commit()
        states = [everything(volume)]
        made = getattr(disk, kind.removeprefix("fail_") + "_count")
        disk.faults = struck(kind, made + chance.randrange(60 if kind != "fail_flush" else 8), seed=seed, **how)
        try:
            states = work_until_told(disk, volume, work, states)
            for after in disks_after(disk, seed):
                volume = opened(after)
                assert everything(volume) in states
                volume.close()
                assert problems_of(after) == []
        except Exception as failed:
            failed.add_note(f"{what}, seed {seed}: {disk.faults}")
            raise


def work_until_told(disk: SimulatedDevice, volume: Volume, work: Workload, states: list[Picture]) -> list[Picture]:
    """Work and commit until something fails; return the states that may be found after that: those since the last commit."""
    for _ in range(150):
        try:
            work.step()
            states.append(everything(volume))
            if work.chance.random() < 0.2:
                volume.commit()
                states = states[-1:]
        except (*HONEST, ReadOnly):
            break
    faults, disk.faults = disk.faults, NO_FAULTS
    with suppress(*HONEST):  # a flush that failed has dropped data
        states.append(everything(volume))  # the step may have had its effect, or one of its two operations
    disk.faults = faults
    with suppress(*HONEST):
        was_read_only = volume.read_only
        volume.close()
        if not was_read_only:
            states = states[-1:]
    return states


# What the sweeps have found, and what they led to


def crashed_after_a_commit() -> SimulatedDevice:
    """Return a disk with one transaction to replay, which names data and was acknowledged."""
    disk = SimulatedDevice.holding(fresh_disk())
    volume = open_tight(disk, SteppingClock())
    files.write(volume, at(volume, b"/old1"), 0, noise(20_000, 9))
    volume.commit()
    return SimulatedDevice.holding(disk.stable())


def reads_of_data(disk: SimulatedDevice) -> list[int]:
    """Return the numbers of the reads that recovery makes of the transaction's data."""
    probe = SimulatedDevice.holding(disk)
    volume = open_tight(probe, SteppingClock())
    ino = at(volume, b"/old1")
    places = {record.address for _, record in data_records(volume, ino)}
    numbers = []
    probe = SimulatedDevice.holding(disk)
    real_read = probe.read

    def read(offset: int, length: int) -> bytes:
        if offset // volume.block_bytes in places:
            numbers.append(probe.read_count)
        return real_read(offset, length)

    probe.read = read  # type: ignore[method-assign]
    open_tight(probe, SteppingClock())
    assert len(numbers) >= 3
    return numbers


def data_records(volume: Volume, ino: InodeNo) -> list[tuple[bytes, DataRecord]]:
    return [(key, DataRecord.decode(value)) for key, value in volume.store.items(*kind_range(ino, Kind.DATA_RECORD))]


def test_data_that_cannot_be_read_in_recovery_do_not_pass_for_lost_ones() -> None:
    """The transaction was dropped as one that had never been acknowledged, for good: the next checkpoint made it so."""
    disk = crashed_after_a_commit()
    for number in reads_of_data(disk):
        failing = SimulatedDevice.holding(disk, Faults(fail_read_at=number))
        with pytest.raises(DeviceFailed):
            open_tight(failing, SteppingClock())
        volume = open_tight(failing.copy(), SteppingClock())
        assert files.read(volume, at(volume, b"/old1"), 0, 20_000) == noise(20_000, 9)


def test_data_that_are_misread_once_in_recovery_do_not_pass_for_lost_ones() -> None:
    disk = crashed_after_a_commit()
    for number in reads_of_data(disk):
        volume = open_tight(SimulatedDevice.holding(disk, Faults(flip_read_at=number)), SteppingClock())
        assert files.read(volume, at(volume, b"/old1"), 0, 20_000) == noise(20_000, 9)


def slot_of(disk: SimulatedDevice) -> int:
    """Return which slot holds the newest superblock."""
    return superblocks.newest(disk).slot


class BadPlaces(SimulatedDevice):
    """A disk that cannot read some places at all."""

    bad: tuple[int, ...] = ()

    def read(self, offset: int, length: int) -> bytes:
        if any(offset <= place < offset + length for place in self.bad):
            raise DeviceFailed(f"{self.name}: read of {length} bytes at {offset} failed, as the test asked")
        return super().read(offset, length)


@pytest.mark.parametrize("with_backups", [True, False])
def test_an_unreadable_superblock_slot_is_no_reason_to_go_back_to_an_older_state(*, with_backups: bool) -> None:
    """The other slot was taken for the truth. What it names, in tree and journal, has been released and may be overwritten."""
    written = SimulatedDevice.holding(fresh_disk())
    volume = open_tight(written, SteppingClock())
    namespace.mkdir(volume, R, b"new", 0o755, 0, 0)
    volume.checkpoint()
    left = written.copy() if with_backups else written.stable()  # the backups have no flush of their own
    disk = BadPlaces.holding(left)
    assert isinstance(disk, BadPlaces)
    disk.bad = (slot_of(disk) * volume.block_bytes,)
    if with_backups:
        assert b"/new" in everything(open_tight(disk, SteppingClock()))
    else:
        with pytest.raises(DeviceFailed, match="slot cannot be read"):
            open_tight(disk, SteppingClock())
        disk.bad = ()
        assert b"/new" in everything(open_tight(disk, SteppingClock()))


def test_a_superblock_slot_that_is_misread_once_is_no_reason_to_go_back_to_an_older_state() -> None:
    written = SimulatedDevice.holding(fresh_disk())
    volume = open_tight(written, SteppingClock())
    namespace.mkdir(volume, R, b"new", 0o755, 0, 0)
    volume.checkpoint()
    for number in range(len(superblocks.find_copies(written))):
        disk = SimulatedDevice.holding(written.stable(), Faults(flip_read_at=number, flip_bit=800))
        assert superblocks.newest(disk).generation == volume.statistics().generation


def test_a_disk_that_reads_nothing_is_not_called_something_that_is_no_image() -> None:
    disk = SimulatedDevice.holding(fresh_disk(), Faults(fail_read_at=0, for_ever=True))
    with pytest.raises(DeviceFailed, match="cannot be read"):
        open_tight(disk, SteppingClock())


def test_a_checkpoint_that_cannot_be_prepared_is_the_last_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """A page of the space map failed to load; nodes that were never written counted as written, and the next one named them."""
    disk = SimulatedDevice.holding(fresh_disk())
    volume = open_tight(disk, SteppingClock())
    namespace.mkdir(volume, R, b"new", 0o755, 0, 0)
    volume.commit()
    before = everything(volume)

    def unreadable(*_: object) -> None:
        raise CorruptImage("space map: wrong checksum")

    monkeypatch.setattr(volume.store.maps, "encode_checkpoint", unreadable)
    with pytest.raises(CorruptImage):
        volume.checkpoint()
    monkeypatch.undo()
    with pytest.raises(ReadOnly, match="space map: wrong checksum"):
        volume.checkpoint()
    volume.close()
    assert everything(open_tight(disk, SteppingClock())) == before


def test_an_orphan_that_a_full_image_cannot_finish_does_not_keep_it_from_being_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    disk = SimulatedDevice.holding(fresh_disk())
    volume = open_tight(disk, SteppingClock())
    ino = at(volume, b"/old1")
    namespace.hold(volume, ino)
    namespace.unlink(volume, R, b"old1")
    volume.commit()

    def full(*_: object) -> bool:
        raise OutOfSpace("no space left")

    monkeypatch.setattr(orphans, "finish_step", full)
    opened = open_tight(disk, SteppingClock())
    assert opened.inodes.get(ino).link_count == 0
    opened.close()
    monkeypatch.undo()
    opened = open_tight(disk, SteppingClock())
    with pytest.raises(PosixError):
        opened.inodes.get(ino)


@pytest.mark.parametrize("reason", ["unlinked", "truncated"])
def test_miscounted_blocks_keep_nothing_from_being_deleted(reason: str) -> None:
    """Counting down below zero gave a struct.error, with the first commit after opening or with the first step of deleting."""
    disk = SimulatedDevice.holding(fresh_disk())
    volume = open_tight(disk, SteppingClock())
    ino = at(volume, b"/old1")
    files.write(volume, ino, 0, noise(20_000, 9))
    volume.commit()
    with volume.operation(Operation.REPAIR, ino):
        inode = volume.inodes.get(ino)
        inode.stored_blocks = 1
        volume.inodes.put(ino, inode)
        volume.counters.data_blocks = volume.counters.raw_bytes = 1
    if reason == "unlinked":
        namespace.hold(volume, ino)
        namespace.unlink(volume, R, b"old1")
        volume.commit()
        volume = open_tight(disk, SteppingClock())
        assert b"/old1" not in everything(volume)
    else:
        files.truncate(volume, ino, 0)
    volume.close()
    assert b"/old2" in everything(open_tight(disk, SteppingClock()))


def test_a_file_whose_tail_cannot_be_read_can_be_cut() -> None:
    disk = SimulatedDevice.holding(fresh_disk())
    volume = open_tight(disk, SteppingClock())
    ino = at(volume, b"/old1")
    files.write(volume, ino, 0, noise(20_000, 9))
    volume.commit()
    everything(volume)  # all nodes are in memory, no data is
    disk.faults = Faults(fail_read_at=disk.read_count, for_ever=True)
    files.truncate(volume, ino, 10_000)
    disk.faults = NO_FAULTS
    assert files.read(volume, ino, 0, 20_000) == noise(20_000, 9)[:10_000]


def test_an_allocation_that_fails_half_way_takes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pieces that had been found when a page of the space map could not be read stayed in use, with nobody to free them."""
    volume = open_tight(SimulatedDevice.holding(fresh_disk()), SteppingClock())
    maps = volume.store.maps
    before = maps.free_blocks
    find_run = maps.allocate_run
    found: list[int] = []

    def fragmented(block_count: int, near: int) -> BlockNo | None:
        if block_count > 2:
            return None
        if found:
            raise DeviceFailed("a page of the space map cannot be read")
        found.append(block_count)
        return find_run(block_count, near)

    monkeypatch.setattr(maps, "allocate_run", fragmented)
    with pytest.raises(DeviceFailed):
        maps.allocate(5)
    monkeypatch.undo()
    assert maps.free_blocks == before
