"""A flight is written once, whoever comes first, and finished by its owner once it is stable."""

import threading

import pytest

from razortools.engine.store.durations import Durations
from razortools.engine.store.flight import Flight, Flights


class Log:
    """What a flight did."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.inside = threading.Event()
        self.may_write = threading.Event()
        self.may_write.set()
        self.failure: Exception | None = None
        self.flight = Flight(self.write, lambda: self.lines.append("landed"), lambda why: self.lines.append(f"failed: {why}"))

    def write(self) -> None:
        self.lines.append("write")
        self.inside.set()
        assert self.may_write.wait(60)
        if self.failure:
            raise self.failure
        self.lines.append("written")


def test_whoever_settles_what_nobody_has_written_writes_it() -> None:
    log = Log()
    log.flight.settle()
    assert log.lines == ["write", "written", "landed"]


def test_what_was_written_is_not_written_again() -> None:
    log = Log()
    log.flight.run()
    log.flight.run()
    assert log.lines == ["write", "written"]
    log.flight.settle()
    assert log.lines == ["write", "written", "landed"]


def test_settling_waits_for_the_thread_that_writes() -> None:
    log = Log()
    log.may_write.clear()
    thread = threading.Thread(target=log.flight.run)
    thread.start()
    assert log.inside.wait(60)
    release = threading.Timer(0.01, log.may_write.set)
    release.start()
    log.flight.settle()
    thread.join()
    release.join()
    assert log.lines == ["write", "written", "landed"]


def test_a_failure_is_told_to_the_owner_and_not_to_the_thread() -> None:
    log = Log()
    log.failure = OSError("the disk is gone")
    log.flight.run()
    with pytest.raises(OSError, match="the disk is gone"):
        log.flight.settle()
    assert log.lines == ["write", "failed: the disk is gone"]


def test_an_owner_has_one_flight_at_a_time_and_counts_those_that_it_waited_for() -> None:
    lines: list[str] = []
    times = Durations()
    flights = Flights(lambda why: lines.append(f"failed: {why}"))
    flights.settle()
    assert (flights.current, flights.wait_count) == (None, 0), "nothing was under way"

    flight = flights.begin(lambda: lines.append("write"), lambda: lines.append("landed"), times)
    with pytest.raises(AssertionError):
        flights.begin(lambda: None, lambda: None, times)
    flight.run()
    flights.settle()
    assert (lines, flights.current, flights.wait_count) == (["write", "landed"], None, 0), "it had landed: nobody waited"

    flights.begin(lambda: lines.append("write"), lambda: lines.append("landed"), times)
    flights.settle()
    assert lines == ["write", "landed"] * 2 and flights.wait_count == 1 and flights.wait_s > 0
    assert sum(times.counts) == 2

    def fail() -> None:
        raise OSError("the disk is gone")

    flights.begin(fail, lambda: lines.append("landed"), times)
    with pytest.raises(OSError, match="the disk is gone"):
        flights.settle()
    assert lines[-1] == "failed: the disk is gone" and flights.current is None and sum(times.counts) == 2
