"""Where requests wait: how long a look-up takes beside slow readers and writers, and what the daemon's request thread waits for.

    python -m bench.waiting [--seconds 10] [--in-place] [--many] [--write]

An image is mounted by a daemon of its own. One client measures look-ups of names that do not exist and the making and removing of
files: first alone, then beside writers that sync, then beside readers of large compressed files that neither the kernel nor the
daemon has in memory, then beside both. --in-place makes the daemon wait for everything in its only thread, and --many has as many
threads fetch data as otherwise for a slow disk, for comparison.

Of the request thread's time the daemon measures: *parked*, with nothing to do; *working*, by its processor time; *queued*, ready
to run while the system ran somebody else; what is left it *waited*: in calls to the device and for commits and checkpoints under
way, which is measured as well, and else for the interpreter's *lock*, of which the share of the time not parked is told. Beside
other load on the machine the latencies grow with *queued*, and with what the thread *waits* while another one that holds the
interpreter is queued; compare phases of one run. What the thread waits for the interpreter right after it was parked counts as
parked: nobody can see it from here. *longest* is the longest turn from one look for new events to the next, without the time
queued: how long one request may have kept all others waiting.
"""

import argparse
import json
import multiprocessing
import os
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import trio

from bench.page import machine, publish
from razortools.engine.create import create, plan_create
from razortools.engine.store.device import FileDevice, create_image
from razortools.engine.store.residence import Residence
from razortools.engine.volume import Volume, open_volume
from razortools.format.compression import Algorithm, Policy
from razortools.service import mountpoints, opening, server, turns
from razortools.service.opening import Place
from razortools.service.options import parse_options
from razortools.units import GIB, KIB, MIB

IMAGE_BYTES = 2 * GIB
FILE_BYTES = 64 * MIB
READERS, WRITERS = 2, 2
READ_BYTES = 1 * MIB
OPTIONS = "cache=16M,dirty=32M,loglevel=error"
PHASES: dict[str, tuple[int, int]] = {  # readers and writers beside the client that measures
    "alone": (0, 0),
    "beside writers that sync": (0, WRITERS),
    "beside cold readers": (READERS, 0),
    "beside both": (READERS, WRITERS),
}
HEAD = (
    f"{'':33s}{'latency in ms':>24s}{'the request thread: share of its time':>45s}{'and ms':>48s}\n"
    f"{'a client':26s}{'count':>7s}{'p50':>8s}{'p99':>8s}{'max':>8s}{'parked':>9s}{'works':>9s}{'queued':>9s}{'waits':>9s}"
    f"{'of busy':>9s}{'lock':>9s}{'device':>10s}{'flights':>10s}{'in place':>10s}{'longest':>10s}"
)


def say(line: str) -> None:
    """Write a line."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


# The daemon


class Parked(trio.abc.Instrument):
    """Measures how long trio waits for something to do, without what it takes to get there and back."""

    def __init__(self) -> None:
        self.parked_s = self._at = self._work_at = self._queued_at = self.longest_s = 0.0
        self._scheduled = os.open(f"/proc/self/task/{threading.get_native_id()}/schedstat", os.O_RDONLY)
        self._woke_at, self._queued_at_waking = time.perf_counter(), self.queued_s()

    def before_io_wait(self, timeout: float) -> None:
        """Trio goes to sleep."""
        turn_s = time.perf_counter() - self._woke_at - (self.queued_s() - self._queued_at_waking)
        self.longest_s = max(self.longest_s, turn_s)
        self._queued_at, self._work_at, self._at = self.queued_s(), time.thread_time(), time.perf_counter()

    def after_io_wait(self, timeout: float) -> None:
        """Trio wakes up."""
        slept_s = time.perf_counter() - self._at
        self._woke_at, self._queued_at_waking = time.perf_counter(), self.queued_s()
        self.parked_s += slept_s - (time.thread_time() - self._work_at) - (self.queued_s() - self._queued_at)

    def queued_s(self) -> float:
        """Return how long this thread has been ready to run while others ran."""
        return int(os.pread(self._scheduled, 100, 0).split()[1]) / 1e9


class AtTheDevice:
    """Measures how long the loop sleeps in calls to the image file, from the moment it is made."""

    def __init__(self) -> None:
        self.waited_s = 0.0
        self._loop = threading.get_ident()
        for name in ("read", "write", "write_parts", "flush"):
            setattr(FileDevice, name, self._measured(getattr(FileDevice, name)))

    def _measured(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def measured(*args: Any) -> Any:
            if threading.get_ident() != self._loop:
                return call(*args)
            started, worked = time.perf_counter(), time.thread_time()
            try:
                return call(*args)
            finally:
                self.waited_s += time.perf_counter() - started - (time.thread_time() - worked)

        return measured


@dataclass
class Figures:
    """Sums since the daemon's start, in seconds, and counts."""

    wall_s: float
    parked_s: float
    working_s: float
    queued_s: float
    device_s: float
    flights_s: float
    flights: int
    in_place_s: float
    in_place: int
    longest_s: float

    def since(self, before: "Figures") -> "Figures":
        """Return the difference."""
        sums = {name: getattr(self, name) - getattr(before, name) for name in self.__dataclass_fields__}
        return Figures(**sums | {"longest_s": self.longest_s})

    @property
    def waited_s(self) -> float:
        """Seconds that nothing else explains."""
        return self.wall_s - self.parked_s - self.working_s - self.queued_s

    @property
    def locked_s(self) -> float:
        """Seconds of these that were not waited at the device, nor for another thread that was there."""
        return max(0.0, self.waited_s - self.device_s - self.flights_s)


def serve(image: str, mount_point: str, *, in_place: bool, many: bool) -> None:
    """Serve until unmounted; each line from stdin asks for the figures of this moment."""
    if in_place:
        Residence.waits = property(lambda self: True)  # type: ignore[assignment]
    if many:
        setattr(turns, "few_threads", lambda processors, many: many)  # noqa: B010  (it is not for others to set)
    parked, volumes, device = Parked(), list[Volume](), AtTheDevice()

    def remembered(*args: Any, **keywords: Any) -> Volume:
        volumes.append(open_volume(*args, **keywords))
        return volumes[-1]

    setattr(opening, "open_volume", remembered)  # noqa: B010  (it is not for others to set)

    def figures() -> Figures:
        volume = volumes[0].statistics()
        return Figures(
            time.perf_counter(), parked.parked_s, time.thread_time(), parked.queued_s(), device.waited_s,
            volume.waits_for_flights_s, volume.waits_for_flights, volume.waits_in_place_s, volume.waits_in_place,
            parked.longest_s,
        )  # fmt: skip

    async def told() -> str:
        now = json.dumps(vars(figures()))
        parked.longest_s = 0.0
        return now

    def answer(token: trio.lowlevel.TrioToken) -> None:
        for _ in sys.stdin:
            say(trio.from_thread.run(told, trio_token=token))

    def ready() -> None:
        trio.lowlevel.add_instrument(parked)
        threading.Thread(target=answer, args=(trio.lowlevel.current_trio_token(),), daemon=True).start()
        say("ready")

    server.serve(Place(image, mount_point), parse_options([OPTIONS]), ready)


# The clients


def read_cold(path: Path, until: Event, image: Path) -> None:
    """Read a file over and over, each time from the image."""
    while not until.is_set():
        descriptor = os.open(path, os.O_RDONLY)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        _drop(image)
        while os.read(descriptor, READ_BYTES) and not until.is_set():
            pass
        os.close(descriptor)


def _drop(image: Path) -> None:
    """Have the host forget what it has cached of the image."""
    descriptor = os.open(image, os.O_RDONLY)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(descriptor)


def write_synced(path: Path, until: Event, image: Path) -> None:
    """Write and sync, as a database does."""
    data = random.Random(str(path)).randbytes(64 * KIB)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT)
    while not until.is_set():
        os.pwrite(descriptor, data, random.randrange(256) * len(data))
        os.fsync(descriptor)
    os.close(descriptor)


def measure(folder: Path, seconds: float) -> list[float]:
    """Return how long each of many requests about names took, in seconds."""
    end, took = time.monotonic() + seconds, []
    clock = time.perf_counter
    number = 0
    while time.monotonic() < end:
        number += 1
        path = folder / f"{number}-{time.monotonic_ns()}"
        for request in (path.exists, path.touch, path.unlink):
            started = clock()
            request()
            took.append(clock() - started)
        time.sleep(0.002)  # a client that is always there would measure the queue that it makes itself
    return took


def phase(mount_point: Path, image: Path, readers: int, writers: int, seconds: float) -> list[float]:
    """Run one phase; return the latencies."""
    until = multiprocessing.Event()
    work: list[tuple[Callable[[Path, Event, Path], None], str]] = [(read_cold, f"large {number}") for number in range(readers)]
    work += [(write_synced, f"synced {number}") for number in range(writers)]
    others = [multiprocessing.Process(target=what, args=(mount_point / name, until, image)) for what, name in work]
    for process in others:
        process.start()
    try:
        return measure(mount_point, seconds)
    finally:
        until.set()
        for process in others:
            process.join()


def fill(mount_point: Path) -> None:
    """Make the files that are read: text that shrinks well, so that much is decompressed for little that is read."""
    words = [b"%x" % number for number in random.Random(1).choices(range(5000), k=FILE_BYTES // 16)]
    for number in range(READERS):
        text = b" ".join(words[number:])
        (mount_point / f"large {number}").write_bytes((text * 4)[:FILE_BYTES])


def row(name: str, took: list[float], spent: Figures) -> str:
    """Return a line of the table."""
    percentiles = statistics.quantiles(took, n=100)
    active_s = max(spent.wall_s - spent.parked_s, 1e-9)
    shares = [100 * part / spent.wall_s for part in (spent.parked_s, spent.working_s, spent.queued_s, spent.waited_s)]
    return (
        f"{name:26s}{len(took):7d}{1000 * percentiles[49]:8.2f}{1000 * percentiles[98]:8.2f}{1000 * max(took):8.1f}"
        + "".join(f"{share:8.1f}%" for share in shares)
        + "".join(f"{100 * part / active_s:8.1f}%" for part in (spent.waited_s, spent.locked_s))
        + "".join(f"{1000 * part:10.1f}" for part in (spent.device_s, spent.flights_s, spent.in_place_s, spent.longest_s))
    )


def main() -> None:
    """Run all phases and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--in-place", action="store_true")
    parser.add_argument("--many", action="store_true")
    parser.add_argument("--write", action="store_true", help="put the table into docs/BENCHMARKS.md")
    parser.add_argument("--serve", nargs=2, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.serve:
        serve(*chosen.serve, in_place=chosen.in_place, many=chosen.many)
        return
    with tempfile.TemporaryDirectory() as folder:
        image, mount_point = Path(folder, "image"), Path(folder, "mnt")
        mount_point.mkdir()
        with create_image(image, IMAGE_BYTES) as device:
            create(device, plan_create(IMAGE_BYTES, compression=Policy(Algorithm.ZSTD, 3)))
        command = [sys.executable, "-m", "bench.waiting", "--serve", str(image), str(mount_point)]
        command += ["--in-place"] * chosen.in_place + ["--many"] * chosen.many
        daemon = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert daemon.stdin is not None and daemon.stdout is not None

        def figures() -> Figures:
            assert daemon.stdin is not None and daemon.stdout is not None
            daemon.stdin.write("\n")
            daemon.stdin.flush()
            return Figures(**json.loads(daemon.stdout.readline()))

        try:
            assert daemon.stdout.readline() == "ready\n"
            fill(mount_point)
            os.sync()
            say(HEAD)
            lines = [f"{machine(Path(folder))}; {chosen.seconds:g} s each.", HEAD]
            for name, (readers, writers) in PHASES.items():
                before = figures()
                took = phase(mount_point, image, readers, writers, chosen.seconds)
                lines.append(row(name, took, figures().since(before)))
                say(lines[-1])
        finally:
            mountpoints.unmount(str(mount_point))
            daemon.wait()
    if chosen.write:
        publish("waiting", "\n```\n" + "\n".join(lines) + "\n```\n\n")


if __name__ == "__main__":
    main()
