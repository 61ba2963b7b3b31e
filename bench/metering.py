"""What counting costs: the processor time of the pump with and without its tally, on the same requests.

    python -m bench.metering [--rounds 15] [--requests 4000] [--write]

First without a mount: a pair of sockets stands for the kernel's connection, so only the pump and the engine are measured, and
what counting takes is a larger share than on a mount. The requests are the cheapest there are (GETATTR of one inode, LOOKUP of an
absent name) and reads and writes of 4 KiB from memory. Then a mount whose tally can be switched off, and a client that looks for
names that do not exist, each a request, or makes, writes, reads and removes files. (Two daemons side by side differ by more than
counting takes, for no reason but where their memory lies.) At last scrapes of the metrics while such a client goes on.

What counts is processor time: of the thread that receives, answers and counts; on the mount of the daemon and of its client
together, which share a processor there, so neither spins and the sum is the time that it takes. Rounds with and without
take turns; the last column is the median of what a round with it takes more than the one beside it. Of scrapes it is the time
that they take, and the processor time of making their page, anew and as a mount keeps it. --write puts the table into
docs/BENCHMARKS.md.
"""

import argparse
import ast
import inspect
import itertools
import multiprocessing
import os
import socket
import statistics
import tempfile
import textwrap
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from multiprocessing.synchronize import Event
from pathlib import Path
from types import MethodType
from typing import Any, cast

import trio

from bench.page import machine, tell
from razortools.engine import files, namespace
from razortools.engine.create import create, plan_create
from razortools.engine.store.device import create_image, open_image
from razortools.engine.volume import Volume, open_volume
from razortools.errors import RazorError
from razortools.format.inode import ROOT_INODE
from razortools.service import logs, mountpoints, server
from razortools.service.asking import Asker
from razortools.service.channel import Channel
from razortools.service.committer import Committer
from razortools.service.exposition import Exposition
from razortools.service.figures import MountFigures, Spread
from razortools.service.metrics import page
from razortools.service.opening import Place
from razortools.service.operations import Operations
from razortools.service.options import Address, MountOptions
from razortools.service.pump import BURST_MAX, Pump
from razortools.service.settled import Settled
from razortools.service.tally import LATELY_MAX
from razortools.service.wire import HEAD, READ, WRITE, Opcode
from razortools.units import KIB, MIB, InodeNo

IMAGE_BYTES = 64 * MIB
SCRAPES = 300
PAGES = 50
CHUNK = 8  # requests on their way at once: more writes of 4 KiB than the sockets hold would wait for ever


class _Uncounted(ast.NodeTransformer):
    """Takes the counting out of Pump._answer: what is done with the time that a request took, and the call that counts."""

    def visit_Assign(self, statement: ast.Assign) -> ast.AST | None:
        return None if ast.unparse(statement.targets[0]) == "took_ns" else statement

    def visit_Expr(self, statement: ast.Expr) -> ast.AST | None:
        return None if ast.unparse(statement).startswith("self._note[") else statement

    def visit_If(self, statement: ast.If) -> ast.AST | None:
        return None if ast.unparse(statement.test).startswith("took_ns ") else self.generic_visit(statement)

    def visit_Return(self, statement: ast.Return) -> ast.AST:
        counts = ast.unparse(statement).startswith("return self._end(")
        return ast.parse("return _clock()", mode="single").body[0] if counts else statement


def without_counting(answer: Callable[..., int]) -> Callable[..., int]:
    """Return Pump._answer without its tally, made from its own text: a copy by hand would drift from it, and has."""
    text = ast.parse(textwrap.dedent(inspect.getsource(answer)))
    bare = ast.fix_missing_locations(_Uncounted().visit(text))
    made: dict[str, Callable[..., int]] = {}
    exec(compile(bare, inspect.getfile(answer), "exec"), answer.__globals__, made)
    return made[answer.__name__]


class BarePump(Pump):
    """The pump without its tally, for what is answered at once."""

    _answer = without_counting(Pump._answer)


class SwitchedPump(BarePump):
    """The pump of a daemon that counts or does not, as whoever has forked it wants."""

    is_counting: Any = None  # a shared number, set before the fork

    async def _serve_burst(self, nursery: trio.Nursery) -> bool:
        kind = Pump if self.is_counting.value else BarePump
        self._answer = MethodType(kind._answer, self)  # type: ignore[method-assign]
        return await super()._serve_burst(nursery)


class Rig:
    """A volume whose requests come through a pair of sockets."""

    def __init__(self, volume: Volume) -> None:
        """Serve *volume* with both pumps."""
        self.kernel, daemon = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.channel = Channel(daemon.detach())
        options = MountOptions()
        committer = Committer(volume, options)
        served = Operations(volume, committer, Settled(volume, self.channel.forget_attributes), options)
        self.pumps = {"without": BarePump(self.channel, served, _forward), "with": Pump(self.channel, served, _forward)}

    def cost_us(self, pump: Pump, request: tuple[int, int, bytes], count: int) -> float:
        """Return the processor time of one request among *count*, in microseconds."""
        opcode, node, body = request
        message = HEAD.pack(HEAD.size + len(body), opcode, 1, node, 0, 0, 1, 0, 0) + body
        receive, answer, nursery = self.channel.receive, pump._answer, cast(Any, None)  # nothing here becomes a task
        taken_ns = 0
        for _ in range(count // CHUNK):
            for _ in range(CHUNK):
                self.kernel.send(message)
            started = time.thread_time_ns()
            looked = time.perf_counter_ns()
            for _ in range(CHUNK):
                looked = answer(receive(), looked, nursery)
            if len(pump.tally.lately[opcode]) >= LATELY_MAX:
                pump.tally.settle()
            taken_ns += time.thread_time_ns() - started
            for _ in range(CHUNK):
                self.kernel.recv(64 * KIB)
        return taken_ns / (count // CHUNK * CHUNK) / 1000


def _forward(message: memoryview) -> None:
    raise AssertionError("all of these requests have handlers")


def requests(ino: InodeNo) -> dict[str, tuple[int, int, bytes]]:
    """Return the requests by their names in the table: opcode, node, body."""
    data = b"four kilobytes.." * 256
    return {
        "GETATTR": (Opcode.GETATTR, ino, bytes(16)),
        "LOOKUP of an absent name": (Opcode.LOOKUP, ROOT_INODE, b"absent\0"),
        "READ of 4 KiB": (Opcode.READ, ino, READ.pack(0, 4 * KIB, 0)),
        "WRITE of 4 KiB": (Opcode.WRITE, ino, WRITE.pack(0, 4 * KIB, 0, 0) + data),
    }


@dataclass(frozen=True, slots=True)
class Row:
    """What a request takes in each round, in microseconds; the rounds of both lists took turns."""

    name: str
    without_us: list[float]
    with_us: list[float]

    def told(self) -> str:
        """Return the line of the table."""
        more = statistics.median(counted / bare for counted, bare in zip(self.with_us, self.without_us, strict=True)) - 1
        bare_us, counted_us = statistics.median(self.without_us), statistics.median(self.with_us)
        return f"| {self.name} | {bare_us:.2f} us | {counted_us:.2f} us | {100 * more:.1f} % |"


def measure(folder: Path, rounds: int, count: int) -> list[Row]:
    """Return what requests take without a mount."""
    image = folder / "image"
    with create_image(image, IMAGE_BYTES) as device:
        create(device, plan_create(IMAGE_BYTES, uuid=bytes(range(16)), hash_seed=bytes(16)))
    with open_volume(open_image(image, writable=True)) as volume:
        ino = namespace.create(volume, ROOT_INODE, b"file", 0o644, 0, 0)
        files.write(volume, ino, 0, b"x" * 64 * KIB)
        rig, rows = Rig(volume), list[Row]()
        for name, request in requests(ino).items():
            taken: dict[str, list[float]] = {which: [] for which in rig.pumps}
            for turn in range(rounds):
                for which in sorted(rig.pumps, reverse=bool(turn % 2)):
                    taken[which].append(rig.cost_us(rig.pumps[which], request, count))
            rows.append(Row(name, taken["without"], taken["with"]))
        return rows


def _serve_one(folder: Path, ready: Event, metrics: Address) -> None:
    """Serve an image until it is unmounted. In a process of its own."""
    server.Pump = SwitchedPump  # type: ignore[attr-defined]
    image, mount_point = folder / "mounted.img", folder / "mounted"
    mount_point.mkdir()
    with create_image(image, IMAGE_BYTES) as device:
        create(device, plan_create(IMAGE_BYTES, uuid=bytes(range(16)), hash_seed=bytes(16)))
    logs.start(MountOptions(log="stderr", log_level="error"), foreground=True)
    server.serve(Place(str(image), str(mount_point)), MountOptions(metrics=metrics), ready.set)


@contextmanager
def _on_one_processor(pid: int) -> Iterator[None]:
    """Return a context in which this process and the first thread of *pid* share a processor."""
    all_of_them = os.sched_getaffinity(0)
    one = {max(all_of_them)}
    for each in (0, pid):
        os.sched_setaffinity(each, one)
    try:
        yield
    finally:
        for each in (0, pid):
            os.sched_setaffinity(each, all_of_them)


_names = itertools.count()  # a name that was looked for once the kernel knows


Client = Callable[[str], object]


def _a_files_life(path: str) -> None:
    """Make a file, write 4 KiB, read them, remove it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT)
    os.write(descriptor, b"four kilobytes.." * 256)
    os.pread(descriptor, 4 * KIB, 0)
    os.close(descriptor)
    os.unlink(path)


CLIENTS: dict[str, Client] = {
    "LOOKUP of an absent name, mounted": os.path.exists,
    "a file made, written, read and removed, mounted": _a_files_life,
}


def _mounted_cost_us(folder: Path, pid: int, client: Client, count: int) -> float:
    """Return the processor time of what a *client* of the mount at *folder* does with a name, in microseconds."""
    names = [str(folder / f"name {next(_names)}") for _ in range(count)]
    started = time.process_time_ns() + _ran_ns(pid)
    for name in names:
        client(name)
    return (time.process_time_ns() + _ran_ns(pid) - started) / count / 1000


def _ran_ns(pid: int) -> int:
    """Return the processor time of a process's first thread."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0])


def measure_mounted(folder: Path, rounds: int, count: int) -> tuple[list[Row], list[float], tuple[float, float]]:
    """Return what `measure` does of a mount, how long scrapes of it took under load in seconds, and _page_costs_ms."""
    context = multiprocessing.get_context("fork")
    SwitchedPump.is_counting = is_counting = context.RawValue("i", 1)
    rows = [Row(name, [], []) for name in CLIENTS]
    with socket.create_server(("127.0.0.1", 0)) as lent:  # and given back: the mount takes it next
        address = Address(*lent.getsockname())
    ready, mount_point = context.Event(), folder / "mounted"
    daemon = context.Process(target=_serve_one, args=(folder, ready, address))
    daemon.start()
    try:
        if not ready.wait(60):
            raise TimeoutError("the mount does not answer")
        assert daemon.pid is not None
        with _on_one_processor(daemon.pid):
            for turn, (row, client) in itertools.product(range(rounds), zip(rows, CLIENTS.values(), strict=True)):
                for with_it in (turn % 2 == 0, turn % 2 == 1):
                    is_counting.value = with_it
                    _mounted_cost_us(mount_point, daemon.pid, client, BURST_MAX)  # it is switched at the next burst
                    taken_us = _mounted_cost_us(mount_point, daemon.pid, client, count)
                    (row.with_us if with_it else row.without_us).append(taken_us)
        is_counting.value = True
        scrapes = _scrapes_under_load(mount_point, f"http://{address}/metrics")
        pages = _page_costs_ms(_figures_of(mount_point))
    finally:
        with suppress(RazorError):
            mountpoints.unmount(str(mount_point))
        daemon.join(60)
    return rows, scrapes, pages


def _figures_of(folder: Path) -> MountFigures:
    """Return what the mount at *folder* tells of itself."""
    mount = mountpoints.mount_at(str(folder))
    assert mount is not None
    with closing(Asker(mount.device, 60)) as asker:
        told = asker.figures()
    assert told is not None
    return told


def _page_costs_ms(figures: MountFigures) -> tuple[float, float]:
    """Return the processor time of making a mount's page anew, and of a kept one when every kind of request has gone on."""
    kept, anew_ns, kept_ns = Exposition(), list[int](), list[int]()
    for turn in range(PAGES):
        further = {
            name: Spread(tuple(count + turn for count in spread.counts), spread.total_s + turn)
            for name, spread in figures.requests.items()
        }
        told = replace(figures, requests=further, mounted_age_s=figures.mounted_age_s + turn)
        started = time.process_time_ns()
        page([told])
        between = time.process_time_ns()
        kept.page(told)
        anew_ns.append(between - started)
        kept_ns.append(time.process_time_ns() - between)
    return min(anew_ns) / 1e6, min(kept_ns) / 1e6


def _look_for_ever(folder: Path) -> None:
    """Look for names that do not exist until ended."""
    number = 0
    while True:
        os.path.exists(folder / f"never {number}")
        number += 1


def _scrapes_under_load(folder: Path, url: str) -> list[float]:
    """Return how long each of some scrapes took while a client of the mount asks as fast as it can, in seconds."""
    load = multiprocessing.get_context("fork").Process(target=_look_for_ever, args=(folder,))
    load.start()
    try:
        taken = []
        opener = urllib.request.build_opener()  # makes ready what the client needs
        for _ in range(SCRAPES):
            started = time.perf_counter()
            with opener.open(url, timeout=60) as reply:
                reply.read()
            taken.append(time.perf_counter() - started)
    finally:
        load.terminate()
        load.join()
    return taken


def table(rows: list[Row], scrapes: list[float], pages: tuple[float, float]) -> list[str]:
    """Return the table's lines."""
    lines = ["| request | without | with | counting takes |", "|---|---|---|---|"]
    lines += [row.told() for row in rows]
    worst = sorted(scrapes)
    lines += ["", f"A scrape under load: {1000 * statistics.median(scrapes):.1f} ms in the median of {len(scrapes)}, "]
    lines[-1] += f"{1000 * worst[-len(worst) // 100]:.1f} ms at the 99th percentile, {1000 * worst[-1]:.1f} ms the slowest. "
    lines[-1] += f"The page takes {pages[0]:.2f} ms of the processor when made anew, {pages[1]:.2f} ms as it is kept."
    return lines


def main() -> None:
    """Measure, print the table, publish it if asked to."""
    parser = argparse.ArgumentParser(description="Measure what counting requests costs.")
    parser.add_argument("--rounds", type=int, default=15, help="of each, in turns (default: 15)")
    parser.add_argument("--requests", type=int, default=4000, help="in a round (default: 4000)")
    parser.add_argument("--write", action="store_true", help="put the table into docs/BENCHMARKS.md")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        rows = measure(folder, chosen.rounds, chosen.requests)
        mounted, scrapes, pages = measure_mounted(folder, chosen.rounds, chosen.requests)
        head = f"{machine(folder)}; medians of {chosen.rounds} rounds of {chosen.requests:,} requests."
        lines = [head, "", *table([*rows, *mounted], scrapes, pages)]
    tell("metering", lines, write=chosen.write)


if __name__ == "__main__":
    main()
