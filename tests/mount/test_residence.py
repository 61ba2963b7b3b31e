"""Requests that lack something: others are served meanwhile, one fetch serves all who want the same, and each one ends."""

import itertools
import random
import threading
from collections.abc import Callable, Container

import pytest
import trio
import trio.testing

from razortools.engine import files, namespace
from razortools.engine.limits import Limits
from razortools.engine.store.residence import Missing, NotResident, Residence
from razortools.engine.volume import Volume, open_volume
from razortools.errors import CorruptImage
from razortools.format.data import DataRecord
from razortools.format.inode import ROOT_INODE
from razortools.service import residence as fetching
from razortools.service.residence import FETCHES_MAX, Fetcher
from razortools.units import MIB, InodeNo, RecordNo
from tests.cold import ColdDisk, forget_all
from tests.workload import formatted

PATIENCE_S = 60
DATA = random.Random(1).randbytes(300_000)


class GatedDisk(ColdDisk):
    """A cold disk that threads read from when they are let; the thread that made it never waits."""

    def __init__(self, size_bytes: int) -> None:
        super().__init__(size_bytes)
        self.gate = threading.Event()
        self.gate.set()
        self.gated: Container[int] = range(size_bytes)  # where reads wait for the gate
        self.reading = threading.Semaphore(0)
        self.owner = threading.get_ident()
        self.owner_reads = self.thread_reads = 0

    def read(self, offset: int, length: int) -> bytes:
        if threading.get_ident() == self.owner:
            self.owner_reads += 1
        else:
            self.thread_reads += 1
            self.reading.release()
            assert offset not in self.gated or self.gate.wait(PATIENCE_S)
        return super().read(offset, length)


@pytest.fixture
def disk() -> GatedDisk:
    disk = GatedDisk(32 * MIB)
    formatted(disk)
    return disk


@pytest.fixture
def volume(disk: GatedDisk) -> Volume:
    volume = open_volume(disk)
    for name in (b"slow", b"other"):
        ino = namespace.create(volume, ROOT_INODE, name, 0o644, 0, 0)
        files.write(volume, ino, 0, DATA)
    volume.checkpoint()
    return volume


def number_of(volume: Volume, name: bytes) -> InodeNo:
    return namespace.lookup(volume, ROOT_INODE, name)


def data_forgotten(volume: Volume) -> None:
    """What files hold is on the disk only; all else is in memory."""
    volume.records.forget_all()


async def read_begun(disk: GatedDisk) -> None:
    assert await trio.to_thread.run_sync(disk.reading.acquire, True, PATIENCE_S)


def test_a_slow_read_keeps_nobody_waiting(disk: GatedDisk, volume: Volume) -> None:
    slow, fetcher, got = number_of(volume, b"slow"), Fetcher(volume.store.residence), []
    data_forgotten(volume)

    async def reader() -> None:
        got.append(await fetcher.run(files.read, volume, slow, 0, len(DATA)))

    async def scenario() -> None:
        disk.gate.clear()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(reader)
            await read_begun(disk)
            before = disk.owner_reads
            for number in range(100):
                await fetcher.run(namespace.create, volume, ROOT_INODE, b"%d" % number, 0o644, 0, 0)
                await fetcher.run(namespace.lookup, volume, ROOT_INODE, b"%d" % number)
            assert not got and disk.owner_reads == before
            disk.gate.set()

    trio.run(scenario)
    assert got == [DATA]


def test_one_fetch_serves_all_who_want_the_same(disk: GatedDisk, volume: Volume) -> None:
    slow, fetcher, got = number_of(volume, b"slow"), Fetcher(volume.store.residence), []
    data_forgotten(volume)

    async def reader(offset: int) -> None:
        got.append(await fetcher.run(files.read, volume, slow, offset, 10) == DATA[offset : offset + 10])

    async def scenario() -> None:
        disk.gate.clear()
        async with trio.open_nursery() as nursery:
            for offset in range(20):
                nursery.start_soon(reader, offset)
            await read_begun(disk)
            await trio.testing.wait_all_tasks_blocked()
            disk.gate.set()

    trio.run(scenario)
    assert got == [True] * 20
    assert (disk.thread_reads, fetcher.fetch_count, fetcher.shared_count) == (1, 1, 19)


def test_all_is_found_however_cold_and_small_the_caches_are(disk: GatedDisk, volume: Volume) -> None:
    volume.close()
    again = open_volume(disk, limits=Limits(record_cache_bytes=0, metadata_cache_bytes=0))
    fetcher = Fetcher(again.store.residence)

    async def scenario() -> None:
        forget_all(again)
        before = disk.owner_reads
        for name in (b"slow", b"other"):
            ino = await fetcher.run(namespace.lookup, again, ROOT_INODE, name)
            assert await fetcher.run(files.read, again, ino, 0, len(DATA)) == DATA
            forget_all(again)
        assert disk.owner_reads == before, "the loop has read by itself"

    trio.run(scenario)
    assert fetcher.in_place_count == 0


def test_damage_is_told_to_the_one_who_needs_what_it_hit(disk: GatedDisk, volume: Volume) -> None:
    slow, other = number_of(volume, b"slow"), number_of(volume, b"other")
    item = volume.records.find_item(slow, 0)  # type: ignore[arg-type]
    disk.write(item.address * volume.block_bytes, b"damaged")  # type: ignore[union-attr]
    data_forgotten(volume)
    fetcher, outcomes = Fetcher(volume.store.residence), {}

    async def reader(name: str, ino: InodeNo, offset: int) -> None:
        try:
            outcomes[name] = await fetcher.run(files.read, volume, ino, offset, 10) == DATA[offset : offset + 10]
        except CorruptImage as failure:
            outcomes[name] = str(failure).partition(",")[0] == f"inode {slow}"

    async def scenario() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(reader, "damaged", slow, 0)
            nursery.start_soon(reader, "damaged too", slow, 5)
            nursery.start_soon(reader, "behind it", slow, 200_000)
            nursery.start_soon(reader, "another file", other, 0)

    trio.run(scenario)
    assert outcomes == {"damaged": True, "damaged too": True, "behind it": True, "another file": True}


def test_what_was_written_anew_while_it_was_read_is_no_damage(disk: GatedDisk, volume: Volume) -> None:
    slow, fetcher, got = number_of(volume, b"slow"), Fetcher(volume.store.residence), []
    item = volume.records.find_item(slow, 0)  # type: ignore[arg-type]
    data_forgotten(volume)

    async def reader() -> None:
        got.append(await fetcher.run(files.read, volume, slow, 0, len(DATA)))

    async def scenario() -> None:
        disk.gate.clear()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(reader)
            await read_begun(disk)
            files.write(volume, slow, 0, DATA[::-1])
            volume.checkpoint()
            volume.records.forget_all()
            assert not volume.store.maps.is_used(item.address)  # type: ignore[union-attr, arg-type]
            disk.write(item.address * volume.block_bytes, b"of another file")  # type: ignore[union-attr]
            disk.gate.set()

    trio.run(scenario)
    assert got == [DATA[::-1]]


def test_a_flood_of_slow_reads_keeps_no_look_up_waiting_that_has_to_read_too(disk: GatedDisk, volume: Volume) -> None:
    fetcher, served = Fetcher(volume.store.residence), []
    large = [namespace.create(volume, ROOT_INODE, b"large %d" % number, 0o644, 0, 0) for number in range(3 * FETCHES_MAX)]
    for ino in large:
        files.write(volume, ino, 0, DATA[:50_000])
    volume.checkpoint()
    items = [volume.records.find_item(ino, 0) for ino in large]  # type: ignore[arg-type]
    disk.gated = [item.address * volume.block_bytes for item in items]  # type: ignore[union-attr]
    data_forgotten(volume)

    async def flood(ino: InodeNo) -> None:
        await fetcher.run(files.read, volume, ino, 0, 10)
        served.append("flood")

    async def look_up() -> None:
        forget_all(volume)
        await fetcher.run(namespace.lookup, volume, ROOT_INODE, b"other")
        served.append("look-up")

    async def scenario() -> None:
        disk.gate.clear()
        async with trio.open_nursery() as nursery:
            for ino in large:
                nursery.start_soon(flood, ino)
            await trio.testing.wait_all_tasks_blocked()
            await look_up()
            disk.gate.set()

    trio.run(scenario)
    assert served == ["look-up", *["flood"] * 3 * FETCHES_MAX]


class Never(Missing):
    """Something that is not there again as soon as it has been fetched."""

    def __init__(self, fetch: Callable[[], object] = lambda: b"") -> None:
        self.key = object()
        self._fetch = fetch

    def fetch(self) -> object:
        return self._fetch()


def test_a_request_that_never_finds_all_it_needs_ends_by_waiting_in_place() -> None:
    residence = Residence()
    fetcher = Fetcher(residence)

    def work() -> str:
        if residence.waits:
            return "done"
        raise NotResident(Never())

    assert trio.run(fetcher.run, work) == "done"
    assert fetcher.in_place_count == 1 and fetcher.fetch_count == fetching.ROUNDS_MAX


def test_so_many_threads_fetch_and_no_more() -> None:
    residence, lock, gate = Residence(), threading.Lock(), threading.Event()
    fetcher = Fetcher(residence)
    running = most = 0

    def fetch() -> bytes:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        assert gate.wait(PATIENCE_S)
        with lock:
            running -= 1
        return b"found"

    async def request() -> None:
        missing = Never(fetch)

        def work() -> object:
            if residence.handed(missing.key) is None:
                raise NotResident(missing)
            return None

        await fetcher.run(work)

    async def scenario() -> None:
        async with trio.open_nursery() as nursery:
            for _ in range(3 * FETCHES_MAX):
                nursery.start_soon(request)
            await trio.testing.wait_all_tasks_blocked()
            gate.set()

    trio.run(scenario)
    assert 0 < most <= FETCHES_MAX


def test_who_waits_for_a_fetch_that_was_cancelled_fetches_by_himself(disk: GatedDisk, volume: Volume) -> None:
    slow, fetcher, got = number_of(volume, b"slow"), Fetcher(volume.store.residence), []
    data_forgotten(volume)

    async def reader(scope: trio.CancelScope) -> None:
        with scope:
            got.append(await fetcher.run(files.read, volume, slow, 0, 10))

    async def scenario() -> None:
        first, gate = trio.CancelScope(), threading.Event()
        async with trio.open_nursery() as nursery:
            for _ in range(FETCHES_MAX):  # no turn is left
                nursery.start_soon(fetcher._turns.run, gate.wait, PATIENCE_S)
                await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(reader, first)
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(reader, trio.CancelScope())
            await trio.testing.wait_all_tasks_blocked()
            first.cancel()
            await trio.testing.wait_all_tasks_blocked()
            gate.set()

    trio.run(scenario)
    assert got == [DATA[:10]]


def test_what_one_read_lacks_is_fetched_with_as_few_reads_as_can_be(disk: GatedDisk) -> None:
    volume, text = open_volume(disk), b"a line that shrinks\n" * 50_000
    ino = namespace.create(volume, ROOT_INODE, b"text", 0o644, 0, 0)
    files.write(volume, ino, 0, text)
    volume.checkpoint()
    data_forgotten(volume)
    fetcher = Fetcher(volume.store.residence)
    assert trio.run(fetcher.run, files.read, volume, ino, 0, len(text)) == text
    assert (fetcher.fetch_count, disk.thread_reads) == (8, 1), "eight records side by side"


def test_a_damaged_record_is_damage_to_those_alone_who_read_it(disk: GatedDisk) -> None:
    volume, text = open_volume(disk), b"a line that shrinks\n" * 50_000
    ino = namespace.create(volume, ROOT_INODE, b"text", 0o644, 0, 0)
    files.write(volume, ino, 0, text)
    volume.checkpoint()
    item = volume.records.find_item(ino, RecordNo(3))
    assert isinstance(item, DataRecord)
    disk.write(item.address * volume.block_bytes + 5, b"?")
    data_forgotten(volume)
    fetcher, record_bytes = Fetcher(volume.store.residence), volume.inodes.get(ino).record_bytes
    with pytest.raises(CorruptImage, match="record 3"):
        trio.run(fetcher.run, files.read, volume, ino, 0, len(text))
    assert disk.thread_reads == 1
    for number in (2, 4):
        start = number * record_bytes
        assert trio.run(fetcher.run, files.read, volume, ino, start, 100) == text[start : start + 100]


@pytest.mark.parametrize("metadata_too", [False, True], ids=["data", "all"])
@pytest.mark.parametrize("warm", [set(some) for count in range(4) for some in itertools.combinations(range(3), count)], ids=str)
def test_a_record_counts_once_for_each_request_that_got_an_answer(volume: Volume, warm: set[int], metadata_too: bool) -> None:
    """What had been found was counted again at each attempt, and what an attempt had read was found by the next."""
    slow, fetcher = number_of(volume, b"slow"), Fetcher(volume.store.residence)
    length = volume.inodes.get(slow).record_bytes
    records, figures = -(-len(DATA) // length), []
    assert records == 3
    data_forgotten(volume)
    if metadata_too:
        forget_all(volume)
    for number in warm:
        files.read(volume, slow, number * length, 1)

    def found_and_read() -> tuple[int, int]:
        now = volume.statistics()
        return now.record_hits, now.record_misses

    async def scenario() -> None:
        for _ in range(2):
            before = found_and_read()
            assert await fetcher.run(files.read, volume, slow, 0, len(DATA)) == DATA
            figures.append(tuple(now - then for now, then in zip(found_and_read(), before, strict=True)))

    trio.run(scenario)
    assert figures == [(len(warm), 3 - len(warm)), (3, 0)]


def test_what_an_attempt_has_read_before_another_round_is_counted_as_read_only() -> None:
    """The middle of three is small and comes at once; the first one is fetched, then the last."""
    residence, said = Residence(), []
    fetcher = Fetcher(residence)
    kept: set[str] = set()

    def want(name: str) -> None:
        if name in kept:
            residence.found_count += 1
            return
        if name != "small" and residence.handed(name) is None:
            raise NotResident(Thing(name))
        residence.read_count += 1
        kept.add(name)

    def work() -> str:
        for name in ("first", "small", "last"):
            want(name)
            said.append((residence.found_count, residence.read_count))
        return "done"

    assert trio.run(fetcher.run, work) == "done"
    assert (residence.found_count, residence.read_count) == (0, 3)
    assert trio.run(fetcher.run, work) == "done"
    assert (residence.found_count, residence.read_count) == (3, 3)


class Thing(Missing):
    """Something that is fetched by its name."""

    def __init__(self, name: str) -> None:
        self.key = name

    def fetch(self) -> object:
        return self.key
