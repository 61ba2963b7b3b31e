"""How razorfsck tells how far it is: as it moves, not more often than one can read, also of work without a known whole."""

import os
from collections.abc import Iterator

import pytest

from razortools.check.pulse import PulsingDevice
from razortools.cli.fsck_pace import BETWEEN, EACH_S, PARTS, SILENCE_S, Pace
from razortools.engine.store.pages import MemoryDevice
from razortools.units import MIB


class Told:
    """A pace with a clock of its own, and what a program is told by it."""

    def __init__(self) -> None:
        self.now = 100.0
        self._read, write = os.pipe()
        os.set_blocking(self._read, False)
        self.write = write
        self.pace = Pace("img", write, quiet=True, clock=lambda: self.now)

    def lines(self) -> list[tuple[int, int, int]]:
        try:
            text = os.read(self._read, 1 << 20).decode()
        except BlockingIOError:
            return []
        return [(int(phase), int(done), int(total)) for phase, done, total, _ in map(str.split, text.splitlines())]

    def close(self) -> None:
        os.close(self._read)
        os.close(self.write)


@pytest.fixture
def told() -> Iterator[Told]:
    made = Told()
    yield made
    made.close()


def test_a_phase_that_takes_a_day_moves_each_second(told: Told) -> None:
    day_s = 24 * 3600
    with told.pace.phase(7, "checking") as far:
        assert told.lines() == [(7, 0, PARTS)]
        done = 0
        for second in range(1, 61):
            told.now += 1.0
            far(second, day_s)
            reached = told.lines()
            assert len(reached) == 1 and reached[0][1] > done
            done = reached[0][1]
    assert told.lines() == [(7, PARTS, PARTS)]


def test_what_moves_a_million_times_a_second_is_told_a_few_times(told: Told) -> None:
    with told.pace.phase(3, "checking") as far:
        for step in range(10_000):
            told.now += 1e-6
            far(step, 10_000)
    assert len(told.lines()) <= 4


def test_what_is_told_never_falls_back(told: Told) -> None:
    with told.pace.phase(3, "checking") as far:
        for done, total in ((5, 10), (2, 10), (0, 0), (6, 10)):
            told.now += 1.0
            far(done, total)
    assert [done for _, done, _ in told.lines()] == [0, PARTS // 2, PARTS * 6 // 10, PARTS]


def test_work_between_the_phases_is_told_by_what_it_reads_once_it_takes_long(told: Told) -> None:
    device = PulsingDevice(MemoryDevice(64 * MIB), told.pace.pulse)
    with told.pace.between("Repairing"):
        device.read(0, MIB)
        assert told.lines() == []
        told.now += SILENCE_S
        device.read(0, MIB)
        assert told.lines() == [(BETWEEN, 2, 0)]
        device.read(0, MIB)
        assert told.lines() == []
        for step in range(4, 8):
            told.now += EACH_S
            device.write(0, bytes(MIB))
            assert told.lines() == [(BETWEEN, step, 0)]
    told.now += 10
    device.read(0, MIB)
    assert told.lines() == []  # a phase tells its own progress


def test_a_pulsing_device_is_the_device_below() -> None:
    below = MemoryDevice(8 * MIB)
    beats: list[int] = []
    device = PulsingDevice(below, beats.append)
    device.write(5, b"hello")
    assert device.read(4, 7) == b"\0hello\0" and below.read(5, 5) == b"hello"
    assert device.read_strided(0, 4096, 1024, 8) == below.read_strided(0, 4096, 1024, 8)
    assert device.next_data(0) == below.next_data(0) and device.read_cached(5, 5) == b"hello"
    device.resize(4 * MIB)
    assert device.size_bytes == below.size_bytes == 4 * MIB and device.read_only is below.read_only is False
    below.read_only = True
    assert device.read_only
    assert beats == [5, 12, 12 + 4096]
