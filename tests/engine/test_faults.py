"""Fault sweeps: whichever call to the device fails, nothing wrong is read, nothing is half done, nothing acknowledged is lost.

A standard workload is played once without a fault, with a picture of everything after each step. Then once more for every call
to the device and every way in which it can go wrong. The pictures are what is allowed to be seen.
"""

import random
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from functools import cache

import pytest

from razortools.engine import files, namespace, xattrs
from razortools.engine.store.pages import MemoryDevice
from razortools.engine.store.simulated import NO_FAULTS, Faults, SimulatedDevice
from razortools.engine.volume import Volume, open_volume
from razortools.errors import NotAnImage, ReadOnly
from razortools.units import KIB, MIB
from tests.engine.faulty import (
    AFTER_A_CRASH,
    HONEST,
    IMAGE_BYTES,
    LOUD,
    RECORD_BYTES,
    TIGHT,
    WHOLE,
    Picture,
    R,
    Run,
    SteppingClock,
    at,
    base,
    calls,
    create,
    disks_after,
    loud_faults,
    noise,
    open_tight,
    pictures,
    problems_of,
    recovers,
    see,
    setxattr,
    struck,
    truncate,
    unlink,
    whole_run,
    write,
)
from tests.workload import Workload, everything, formatted, opened


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
@pytest.mark.no_cover  # the same with two seeds is measured
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
